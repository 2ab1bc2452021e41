"""A new site's node joins: keys are made here, requests are sent, and only certificates come back.

The invitation pins the cluster's root by its fingerprint.  The server's own certificate is looked at first
without trust, to learn its name; then the root is asked for and compared, and only a connection that verifies
up to that root carries the token.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError, IceProdError, NotAllowed, Unavailable
from iceprod_p2p.model.identity import IdentityKind, identity_uri
from iceprod_p2p.raft.founding import owner_of, prepare_joiner
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import (
    authority_claim,
    chain_from_pem,
    fingerprint,
    is_signed_by,
    make_request,
    to_der,
    to_pem,
)
from iceprod_p2p.security.enrolment import Invitation
from iceprod_p2p.security.identity import identity_of
from iceprod_p2p.security.keyfiles import make_private_directory
from iceprod_p2p.security.passkeys import PasskeySigner, signing_key_to_bytes
from iceprod_p2p.security.random import new_request_id
from iceprod_p2p.security.trust import read_issuer
from iceprod_p2p.site.founding import RAFT_DIRECTORY
from iceprod_p2p.site.node_keys import NodeKeys, has_keys, issue_node, pending_keys, save_keys
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.wire.addresses import parse_address
from iceprod_p2p.wire.calls import call_blocking
from iceprod_p2p.wire.channel import TlsMaterial, blocking_channel
from iceprod_p2p.wire.pb import common_pb2, enrol_pb2, enrol_pb2_grpc

CONNECT_S: Final = 10.0
JOIN_S: Final = 30.0  # The ledger must commit, perhaps after an election.


@dataclass(frozen=True, slots=True)
class Joined:
    """What joining gave: this node's keys, and the nodes of the cluster."""

    keys: NodeKeys
    nodes: tuple[common_pb2.NodeAddress, ...]


def join_cluster(config: SiteConfig, invitation: Invitation, clock: Clock) -> Joined:
    """Join with a one-time invitation; blocking.  Writes the keys and an empty store into the data directory.

    ConfigError when the configuration names another site or cluster, or the directory is in use; NotAllowed
    when the server is not of the invitation's cluster or the token is not accepted; Unavailable when it
    cannot be reached.
    """
    _check(config, invitation)
    node = config.node
    make_private_directory(node.data_dir)
    root_pem, server_name = _find_root(invitation)
    pending = pending_keys(node.data_dir)
    node_key, authority_key = pending.node, pending.authority
    signer = PasskeySigner(pending.signing, key_id=node.id, cluster=node.cluster, site=node.site)
    uri = identity_uri(IdentityKind.NODE, node.id, site=node.site, cluster=node.cluster)
    request = enrol_pb2.JoinRequest(
        token=invitation.token,
        site=node.site,
        node_id=node.id,
        address=node.advertise,
        enrol_address=node.advertise_enrol,
        node_csr_pem=make_request(node_key, uri),
        authority_csr_pem=make_request(authority_key, authority_claim(node.site, node.cluster)),
        passkey_key_id=node.id,
        passkey_public_key=signer.public_key,
    )
    reply = _call(invitation, TlsMaterial.anonymous(root_pem), server_name, "Join", request, JOIN_S)
    certificate = _checked_authority(reply.authority_pem, root_pem, config)
    authority = Authority(node.cluster, node.site, certificate, authority_key)
    keys = NodeKeys(
        cluster=node.cluster,
        site=node.site,
        node_id=node.id,
        root_pem=root_pem,
        authority=authority,
        node_chain_pem=issue_node(authority, node_key, node.id, now_ms=clock.wall_ms()),
        node_key=node_key,
        signer=signer,
    )
    _prepare_store(config)
    save_keys(node.data_dir, keys, signing_key_to_bytes(pending.signing))
    return Joined(keys, tuple(reply.nodes))


def _check(config: SiteConfig, invitation: Invitation) -> None:
    node = config.node
    if has_keys(node.data_dir):
        raise ConfigError(
            f"{node.data_dir} belongs to a node already", remedy="choose another data_dir, or start that node"
        )
    if (node.site, node.cluster) != (invitation.site, invitation.cluster):
        raise ConfigError(
            f"the invitation is for site {invitation.site} of cluster {invitation.cluster}, but the configuration "
            f"names site {node.site} of cluster {node.cluster}",
            remedy="correct [node] site and cluster",
        )


def _find_root(invitation: Invitation) -> tuple[bytes, str]:
    """Return the cluster's root, which has the invitation's fingerprint, and the name of the server that
    gave it.
    """
    leaf = _look_at(invitation.enrol_address)
    try:
        identity = identity_of(leaf)
    except NotAllowed as stranger:
        raise NotAllowed(
            f"the server at {invitation.enrol_address} is no node of a cluster: {stranger.message}",
            remedy="check the address in the invitation",
        ) from stranger
    server_name = f"{identity.name}.{identity.site}.{identity.cluster}"
    request = enrol_pb2.GetRootRequest()
    reply = _call(invitation, TlsMaterial.anonymous(to_pem(leaf)), server_name, "GetRoot", request, CONNECT_S)
    root = chain_from_pem(reply.root_pem, name="the cluster's root")[0]
    if identity.cluster != invitation.cluster or fingerprint(root) != invitation.root_fingerprint:
        raise NotAllowed(
            f"the server at {invitation.enrol_address} belongs to another cluster than the invitation",
            remedy="ask for a new invitation, and report this: somebody may stand in between",
        )
    return to_pem(root), server_name


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
            f"cannot reach the inviting node at {address}: {failure.strerror or failure}",
            remedy="is it running, and may this machine reach that address?",
        ) from failure
    assert der is not None  # Servers of TLS always show one.
    return x509.load_der_x509_certificate(der)


def _call(
    invitation: Invitation, tls: TlsMaterial, server_name: str, method: str, request: Any, timeout_s: float
) -> Any:
    channel = blocking_channel(invitation.enrol_address, tls, server_name=server_name)
    try:
        stub = enrol_pb2_grpc.EnrolStub(channel)
        return call_blocking(getattr(stub, method), request, timeout_s=timeout_s, peer="the inviting node")
    finally:
        channel.close()


def _checked_authority(pem: bytes, root_pem: bytes, config: SiteConfig) -> x509.Certificate:
    certificate = chain_from_pem(pem, name="the site's issuing certificate")[0]
    root = chain_from_pem(root_pem)[0]
    read_issuer(to_der(certificate), scope=config.node.site, cluster=config.node.cluster)
    if not is_signed_by(certificate, root):
        raise IceProdError("the issuing certificate that came was not made by the cluster's root")
    return certificate


def _prepare_store(config: SiteConfig) -> None:
    store = Environment(config.node.data_dir / RAFT_DIRECTORY)
    try:
        if owner_of(store) is None:
            prepare_joiner(store, config.node.id, incarnation=new_request_id())
    finally:
        store.close()
