"""Keys, certificate requests and certificates: P-256, read and written in the one form this cluster uses.

A request (CSR) proves that its sender holds the key and names what it asks for as a URI; everything else in
it is ignored.  Certificates begin five minutes before they are made, because clocks of sites differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from iceprod_p2p.base.errors import BadInput, ConfigError, NotAllowed
from iceprod_p2p.model.identity import SCHEME, is_host_label

CLOCK_TOLERANCE_MS: Final = 300_000
REQUEST_BYTES_MAX: Final = 4 * 1024  # Ours have about 450.
# Of ours alone: a UUID as X.667 lets anybody use one.
HOME_SITE: Final = x509.ObjectIdentifier("2.25.52699857866674560973173748378331154590")
_UTF8_STRING: Final = 0x0C
CHAIN_BYTES_MAX: Final = 16 * 1024
_CHAIN_LENGTH_MAX: Final = 6  # Leaf, issuer, root, and as many again while two roots overlap.
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\s*", re.DOTALL)

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


def new_key() -> PrivateKey:
    """Make a P-256 key.  (gRPC refuses certificates with Ed25519 keys.)"""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: PrivateKey, *, passphrase: bytes | None = None) -> bytes:
    """Return the key as PKCS #8, encrypted when a passphrase is given."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def key_from_pem(pem: bytes, *, name: str, passphrase: bytes | None = None) -> PrivateKey:
    """Read a P-256 key; ConfigError says what `name` (its file) holds instead."""
    try:
        key = load_pem_private_key(pem, passphrase)
    except TypeError as fault:
        remedy = "give its passphrase" if passphrase is None else "give no passphrase"
        raise ConfigError(
            f"{name} is {'' if passphrase is None else 'not '}encrypted", remedy=remedy
        ) from fault
    except (ValueError, UnsupportedAlgorithm) as fault:
        what = "is no private key" if passphrase is None else "is no private key, or the passphrase is wrong"
        raise ConfigError(f"{name} {what}", remedy="restore it from a backup or enrol again") from fault
    if not isinstance(key, PrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{name} holds a key of another kind than P-256", remedy="enrol again")
    return key


def public_bytes(key: PublicKey) -> bytes:
    """Return the key as DER SubjectPublicKeyInfo, the form that digests of keys are taken of."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_digest(key: PublicKey) -> bytes:
    """Return the 32 bytes of SHA-256 by which passkeys name their holder."""
    return sha256(public_bytes(key)).digest()


def key_identifier(key: PublicKey) -> bytes:
    """Return the 20 bytes by which certificates name their issuer's key (RFC 7093, method 1)."""
    return key_digest(key)[:20]


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the certificate's SHA-256 in hex."""
    return sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def to_pem(*certificates: x509.Certificate) -> bytes:
    """Return the certificates as one PEM text, in the order given."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def to_der(certificate: x509.Certificate) -> bytes:
    """Return the certificate as DER, the form that the ledger keeps."""
    return certificate.public_bytes(Encoding.DER)


def chain_from_pem(pem: bytes, *, name: str = "the certificate chain") -> tuple[x509.Certificate, ...]:
    """Read one to six certificates, leaf first; BadInput for anything else, before much is allocated."""
    blocks = _PEM.findall(pem) if len(pem) <= CHAIN_BYTES_MAX else []
    if not 1 <= len(blocks) <= _CHAIN_LENGTH_MAX or b"".join(blocks).strip() != pem.strip():
        raise BadInput(f"{name} is not one to {_CHAIN_LENGTH_MAX} PEM certificates")
    return tuple(_certificate(x509.load_pem_x509_certificate, block, name) for block in blocks)


def certificate_from_der(der: bytes, *, name: str = "the certificate") -> x509.Certificate:
    """Read one DER certificate; BadInput otherwise."""
    if len(der) > CHAIN_BYTES_MAX:
        raise BadInput(f"{name} has {len(der)} bytes, more than any certificate of a cluster")
    return _certificate(x509.load_der_x509_certificate, der, name)


def certificate_key(certificate: x509.Certificate) -> PublicKey:
    """Return the certificate's P-256 key; NotAllowed for a key of another kind."""
    return _p256(_try_public_key(certificate), "the certificate")


def authority_claim(site: str, cluster: str) -> str:
    """Return what a request for a site's (or, with `people`, the people's) issuing authority asks for."""
    if not (is_host_label(site) and is_host_label(cluster)):
        raise BadInput(f"{site!r} and {cluster!r} cannot name a site and a cluster")
    return f"{SCHEME}://{site}.{cluster}/authority"


def make_request(key: PrivateKey, claim: str) -> bytes:
    """Return a PEM request for a certificate: `claim` is an identity's URI or an `authority_claim`."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(claim)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(names, critical=True).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def check_request(pem: bytes, *, claim: str) -> PublicKey:
    """Return the key of a request that asks for `claim` and nothing else.

    BadInput when it is malformed or too large; NotAllowed when it asks for another name, its key is not
    P-256, or it is not signed by its own key.
    """
    request = _request(pem)
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        claimed = [name.value for name in names]
        signed = request.is_signature_valid
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, UnsupportedAlgorithm) as fault:
        raise BadInput(f"the certificate request cannot be read: {fault}") from fault
    if claimed != [claim]:
        raise NotAllowed(f"the certificate request asks for {str(claimed)[:300]}, but may have {claim} only")
    if not signed:
        raise NotAllowed("the certificate request is not signed by its own key")
    return _p256(_try_public_key(request), "the certificate request")


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether `issuer`'s key signed `certificate` and the names agree; no time or purpose is
    checked.
    """
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def is_in_time(certificate: x509.Certificate, now_ms: int) -> bool:
    """Return whether the certificate is valid at wall time `now_ms`.

    Exact, as the TLS handshake is: the tolerance lies in certificates that begin five minutes before they
    are made.
    """
    return certificate.not_valid_before_utc <= at(now_ms) <= certificate.not_valid_after_utc


def expires_ms(certificate: x509.Certificate) -> int:
    """Return the wall time at which the certificate ends."""
    return int(certificate.not_valid_after_utc.timestamp()) * 1_000


def made_ms(certificate: x509.Certificate) -> int:
    """Return the wall time at which the certificate was issued: it begins `CLOCK_TOLERANCE_MS` before."""
    return int(certificate.not_valid_before_utc.timestamp()) * 1_000 + CLOCK_TOLERANCE_MS


def renewal_due_ms(certificate: x509.Certificate) -> int:
    """Return the wall time from which the certificate should be renewed: half of its life."""
    begin = int(certificate.not_valid_before_utc.timestamp()) * 1_000
    return begin + (expires_ms(certificate) - begin) // 2


def problem_of(certificate: x509.Certificate, now_ms: int) -> str:
    """Say why a certificate would not be accepted at wall time `now_ms`; empty when nothing is known.

    A server that refuses a certificate just closes the connection, so ask this before blaming the network.
    """
    if expires_ms(certificate) < now_ms:
        return "the certificate has expired; renew it or log in again"
    if not is_in_time(certificate, now_ms):
        return "the certificate is not valid yet; set this machine's clock"
    return ""


def home_extension(site: str) -> x509.UnrecognizedExtension:
    """Return what names a pilot's own site in a certificate that another site made."""
    name = site.encode("ascii")
    assert len(name) < 128, "site names have at most 63 characters"
    return x509.UnrecognizedExtension(HOME_SITE, bytes([_UTF8_STRING, len(name)]) + name)


def home_of(certificate: x509.Certificate) -> str:
    """Return the site that `home_extension` names, empty when there is none; ValueError for a malformed one."""
    try:
        found = certificate.extensions.get_extension_for_oid(HOME_SITE).value
    except x509.ExtensionNotFound:
        return ""
    raw = found.value if isinstance(found, x509.UnrecognizedExtension) else b""
    name = raw[2:].decode("ascii")
    if raw[:2] != bytes([_UTF8_STRING, len(name) & 0x7F]) or not name:
        raise ValueError("the home site is malformed")
    return name


def days_left(certificate: x509.Certificate, now_ms: int) -> int:
    """Return whole days until the certificate ends, negative when it has ended."""
    return (expires_ms(certificate) - now_ms) // 86_400_000


def first_expiry_ms(certificates: Sequence[x509.Certificate]) -> int:
    """Return when the first of a chain ends, and with it the whole chain's worth."""
    return min(expires_ms(certificate) for certificate in certificates)


def at(now_ms: int) -> datetime:
    """Return wall milliseconds as the whole second that X.509 can hold, in UTC."""
    return datetime.fromtimestamp(now_ms // 1_000, UTC)


def _request(pem: bytes) -> x509.CertificateSigningRequest:
    if len(pem) > REQUEST_BYTES_MAX:
        raise BadInput(f"the certificate request has {len(pem)} bytes, more than {REQUEST_BYTES_MAX}")
    try:
        return x509.load_pem_x509_csr(pem)
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise BadInput("the certificate request is not a PEM request") from fault


def _certificate(load: object, data: bytes, name: str) -> x509.Certificate:
    try:
        certificate = load(data)  # type: ignore[operator]
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise BadInput(f"{name} cannot be read: {fault}") from fault
    assert isinstance(certificate, x509.Certificate)
    return certificate


def _try_public_key(holder: x509.Certificate | x509.CertificateSigningRequest) -> object:
    try:
        return holder.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _p256(key: object, name: str) -> PublicKey:
    if not isinstance(key, PublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise NotAllowed(f"{name} holds a key of another kind than P-256", remedy="make the key with iceprod")
    return key
