"""Meeting a cluster for the first time: fetch its root certificate and compare it with a known fingerprint.

The enrolment port shows its whole chain, root included.  The chain is read over a connection that trusts
nobody and says nothing; only a root with the expected fingerprint is taken, and everything secret goes over
a second connection that verifies against it.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from iceprod_p2p.base.errors import NotAllowed, Unavailable
from iceprod_p2p.wire.addresses import Address, parse_address

_CHAIN_LENGTH_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class PinnedServer:
    """A server to dial with `wire.channel`: the root to trust, and the name to expect."""

    root_pem: bytes
    server_name: str


def fetch_root(address: str, *, root_fingerprint: str, timeout_s: float = 10.0) -> PinnedServer:
    """Return the root whose SHA-256 is `root_fingerprint` (hex) from the enrolment port at `address`.

    Blocks up to `timeout_s` for each step.  NotAllowed when the server shows no such root: it is another
    cluster, or an impostor.  Unavailable when nobody answers there.
    """
    target = parse_address(address)
    chain = _shown_chain(target, timeout_s)
    root = next((der for der in chain if _is_pinned(der, root_fingerprint)), None)
    if root is None:
        raise NotAllowed(
            f"the server at {target} does not belong to the cluster of this invitation",
            remedy="check the address; if it is right, somebody may be listening in between",
        )
    try:
        names = x509.load_der_x509_certificate(chain[0]).extensions
        dns_names = names.get_extension_for_class(x509.SubjectAlternativeName).value
        server_name = dns_names.get_values_for_type(x509.DNSName)[0]
        root_pem = x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM)
    except (ValueError, IndexError, x509.ExtensionNotFound, x509.DuplicateExtension) as fault:
        raise NotAllowed(f"the server at {target} shows no certificate of a node") from fault
    return PinnedServer(root_pem, server_name)


def _is_pinned(der: bytes, root_fingerprint: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(der).hexdigest(), root_fingerprint.lower())


def _shown_chain(target: Address, timeout_s: float) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # The chain is judged by its root's fingerprint alone.
    try:
        with (
            socket.create_connection((target.host, target.port), timeout=timeout_s) as plain,
            context.wrap_socket(plain) as connection,
        ):
            return _unverified_chain(connection)
    except OSError as fault:
        raise Unavailable(
            f"cannot reach {target}: {fault}", remedy="check the address and that the node is running"
        ) from fault


def _unverified_chain(connection: ssl.SSLSocket) -> list[bytes]:
    """The chain as shown.  Public since Python 3.13; before, it lies one private name deeper, as
    certificates.
    """
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())[:_CHAIN_LENGTH_MAX]
    inner: Any = connection._sslobj  # type: ignore[attr-defined]
    return [entry.public_bytes(2) for entry in inner.get_unverified_chain()[:_CHAIN_LENGTH_MAX]]  # 2: DER
