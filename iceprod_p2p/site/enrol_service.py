"""How newcomers get in: a site with an invitation, a pilot with the secret of its grid job.

Callers have no certificate yet; their secret speaks for them, once, and for one key.  Every call may be
repeated with the same key: a reply that was lost locks nobody out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

from cryptography import x509

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import BadInput, ConfigError, NotAllowed
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import AddNode
from iceprod_p2p.ledger.commands_replacing import ReplaceNode
from iceprod_p2p.ledger.outcome import Refusal, Refused
from iceprod_p2p.model.identity import (
    IdentityKind,
    identity_uri,
    is_host_label,
    is_person_name,
    is_site_name,
    node_server_name,
)
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.security.certificates import (
    PublicKey,
    authority_claim,
    certificate_from_der,
    certificate_key,
    check_request,
    expires_ms,
    key_digest,
    to_der,
    to_pem,
)
from iceprod_p2p.security.enrolment import redeem, secret_digest
from iceprod_p2p.site.consensus import Consensus, applied, stable_request_id
from iceprod_p2p.site.grid_jobs import GridJobBook, GridJobPhase
from iceprod_p2p.site.node_keys import NodeKeys
from iceprod_p2p.site.people import People
from iceprod_p2p.site.pilot_files import secret_record
from iceprod_p2p.site.readmission import Readmission
from iceprod_p2p.wire.addresses import host_of, parse_address
from iceprod_p2p.wire.pb import common_pb2, enrol_pb2, enrol_pb2_grpc
from iceprod_p2p.wire.translate import text

SECRET_LENGTH_MAX: Final = 200
log = get_logger("enrol")


class EnrolView(Protocol):
    """What is read of the ledger."""

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node that can be called."""
        ...

    def issuing_certificate_of(self, node_id: str) -> bytes | None:
        """The DER certificate of the authority that a node was admitted with; None for a stranger."""
        ...


class EnrolService(enrol_pb2_grpc.EnrolServicer):  # type: ignore[misc]
    """Serves the enrolment port; used on the event loop only."""

    def __init__(
        self,
        *,
        keys: Callable[[], NodeKeys],
        book: GridJobBook,
        consensus: Consensus,
        cluster: EnrolView,
        people: People,
        readmission: Readmission,
        pilot_lifetime_ms: int,
        clock: Clock,
    ) -> None:
        self._keys = keys
        self._book = book
        self._consensus = consensus
        self._cluster = cluster
        self._people = people
        self._readmission = readmission
        self._pilot_lifetime_ms = pilot_lifetime_ms
        self._clock = clock

    async def GetRoot(self, request: enrol_pb2.GetRootRequest, context: Any) -> enrol_pb2.GetRootReply:
        """Give the root certificate and the nodes' addresses: public, and worth nothing without the
        fingerprint to compare the root with.
        """
        keys = self._keys()
        return enrol_pb2.GetRootReply(
            root_pem=keys.root_pem, cluster=keys.cluster, nodes=self._cluster.nodes()
        )

    async def Login(self, request: enrol_pb2.LoginRequest, context: Any) -> enrol_pb2.LoginReply:
        """Exchange a person's password for a certificate."""
        return await self._people.log_in(request, caller=host_of(context.peer()))

    async def Join(self, request: enrol_pb2.JoinRequest, context: Any) -> enrol_pb2.JoinReply:
        """Admit a site's node with a one-time invitation; the ledger decides that it is used once."""
        keys = self._keys()
        root = keys.root
        if root is None:
            raise ConfigError(
                f"node {keys.node_id} does not hold the cluster's root key, so it cannot admit sites",
                remedy="join through the founder's node, which the invitation names",
            )
        _check_names(request)
        claim = authority_claim(request.site, keys.cluster)
        public_key = check_request(request.authority_csr_pem, claim=claim)
        uri = identity_uri(IdentityKind.NODE, request.node_id, site=request.site, cluster=keys.cluster)
        node_key = check_request(request.node_csr_pem, claim=uri)
        authority = root.issue_authority(
            request.authority_csr_pem, scope=request.site, now_ms=self._clock.wall_ms()
        )
        passing("enrol.join.before")
        await (self._replace if request.replaces else self._add)(request, authority, node_key)
        passing("enrol.join.after")
        recorded = self._recorded(request.node_id, authority)
        if certificate_key(recorded) != public_key:
            raise NotAllowed("this invitation was already used with another key", remedy="ask for a new one")
        log.info("site admitted", site=request.site, node=request.node_id)
        return enrol_pb2.JoinReply(
            cluster=keys.cluster,
            root_pem=keys.root_pem,
            authority_pem=to_pem(recorded, *root.above),
            nodes=self._cluster.nodes(),
        )

    async def _add(self, request: enrol_pb2.JoinRequest, authority: x509.Certificate, key: PublicKey) -> None:
        cluster, node_id = self._keys().cluster, self._keys().node_id
        command = AddNode(
            member=Member(request.node_id, request.site, request.address, MemberRole.OBSERVER),
            issuing_certificate=to_der(authority),
            certificate_fingerprint=key_digest(key),
            passkey_key_id=request.passkey_key_id,
            passkey_public_key=request.passkey_public_key,
            token_digest=secret_digest(request.token),
            enrol_address=request.enrol_address,
            server_name=node_server_name(request.node_id, site=request.site, cluster=cluster),
            version_least=max(1, request.version_least),
            version_most=max(1, request.version_most),
        )
        uri = identity_uri(IdentityKind.NODE, request.node_id, site=request.site, cluster=cluster)
        request_id = stable_request_id("join", secret_digest(request.token).hex(), request.node_id, uri)
        outcome = await self._consensus.propose(command, actor=f"node:{node_id}", request_id=request_id)
        too_old = isinstance(outcome, Refused) and outcome.code is Refusal.WRONG_STATE
        applied(outcome, remedy="" if too_old else "ask for a new invitation")

    async def _replace(
        self, request: enrol_pb2.JoinRequest, authority: x509.Certificate, key: PublicKey
    ) -> None:
        await self._readmission.require_silent(request.replaces)
        command = ReplaceNode(
            member=Member(request.node_id, request.site, request.address, MemberRole.OBSERVER),
            replaces=request.replaces,
            issuing_certificate=to_der(authority),
            certificate_fingerprint=key_digest(key),
            passkey_key_id=request.passkey_key_id,
            passkey_public_key=request.passkey_public_key,
            enrol_address=request.enrol_address,
            server_name=node_server_name(request.node_id, site=request.site, cluster=self._keys().cluster),
            token_digest=secret_digest(request.token),
            version_least=max(1, request.version_least),
            version_most=max(1, request.version_most),
        )
        await self._readmission.take_place(command)

    async def Readmit(self, request: enrol_pb2.ReadmitRequest, context: Any) -> enrol_pb2.JoinReply:
        """Let a site's new node take the place of its lost one."""
        return await self._readmission.readmit(request)

    async def EnrolPilot(
        self, request: enrol_pb2.EnrolPilotRequest, context: Any
    ) -> enrol_pb2.EnrolPilotReply:
        """Exchange the secret of one of this node's grid jobs for a short certificate."""
        keys, now_ms = self._keys(), self._clock.wall_ms()
        pilot, host = text(request.pilot, "the pilot", 63), text(request.host, "the host", 255)
        if not is_person_name(pilot):
            raise BadInput(f"{pilot!r} cannot name a pilot", remedy="start it as the node wrote it")
        uri = identity_uri(IdentityKind.PILOT, pilot, site=keys.site, cluster=keys.cluster)
        key = check_request(request.csr_pem, claim=uri)
        job = self._book.get(pilot)
        used = redeem(
            secret_record(job) if job is not None and job.live else None,
            request.secret[:SECRET_LENGTH_MAX],
            name=pilot,
            key_digest=key_digest(key),
            now_ms=now_ms,
        )
        assert job is not None  # Without a record the secret was refused.
        passing("enrol.pilot.before")
        # It calls, so it runs, whatever the batch system says later.
        self._book.put(
            replace(
                job,
                phase=GridJobPhase.RUNNING,
                enrolled_key=used.used_by.hex(),
                host=job.host or host,
            )
        )
        passing("enrol.pilot.after")
        certificate = keys.authority.issue(
            request.csr_pem,
            kind=IdentityKind.PILOT,
            name=pilot,
            now_ms=now_ms,
            lifetime_ms=self._pilot_lifetime_ms,
        )
        log.info("pilot enrolled", pilot=pilot, host=host)
        return enrol_pb2.EnrolPilotReply(
            chain_pem=keys.authority.chain(certificate),
            root_pem=keys.root_pem,
            cluster=keys.cluster,
            nodes=self._cluster.nodes(),
            lifetime_s=max(1, (expires_ms(certificate) - now_ms) // 1_000),
        )

    def _recorded(self, node_id: str, issued: x509.Certificate) -> x509.Certificate:
        """Return the authority's certificate as the ledger has it: that of the first call, if this one is a
        repeat.
        """
        der = self._cluster.issuing_certificate_of(node_id)
        return certificate_from_der(der) if der is not None else issued


def _check_names(request: enrol_pb2.JoinRequest) -> None:
    if not (is_site_name(request.site) and is_host_label(request.node_id)) or not is_host_label(
        request.replaces or request.node_id
    ):
        raise BadInput(f"{request.site[:80]!r} and {request.node_id[:80]!r} cannot name a site and a node")
    for address in (request.address, request.enrol_address):
        parse_address(address)
    if len(request.passkey_public_key) != 32 or request.passkey_key_id != request.node_id:
        raise BadInput("the passkey signing key must have 32 bytes and bear the node's id")
    if not request.token or len(request.token) > SECRET_LENGTH_MAX:
        raise BadInput("the invitation's token is missing", remedy="copy the whole line that was printed")
