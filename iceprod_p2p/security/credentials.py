"""Credentials of the outside world, by which a site submits: x509 proxies (RFC 3820) and tokens (JSON Web Tokens).

They are files that somebody else makes and renews.  Here is read how long they last, and a proxy is delegated: a new
one, one step down, is signed for a key that a grid service holds.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key, load_pem_private_key
from cryptography.x509.oid import NameOID

from iceprod_p2p.base.errors import ConfigError, IceProdError
from iceprod_p2p.security.certificates import at, expires_ms
from iceprod_p2p.security.keyfiles import read_secret

REQUEST_BYTES_MAX: Final = 16 * 1024
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
PROXY_INFORMATION: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
# ProxyCertInfo of RFC 3820: no bound on the length of the path, and the policy id-ppl-inheritAll.
INHERIT_ALL: Final = bytes.fromhex("300c300a06082b06010505071501")
_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\s*", re.DOTALL)
_REQUEST: Final = re.compile(rb"\s*-----BEGIN [A-Z ]+-----([A-Za-z0-9+/=\s]+)-----END [A-Z ]+-----\s*")
_KEY: Final = re.compile(
    rb"-----BEGIN (?:RSA |EC )?PRIVATE KEY-----.*?-----END [A-Z ]*KEY-----\s*", re.DOTALL
)


class CredentialKind(StrEnum):
    """What a credential file holds."""

    X509 = "x509"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as its file has it; `expires_ms` is wall time, 0 for a token that does not say."""

    kind: CredentialKind
    expires_ms: int
    subject: str = ""
    token: str = ""
    chain: tuple[x509.Certificate, ...] = ()
    key_pem: bytes = b""


def read_credential(path: Path) -> Credential:
    """Read a proxy or a token; ConfigError when the file is missing, open to others, or holds neither."""
    content = read_secret(path)
    certificates = _CERTIFICATE.findall(content)
    try:
        if certificates:
            chain = tuple(x509.load_pem_x509_certificate(pem) for pem in certificates)
            key = _KEY.search(content)
            last_ms = min(expires_ms(certificate) for certificate in chain)
            subject = chain[0].subject.rfc4514_string()
            return Credential(
                CredentialKind.X509, last_ms, subject, chain=chain, key_pem=key[0] if key else b""
            )
        return _token(content.decode("ascii").strip())
    except (ValueError, UnicodeDecodeError) as wrong:
        raise ConfigError(
            f"{path} holds neither an x509 proxy nor a token",
            remedy="make it anew, with `arcproxy` or its like",
        ) from wrong


def delegate(credential: Credential, request_pem: bytes, *, serial: int, now_ms: int) -> bytes:
    """Return a proxy for the key of a request, with the chain behind it, as PEM.

    It ends with the credential.  Raises IceProdError for a request that is none, and ConfigError for a credential
    that cannot delegate.
    """
    if credential.kind is not CredentialKind.X509 or not credential.key_pem:
        raise ConfigError(
            "this credential holds no key, so it cannot be delegated", remedy="use an x509 proxy"
        )
    try:
        public_key = _requested_key(request_pem)
        key = load_pem_private_key(credential.key_pem, None)
    except (ValueError, TypeError, IndexError, UnsupportedAlgorithm, InvalidSignature) as wrong:
        why = str(wrong) or type(wrong).__name__
        raise IceProdError(f"a request for delegation cannot be used: {why}") from wrong
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise IceProdError("the proxy's key is of an odd kind")
    issuer = credential.chain[0]
    name = x509.Name(
        [
            *issuer.subject.rdns,
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, str(serial))]),
        ]
    )
    begin = max(issuer.not_valid_before_utc, at(now_ms) - CLOCK_TOLERANCE)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(datetime.fromtimestamp(credential.expires_ms // 1_000, UTC))
        .add_extension(x509.UnrecognizedExtension(PROXY_INFORMATION, INHERIT_ALL), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pem((made, *credential.chain))


def _requested_key(pem: bytes) -> rsa.RSAPublicKey:
    """Return the key of a request, once its signature is found right; ValueError and its like for all else.

    Services send requests with a version number that libraries for certificates refuse, so it is taken apart
    here.
    """
    body = _REQUEST.fullmatch(pem[:REQUEST_BYTES_MAX])
    if body is None:
        raise ValueError("it is no PEM")
    information, _, signature = _parts(base64.b64decode(body[1]))
    key = load_der_public_key(_parts(information)[2])
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("its key is no RSA key")
    key.verify(_content(signature)[1:], information, padding.PKCS1v15(), hashes.SHA256())
    return key


def _parts(der: bytes) -> list[bytes]:
    """Return the elements of a DER sequence, whole."""
    content = _content(der[: _length(der)])
    found = []
    while content:
        length = _length(content)
        found.append(content[:length])
        content = content[length:]
    return found


def _content(element: bytes) -> bytes:
    return element[_length(element) - _size(element) :]


def _length(der: bytes) -> int:
    """Return how long the first element is, with its head; ValueError when it is cut off."""
    length = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0) + _size(der)
    if length > len(der):
        raise ValueError("it is cut off")
    return length


def _size(der: bytes) -> int:
    return int.from_bytes(der[2 : 2 + (der[1] & 0x7F)]) if der[1] & 0x80 else der[1]


def _token(text: str) -> Credential:
    """Read a JSON Web Token's end and subject; whether it is genuine is for the service to say."""
    parts = text.split(".")
    if len(parts) != 3:
        raise ValueError("no token")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, UnicodeDecodeError) as wrong:
        raise ValueError("no token") from wrong
    if not isinstance(claims, dict):
        raise ValueError("no token")
    end = claims.get("exp", 0)
    known = isinstance(end, int | float) and not isinstance(end, bool) and 0 < end < 10**11
    return Credential(
        CredentialKind.TOKEN, int(end * 1_000) if known else 0, str(claims.get("sub", ""))[:200], token=text
    )


def _pem(chain: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
