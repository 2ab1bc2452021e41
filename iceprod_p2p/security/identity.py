"""Who is calling: the identity in the certificate that the TLS handshake has verified.

The handshake proves that the certificate descends from the cluster's root within every name constraint.
Here its names are read strictly; what the caller may do, and whether its issuer and certificate still
stand, is decided above.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from iceprod_p2p.base.errors import NotAllowed
from iceprod_p2p.model.identity import Identity, IdentityKind, identity_from_names, is_site_name
from iceprod_p2p.security.certificates import (
    certificate_key,
    expires_ms,
    fingerprint,
    home_of,
    key_digest,
    made_ms,
)

_CERTIFICATE_BYTES_MAX: Final = 8 * 1024  # Ours have about 700; a longer one is not ours.
_ISSUER_BYTES: Final = 20  # `certificates.key_identifier`


class CallContext(Protocol):
    """The part of a gRPC servicer context (asyncio or threaded) that tells about the connection."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the transport knows of the peer."""
        ...


def peer_identity(context: CallContext) -> Identity:
    """Return the caller's identity; NotAllowed without a certificate, with a strange one, or below TLS 1.3.

    Cheap to call for every message of a stream: certificates already read are remembered.  Validity in time
    was checked at the handshake only; compare `expires_ms` for streams that outlive it.
    """
    facts = context.auth_context()
    require_tls13(context)
    certificate = b"".join(facts.get("x509_pem_cert", ()))
    if not certificate:
        raise NotAllowed("the caller showed no certificate", remedy="log in or enrol to get one")
    return _read_certificate(certificate)


def require_tls13(context: CallContext) -> None:
    """Raise NotAllowed unless the connection is TLS 1.3; for calls of the enrolment port, which has no
    identities.
    """
    version = b"".join(context.auth_context().get("ssl_tls_version", ())).decode("ascii", "replace")
    if version != "TLSv1.3":
        raise NotAllowed(
            f"the connection uses {version or 'no TLS'}, and only TLS 1.3 is accepted",
            remedy="use a client whose TLS library offers TLS 1.3",
        )


@lru_cache(maxsize=4096)
def _read_certificate(certificate_pem: bytes) -> Identity:
    if len(certificate_pem) > _CERTIFICATE_BYTES_MAX:
        size = len(certificate_pem)
        raise NotAllowed(f"the caller's certificate has {size} bytes, more than any of this cluster")
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError as fault:
        raise NotAllowed("the caller's certificate cannot be read") from fault
    return identity_of(certificate)


def identity_of(certificate: x509.Certificate) -> Identity:
    """Read a certificate's identity strictly; NotAllowed when it carries none, or more than one should, does not
    name its issuer's key (by which authorities are revoked), or is made for other uses.
    """
    try:
        extensions = certificate.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        home = home_of(certificate)
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        dns_names = names.get_values_for_type(x509.DNSName)
        others = len(list(names)) - len(uris) - len(dns_names)
        identity = identity_from_names(uris, dns_names, other_names=others)
        if home and (identity.kind is not IdentityKind.PILOT or not is_site_name(home)):
            raise ValueError("a home site is named that cannot be one")
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as fault:
        raise NotAllowed(
            f"the certificate names no identity of this cluster: {fault}",
            remedy="use the certificate that the cluster issued",
        ) from fault
    issuer = authority.key_identifier or b""
    if len(issuer) != _ISSUER_BYTES:
        raise NotAllowed(f"the certificate of {identity.actor} does not name the key of its issuer")
    _require_leaf(certificate, identity)
    return replace(
        identity,
        fingerprint=fingerprint(certificate),
        key_digest=key_digest(certificate_key(certificate)),
        issuer=issuer.hex(),
        expires_ms=expires_ms(certificate),
        made_ms=made_ms(certificate),
        home=home,
    )


def _require_leaf(certificate: x509.Certificate, identity: Identity) -> None:
    """Raise NotAllowed unless the certificate is made for exactly what this kind of caller does."""
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        key_usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as fault:
        raise NotAllowed(
            f"the certificate of {identity.actor} does not say what it is for: {fault}"
        ) from fault
    expected = {ExtendedKeyUsageOID.CLIENT_AUTH}
    if identity.kind is IdentityKind.NODE:
        expected.add(ExtendedKeyUsageOID.SERVER_AUTH)
    if basic.ca or key_usage.key_cert_sign or set(usage) != expected:
        raise NotAllowed(
            f"the certificate of {identity.actor} is made for other uses than a {identity.kind}'s"
        )
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA256):
        raise NotAllowed(f"the certificate of {identity.actor} is not signed over a SHA-256")
