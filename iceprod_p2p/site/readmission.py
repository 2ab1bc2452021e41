"""The serving side of `iceprod-node rejoin`: a site's new node takes the place of its lost one, at any member.

No invitation is needed from a site whose issuing key is still there: the new node shows a certificate that its
site's authority made for it, which the cluster's root made in turn, and signs what it asks.  So a founder comes
back through any other node, although nobody else holds the root's key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, Protocol

from cryptography import x509

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import BadInput, NotAllowed
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands_replacing import ReplaceNode
from iceprod_p2p.model.identity import (
    IdentityKind,
    is_host_label,
    is_site_name,
    node_server_name,
)
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.security.certificates import certificate_key, chain_from_pem, key_digest, to_der, to_pem
from iceprod_p2p.security.enrolment import check_readmission
from iceprod_p2p.security.trust import Trust, read_issuer
from iceprod_p2p.site.consensus import Consensus, applied, propose_in_turn, stable_request_id
from iceprod_p2p.site.node_keys import NodeKeys
from iceprod_p2p.wire.addresses import parse_address
from iceprod_p2p.wire.pb import common_pb2, enrol_pb2

CHAIN_BYTES_MAX: Final = 32 * 1024
ASKED_TIMES: Final = 3  # Before a node counts as silent; each waits for it for more than a second.
ASK_PAUSE_S: Final = 0.3
log = get_logger("enrol")

Answers = Callable[[str], Awaitable[bool]]
"""Whether a node, by its id, answers and takes part now."""


class ReadmissionView(Protocol):
    """What is read of the ledger."""

    def nodes_now(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node that can be called, as this node's tables are now."""
        ...

    def trust(self) -> Trust:
        """Whom the cluster believes."""
        ...

    def node_record(self, node_id: str) -> r.NodeRecord | None:
        """A node as the ledger has it."""
        ...


class Readmission:
    """Used on the event loop only."""

    def __init__(
        self,
        *,
        keys: Callable[[], NodeKeys],
        consensus: Consensus,
        cluster: ReadmissionView,
        answers: Answers,
        clock: Clock,
    ) -> None:
        self._keys = keys
        self._consensus = consensus
        self._cluster = cluster
        self._answers = answers
        self._clock = clock

    async def readmit(self, request: enrol_pb2.ReadmitRequest) -> enrol_pb2.JoinReply:
        """Admit the node; repeated with the same id and key it is admitted once.

        NotAllowed when its certificate, signature or site do not let it; Refused as the ledger says, or while
        the old node still answers; Unavailable without a quorum.
        """
        keys = self._keys()
        _check_names(request)
        leaf, issuer = self._checked_chain(request)
        check_readmission(leaf, request.signature, cluster=keys.cluster, words=words_of(request))
        await self.require_silent(request.replaces)
        command = ReplaceNode(
            member=Member(request.node_id, request.site, request.address, MemberRole.OBSERVER),
            replaces=request.replaces,
            issuing_certificate=to_der(issuer),
            certificate_fingerprint=key_digest(certificate_key(leaf)),
            passkey_key_id=request.passkey_key_id,
            passkey_public_key=request.passkey_public_key,
            enrol_address=request.enrol_address,
            server_name=node_server_name(request.node_id, site=request.site, cluster=keys.cluster),
            version_least=max(1, request.version_least),
            version_most=max(1, request.version_most),
        )
        await self.take_place(command)
        return enrol_pb2.JoinReply(
            cluster=keys.cluster,
            root_pem=keys.root_pem,
            authority_pem=to_pem(issuer),
            nodes=self._cluster.nodes_now(),
        )

    async def take_place(self, command: ReplaceNode) -> None:
        """Propose that a node takes another's place, and wait for its turn among changes of the voters."""
        asked = stable_request_id(
            "readmit", command.member.node_id, command.replaces, command.certificate_fingerprint.hex()
        )
        outcome = await propose_in_turn(
            self._consensus, command, actor=f"node:{self._keys().node_id}", request_id=asked
        )
        applied(outcome, remedy="ask an administrator for an invitation: iceprod cluster invite SITE")
        log.info("node replaced", node=command.member.node_id, replaces=command.replaces)

    async def require_silent(self, node_id: str) -> None:
        """Raise NotAllowed while a node that is to be replaced answers: nobody pushes out a node that works.

        One that is silent for a moment, on a busy machine, works: it is asked again.
        """
        for ask in range(ASKED_TIMES):
            if self._cluster.node_record(node_id) is None:
                return
            if await self._answers(node_id):
                raise NotAllowed(
                    f"node {node_id} answers and takes part, so nothing takes its place",
                    remedy="a copy of its directory is of no use: delete it; to move the node, stop it first",
                )
            if ask < ASKED_TIMES - 1:
                await asyncio.sleep(ASK_PAUSE_S)

    def _checked_chain(self, request: enrol_pb2.ReadmitRequest) -> tuple[x509.Certificate, x509.Certificate]:
        """Return the new node's certificate and its authority's, both verified up to the root."""
        cluster = self._keys().cluster
        if len(request.node_chain_pem) > CHAIN_BYTES_MAX:
            raise BadInput(f"a chain of certificates has at most {CHAIN_BYTES_MAX} bytes")
        chain = chain_from_pem(request.node_chain_pem)
        if len(chain) < 2:
            raise BadInput("the chain must hold the node's certificate and that of its site's authority")
        leaf, issuer = chain[:2]
        # The root made this authority, perhaps just now and for this: the ledger need not list it yet.
        issuing = read_issuer(to_der(issuer), scope=request.site, cluster=cluster)
        trust = self._cluster.trust()
        trust = replace(trust, issuers={**trust.issuers, issuing.key_id: issuing})
        identity = trust.verify_chain(request.node_chain_pem, now_ms=self._clock.wall_ms())
        if (identity.kind, identity.site, identity.name) != (
            IdentityKind.NODE,
            request.site,
            request.node_id,
        ):
            raise NotAllowed(f"the certificate is of {identity.actor}, not of node {request.node_id}")
        return leaf, issuer


def words_of(request: enrol_pb2.ReadmitRequest) -> tuple[str | bytes, ...]:
    """Return what a readmission signs, in its order."""
    return (
        request.site,
        request.node_id,
        request.replaces,
        request.address,
        request.enrol_address,
        request.node_chain_pem,
        request.passkey_key_id,
        request.passkey_public_key,
        str(request.version_least),
        str(request.version_most),
    )


def _check_names(request: enrol_pb2.ReadmitRequest) -> None:
    names = (request.node_id, request.replaces)
    if not is_site_name(request.site) or not all(is_host_label(name) for name in names):
        shown = ", ".join(repr(name[:80]) for name in (request.site, *names))
        raise BadInput(f"{shown} cannot name a site and two nodes")
    for address in (request.address, request.enrol_address):
        parse_address(address)
    if len(request.passkey_public_key) != 32 or request.passkey_key_id != request.node_id:
        raise BadInput("the passkey signing key must have 32 bytes and bear the node's id")
