"""Calls before there is a certificate: the root is found by its fingerprint, then a secret is shown.

The server's own certificate is looked at first without trust, to learn its name; then the root is asked for
and compared with the fingerprint, and only a connection that verifies up to that root carries a token or a
password.
"""

from __future__ import annotations

import hmac
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509

from iceprod_p2p.base.errors import BadInput, NotAllowed, Unavailable
from iceprod_p2p.client.contexts import NodeEntry
from iceprod_p2p.model.identity import IdentityKind, identity_uri
from iceprod_p2p.security.certificates import (
    certificate_key,
    chain_from_pem,
    fingerprint,
    key_to_pem,
    make_request,
    new_key,
    to_pem,
)
from iceprod_p2p.security.identity import identity_of
from iceprod_p2p.security.trust import descends, succeeding_roots
from iceprod_p2p.wire.addresses import parse_address
from iceprod_p2p.wire.calls import call_blocking
from iceprod_p2p.wire.channel import TlsMaterial, blocking_channel
from iceprod_p2p.wire.pb import common_pb2, enrol_pb2, enrol_pb2_grpc

CONNECT_S: Final = 10.0
LOGIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Root:
    """A cluster's root as one of its servers gave it: `server_name` is that server, `nodes` all there are."""

    cluster: str
    root_pem: bytes
    server_name: str
    nodes: tuple[NodeEntry, ...]


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A person's new certificate with its key, and the cluster's present nodes."""

    person: str
    role: str
    cluster: str
    lifetime_s: int
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    root_pem: bytes
    nodes: tuple[NodeEntry, ...]


def find_root(address: str, root_fingerprint: str) -> Root:
    """Return the root with this fingerprint (SHA-256, hex) from the enrolment port at `address`.

    NotAllowed when the server there is of another cluster, or of none; Unavailable when it cannot be reached.
    """
    leaf = _look_at(address)
    try:
        identity = identity_of(leaf)
    except NotAllowed as stranger:
        raise NotAllowed(
            f"the server at {address} is no node of a cluster: {stranger.message}",
            remedy="check the address",
        ) from stranger
    server_name = f"{identity.name}.{identity.site}.{identity.cluster}"
    tls = TlsMaterial.anonymous(to_pem(leaf))
    reply = enrol_call(address, tls, server_name, "GetRoot", enrol_pb2.GetRootRequest(), timeout_s=CONNECT_S)
    told = chain_from_pem(reply.root_pem, name="the cluster's root")
    root = next((root for root in told if hmac.compare_digest(fingerprint(root), root_fingerprint)), None)
    if root is None:
        raise NotAllowed(
            f"the server at {address} belongs to another cluster than the fingerprint says",
            remedy="ask for the line anew, and report this: somebody may stand in between",
        )
    return Root(identity.cluster, to_pem(root), server_name, node_entries(reply.nodes))


def log_in(
    name: str,
    password: str,
    *,
    cluster: str,
    root_pem: bytes,
    nodes: Sequence[NodeEntry],
    token: str = "",
) -> LoggedIn:
    """Exchange a password (or a JSON web token) for a certificate of a key made here, at the first node that
    vouches for people.

    NotAllowed for a wrong name, password or token; Unavailable when no such node answers.
    """
    try:
        claim = identity_uri(IdentityKind.PERSON, name, site="", cluster=cluster)
    except ValueError as fault:
        raise BadInput(f"{name!r} cannot name a person", remedy="use letters, digits and '_.@-'") from fault
    key = new_key()
    request = enrol_pb2.LoginRequest(
        name=name, password=password, token=token, csr_pem=make_request(key, claim)
    )
    last: Unavailable | None = None
    refusal: NotAllowed | None = None
    for node in nodes:
        if not node.enrol_address:
            continue
        try:
            tls = TlsMaterial.anonymous(root_pem)
            reply = enrol_call(node.enrol_address, tls, node.server_name, "Login", request, timeout_s=LOGIN_S)
        except Unavailable as silent:
            last = silent
            continue
        except NotAllowed as refused:  # Another node may keep the account, or ask another directory.
            refusal = refusal or refused
            continue
        chain = chain_from_pem(reply.chain_pem)
        roots = chain_from_pem(root_pem)
        ours = len(chain) > 1 and descends(chain[1], chain[2:], roots)
        if certificate_key(chain[0]) != key.public_key() or not ours:
            raise NotAllowed(f"node {node.node_id} answered with a certificate that is not ours")
        return LoggedIn(
            person=name,
            role=reply.role,
            cluster=cluster,
            lifetime_s=reply.lifetime_s,
            chain_pem=reply.chain_pem,
            key_pem=key_to_pem(key),
            root_pem=_roots(roots, reply.root_pem, chain),
            nodes=node_entries(reply.nodes) or tuple(nodes),
        )
    raise (
        refusal
        or last
        or Unavailable(
            "no node is known at which people log in", remedy="give its address: iceprod login HOST:PORT"
        )
    )


def _roots(known: Sequence[x509.Certificate], told_pem: bytes, chain: Sequence[x509.Certificate]) -> bytes:
    """Return the roots to believe from now on, as far as those that are known vouch for what the server told."""
    told = chain_from_pem(told_pem, name="the cluster's roots") if told_pem else known
    return to_pem(*succeeding_roots(known, told, chain[2:]))


def node_entries(nodes: Sequence[common_pb2.NodeAddress]) -> tuple[NodeEntry, ...]:
    """Return nodes as contexts keep them."""
    return tuple(
        NodeEntry(node.node_id, node.site, node.address, node.server_name, node.enrol_address)
        for node in nodes
    )


def enrol_call(
    address: str, tls: TlsMaterial, server_name: str, method: str, request: Any, *, timeout_s: float
) -> Any:
    """Call the enrolment port once; raises `base.errors`."""
    channel = blocking_channel(address, tls, server_name=server_name)
    try:
        stub = enrol_pb2_grpc.EnrolStub(channel)
        return call_blocking(
            getattr(stub, method), request, timeout_s=timeout_s, peer=f"the node at {address}"
        )
    finally:
        channel.close()


def _look_at(address: str) -> x509.Certificate:
    """Return the certificate that a server shows; nothing about it is believed yet, and nothing is sent."""
    where = parse_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((where.host, where.port), timeout=CONNECT_S) as connection,
            context.wrap_socket(connection) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
    except OSError as failure:
        raise Unavailable(
            f"cannot reach the node at {address}: {failure.strerror or failure}",
            remedy="is it running, and may this machine reach that address?",
        ) from failure
    assert der is not None  # Servers of TLS always show one.
    return x509.load_der_x509_certificate(der)
