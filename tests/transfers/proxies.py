"""Proxy certificates (RFC 3820), as `grid-proxy-init` makes them, with any lifetime."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

PROXY_CERT_INFO = ObjectIdentifier("1.3.6.1.5.5.7.1.14")
INHERIT_ALL = bytes.fromhex("300c300a06082b06010505071501")  # No limit of length; whoever has it may do all.
USUAL = x509.KeyUsage(True, False, True, False, False, False, False, False, False)


def write_proxy(path: Path, certificate: Path, *, lifetime_s: int) -> None:
    """Write a proxy for whoever `certificate` names (its key beside it), mode 0600; a negative lifetime is over."""
    holder = x509.load_pem_x509_certificate(certificate.read_bytes())
    signer = serialization.load_pem_private_key(certificate.with_suffix(".key").read_bytes(), None)
    assert isinstance(signer, rsa.RSAPrivateKey)
    key = rsa.generate_private_key(65537, 2048)
    now = datetime.datetime.now(datetime.UTC)
    number = x509.random_serial_number() >> 96
    name = x509.Name([*holder.subject.rdns, x509.RelativeDistinguishedName([_common(str(number))])])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(holder.subject)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(seconds=lifetime_s))
        .add_extension(x509.UnrecognizedExtension(PROXY_CERT_INFO, INHERIT_ALL), critical=True)
        .add_extension(USUAL, critical=True)
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    path.touch(mode=0o600)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private + certificate.read_bytes())


def _common(name: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.COMMON_NAME, name)
