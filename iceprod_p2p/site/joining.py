"""A new site's node joins: keys are made here, requests are sent, and only certificates come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError, IceProdError, NotAllowed
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.client.enrolment import enrol_call, find_root
from iceprod_p2p.ledger import versions
from iceprod_p2p.model.identity import IdentityKind, identity_uri
from iceprod_p2p.raft.founding import owner_of, prepare_joiner
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import (
    authority_claim,
    chain_from_pem,
    is_signed_by,
    make_request,
    to_der,
)
from iceprod_p2p.security.enrolment import Invitation
from iceprod_p2p.security.keyfiles import make_private_directory
from iceprod_p2p.security.passkeys import PasskeySigner, signing_key_to_bytes
from iceprod_p2p.security.random import new_request_id
from iceprod_p2p.security.trust import read_issuer
from iceprod_p2p.site.founding import RAFT_DIRECTORY
from iceprod_p2p.site.node_keys import NodeKeys, has_keys, issue_node, pending_keys, save_keys
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.wire.channel import TlsMaterial
from iceprod_p2p.wire.pb import common_pb2, enrol_pb2

JOIN_S: Final = 30.0  # The ledger must commit, perhaps after an election.


@dataclass(frozen=True, slots=True)
class Joined:
    """What joining gave: this node's keys, and the nodes of the cluster."""

    keys: NodeKeys
    nodes: tuple[common_pb2.NodeAddress, ...]


def join_cluster(config: SiteConfig, invitation: Invitation, clock: Clock, *, replaces: str = "") -> Joined:
    """Join with a one-time invitation; blocking.  Writes the keys and an empty store into the data directory.

    With `replaces` the node takes the place of that one of its site.

    ConfigError when the configuration names another site or cluster, or the directory is in use; NotAllowed
    when the server is not of the invitation's cluster or the token is not accepted; Unavailable when it
    cannot be reached.
    """
    _check(config, invitation)
    node = config.node
    make_private_directory(node.data_dir)
    root = find_root(invitation.enrol_address, invitation.root_fingerprint)
    root_pem = root.root_pem
    if root.cluster != invitation.cluster:
        raise NotAllowed(
            f"the server at {invitation.enrol_address} belongs to another cluster than the invitation",
            remedy="ask for a new invitation",
        )
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
        version_least=versions.VERSION_LEAST,
        version_most=versions.VERSION_MOST,
        replaces=replaces,
    )
    tls = TlsMaterial.anonymous(root_pem)
    reply = enrol_call(invitation.enrol_address, tls, root.server_name, "Join", request, timeout_s=JOIN_S)
    root_pem = _believed(reply.root_pem, root_pem)
    certificate, *above = _checked_authority(reply.authority_pem, root_pem, config)
    authority = Authority(node.cluster, node.site, certificate, authority_key, tuple(above))
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
    passing("node.join.before")
    _prepare_store(config)
    passing("node.join.after")
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


def _believed(told_pem: bytes, pinned_pem: bytes) -> bytes:
    """Return the roots as the server, verified up to the pinned one, tells them: two while they take turns."""
    pinned = chain_from_pem(pinned_pem)[0]
    return told_pem if pinned in chain_from_pem(told_pem, name="the cluster's roots") else pinned_pem


def _checked_authority(pem: bytes, root_pem: bytes, config: SiteConfig) -> tuple[x509.Certificate, ...]:
    chain = chain_from_pem(pem, name="the site's issuing certificate")
    certificate, roots = chain[0], chain_from_pem(root_pem)
    read_issuer(to_der(certificate), scope=config.node.site, cluster=config.node.cluster)
    if not any(is_signed_by(certificate, root) for root in roots):
        raise IceProdError("the issuing certificate that came was not made by the cluster's root")
    return chain


def _prepare_store(config: SiteConfig) -> None:
    store = Environment(config.node.data_dir / RAFT_DIRECTORY)
    try:
        if owner_of(store) is None:
            prepare_joiner(store, config.node.id, incarnation=new_request_id())
    finally:
        store.close()
