"""The root's word for authorities: asked for by nodes, given by the one that holds the root's key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from cryptography import x509

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import IceProdError, NotAllowed, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import records as r
from iceprod_p2p.model.identity import PEOPLE, Identity
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.security.certificates import chain_from_pem, to_pem
from iceprod_p2p.security.trust import Trust
from iceprod_p2p.site.node_keys import PASSPHRASE_VARIABLE, NodeKeys
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.wire.calls import call
from iceprod_p2p.wire.pb import peer_pb2

ISSUE_S: Final = 10.0
log = get_logger("issuing")


class IssuingView(Protocol):
    """What is read of the ledger."""

    def node_record(self, node_id: str) -> r.NodeRecord | None:
        """A node as the ledger has it."""
        ...

    def trust(self) -> Trust:
        """Whom the cluster believes."""
        ...


class RootDesk:
    """Makes authorities for the nodes of the cluster; used on the event loop only."""

    def __init__(self, *, keys: Callable[[], NodeKeys], cluster: IssuingView, clock: Clock) -> None:
        self._keys = keys
        self._cluster = cluster
        self._clock = clock

    def issue(
        self, request: peer_pb2.IssueAuthorityRequest, identity: Identity
    ) -> peer_pb2.IssueAuthorityReply:
        """Return the certificate of an authority for a node's own site, or for people at a voter.

        NotAllowed for any other; Unavailable where the root's key is not, or is locked.
        """
        record = self._cluster.node_record(identity.name)
        if record is None or record.member.site != identity.site:
            raise NotAllowed(f"{identity.actor} is no node of this cluster")
        if identity.issuer not in self._cluster.trust().issuers:
            raise NotAllowed(f"the site of {identity.actor} does not take part")
        if request.scope == PEOPLE and record.member.role is not MemberRole.VOTER:
            raise NotAllowed(f"{identity.actor} is an observer: voters vouch for people")
        if request.scope not in (PEOPLE, identity.site):
            raise NotAllowed(f"{identity.actor} may not have an authority of {request.scope[:63]!r}")
        keys = self._keys()
        if keys.root is None:
            where = "is locked by its passphrase" if keys.root_is_locked else "is not kept here"
            raise Unavailable(
                f"the key of the cluster's root {where}",
                remedy=f"start the founder's node with {PASSPHRASE_VARIABLE}" if keys.root_is_locked else "",
            )
        certificate = keys.root.issue_authority(
            request.csr_pem, scope=request.scope, now_ms=self._clock.wall_ms()
        )
        log.info("authority made", scope=request.scope, node=identity.name)
        return peer_pb2.IssueAuthorityReply(authority_pem=to_pem(certificate, *keys.root.above))


async def ask_root(peers: Peers, request_pem: bytes, scope: str) -> tuple[x509.Certificate, ...]:
    """Return the root's certificate for an authority from the node that holds the root's key; Unavailable when none
    of them gives it.
    """
    request = peer_pb2.IssueAuthorityRequest(scope=scope, csr_pem=request_pem)
    why: IceProdError | None = None
    for node in peers.others():
        try:
            reply = await call(
                peers.peer(node).IssueAuthority, request, timeout_s=ISSUE_S, peer=f"node {node.node_id}"
            )
        except IceProdError as refusal:
            if why is None or not isinstance(refusal, Unavailable):
                why = refusal
            continue
        return chain_from_pem(reply.authority_pem, name="the authority's certificate")
    raise Unavailable(
        f"no node made a certificate of the root: {why.message if why is not None else 'there is no other'}",
        remedy="start the founder's node, with the root's key unlocked",
    )
