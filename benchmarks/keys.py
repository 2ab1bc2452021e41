"""Test certificates: the project's own authorities for its nodes, a plain authority for etcd; P-256 both."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.model.identity import IdentityKind, identity_uri
from iceprod_p2p.security.ca import Authority, found_root
from iceprod_p2p.security.certificates import (
    authority_claim,
    key_to_pem,
    make_request,
    new_key,
    to_der,
    to_pem,
)
from iceprod_p2p.wire.channel import TlsMaterial

CLUSTER: Final = "bench"
SITE: Final = "madison"


class Ring(NamedTuple):
    """The authorities of one throwaway cluster of one site."""

    root: Authority
    site: Authority

    @property
    def root_der(self) -> bytes:
        return to_der(self.root.certificate)

    @property
    def site_der(self) -> bytes:
        return to_der(self.site.certificate)

    def node(self, name: str) -> TlsMaterial:
        """Return the key material of a node."""
        key = new_key()
        uri = identity_uri(IdentityKind.NODE, name, site=SITE, cluster=CLUSTER)
        now_ms = SystemClock().wall_ms()
        leaf = self.site.issue(make_request(key, uri), kind=IdentityKind.NODE, name=name, now_ms=now_ms)
        chain = to_pem(leaf, self.site.certificate)
        return TlsMaterial(chain, key_to_pem(key), to_pem(self.root.certificate))


def make_ring() -> Ring:
    """Found the authorities."""
    now_ms = SystemClock().wall_ms()
    root = found_root(CLUSTER, new_key(), now_ms=now_ms)
    key = new_key()
    request = make_request(key, authority_claim(SITE, CLUSTER))
    certificate = root.issue_authority(request, scope=SITE, now_ms=now_ms)
    return Ring(root, Authority(CLUSTER, SITE, certificate, key))


def write_loopback_keys(directory: Path) -> None:
    """Write `ca.pem`, `cert.pem` and `key.pem`: one certificate for servers and clients at 127.0.0.1."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark authority")])
    authority = (
        _begin(name, name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    leaf = (
        _begin(subject, name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "ca.pem").write_bytes(authority.public_bytes(pem))
    (directory / "cert.pem").write_bytes(leaf.public_bytes(pem))
    (directory / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _begin(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=2))
