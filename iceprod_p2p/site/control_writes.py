"""What people change: each call becomes one command under the person's name, once per request id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from iceprod_p2p.base.errors import BadInput, NotFound, Refused, Unavailable
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import (
    Command,
    ControlDataset,
    ControlSite,
    ControlTasks,
    Invite,
    RaiseVersion,
    SetDataset,
    SiteVerb,
    Verb,
)
from iceprod_p2p.ledger.commands_trust import AskRenewal, EndAuthority
from iceprod_p2p.model.identity import is_site_name
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.model.trust import Renewal
from iceprod_p2p.security.certificates import chain_from_pem, fingerprint
from iceprod_p2p.security.enrolment import INVITE_LIFETIME_MS, Invitation, secret_digest
from iceprod_p2p.security.random import new_request_id, new_secret
from iceprod_p2p.site.authorities import find_authority
from iceprod_p2p.site.consensus import Consensus, applied, stable_request_id
from iceprod_p2p.site.membership import WAIT_S, Membership
from iceprod_p2p.site.node_keys import PASSPHRASE_VARIABLE, NodeKeys
from iceprod_p2p.wire.pb import common_pb2, control_pb2
from iceprod_p2p.wire.translate import text

NUMBER_MAX: Final = 2**32 - 2
INVITE_S_MAX: Final = 7 * 86_400
VERSION_LIMIT: Final = 65_534


class WriteView(Protocol):
    """What is read of the ledger."""

    def dataset_number(self, name: str) -> int:
        """The number of a dataset given by number or alias; NotFound for an unknown one."""
        ...

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node that can be called."""
        ...


class ControlWrites:
    """Used on the event loop only; every method takes the name of the person who asks."""

    def __init__(
        self,
        *,
        consensus: Consensus,
        cluster: WriteView,
        membership: Membership,
        keys: Callable[[], NodeKeys],
    ) -> None:
        self._consensus = consensus
        self._cluster = cluster
        self._membership = membership
        self._keys = keys

    async def control_dataset(
        self, request: control_pb2.ControlDatasetRequest, person: str
    ) -> control_pb2.ControlReply:
        """Apply a verb to a dataset."""
        number = self._cluster.dataset_number(request.dataset)
        return await self._do(ControlDataset(number, _verb(request.verb)), person, request.request_id)

    async def control_tasks(
        self, request: control_pb2.ControlTasksRequest, person: str
    ) -> control_pb2.ControlReply:
        """Apply a verb to some jobs of a dataset, or to one task of each."""
        number = self._cluster.dataset_number(request.dataset)
        if request.last_job < request.first_job:
            raise BadInput(f"jobs {request.first_job} to {request.last_job} are none")
        command = ControlTasks(
            number, _verb(request.verb), request.first_job, request.last_job, max(-1, request.task)
        )
        return await self._do(command, person, request.request_id)

    async def set_dataset(
        self, request: control_pb2.SetDatasetRequest, person: str
    ) -> control_pb2.ControlReply:
        """Change what may change after submission."""
        number = self._cluster.dataset_number(request.dataset)
        given = request.HasField
        command = SetDataset(
            number,
            priority=request.priority if given("priority") else None,
            sites_allowed=tuple(sorted(set(request.sites_allowed))) if request.sites_given else None,
            sites_excluded=tuple(sorted(set(request.sites_excluded))) if request.sites_given else None,
            attempts_max=request.attempts_max if given("attempts_max") else None,
            alias=text(request.alias, "an alias", 63) if given("alias") else None,
            description=text(request.description, "a description", 500) if given("description") else None,
            owner=text(request.owner, "a person", 63) if given("owner") else None,
            group=text(request.group, "a group", 63) if given("group") else None,
        )
        return await self._do(command, person, request.request_id)

    async def control_site(
        self, request: control_pb2.ControlSiteRequest, person: str
    ) -> control_pb2.ControlReply:
        """Drain, resume or ban a site."""
        try:
            verb = SiteVerb(request.verb)
        except ValueError:
            raise BadInput(
                f"{request.verb[:40]!r} cannot be done to a site", remedy=f"one of: {', '.join(SiteVerb)}"
            ) from None
        command = ControlSite(text(request.site, "a site", 63), verb, text(request.reason, "a reason", 500))
        return await self._do(command, person, request.request_id)

    async def invite(self, request: control_pb2.InviteRequest, person: str) -> control_pb2.InviteReply:
        """Make a one-time invitation; it names the founder's node, which alone can admit sites."""
        if not is_site_name(request.site):
            raise BadInput(
                f"{request.site[:80]!r} cannot name a site", remedy="use lower-case letters, digits, '-'"
            )
        lifetime_s = request.lifetime_s or INVITE_LIFETIME_MS // 1_000
        if lifetime_s > INVITE_S_MAX:
            raise BadInput(f"an invitation lasts at most {INVITE_S_MAX} s, not {lifetime_s} s")
        keys = self._keys()
        if keys.root_is_locked:
            raise Unavailable(
                f"node {keys.node_id} cannot invite: the cluster's root key is locked by its passphrase",
                remedy=f"start the node with {PASSPHRASE_VARIABLE} naming the file that holds it",
            )
        if keys.root is None:
            raise Unavailable(
                f"node {keys.node_id} cannot invite: the cluster's root key is kept at the founder's node",
                remedy=f"ask it: iceprod --node {self._founder()} cluster invite {request.site}",
            )
        token = new_secret()
        command = Invite(secret_digest(token), request.site, lifetime_s * 1_000)
        await self._do(command, person, b"")
        own = next((node for node in self._cluster.nodes() if node.node_id == keys.node_id), None)
        invitation = Invitation(
            keys.cluster,
            request.site,
            own.enrol_address if own is not None else "",
            fingerprint(chain_from_pem(keys.root_pem)[0]),
            token,
        )
        return control_pb2.InviteReply(line=f"iceprod-node join {invitation}", expires_s=lifetime_s)

    async def control_member(
        self, request: control_pb2.ControlMemberRequest, person: str
    ) -> control_pb2.ControlReply:
        """Promote or remove a member, or hand leadership to it."""
        node_id, members = text(request.node_id, "a node", 63), self._membership
        actor, request_id = f"person:{person}", checked_request_id(request.request_id)
        match request.verb:
            case "promote":
                wait_s = float(request.wait_s) if request.HasField("wait_s") else WAIT_S
                notes = await members.promote(node_id, actor=actor, request_id=request_id, wait_s=wait_s)
                return control_pb2.ControlReply(notes=notes)
            case "remove":
                notes = await members.remove(node_id, actor=actor, request_id=request_id)
                return control_pb2.ControlReply(notes=notes)
            case "transfer_leader":
                leader = await members.transfer_leader(node_id)
                return control_pb2.ControlReply(notes=[f"{leader} leads now"])
            case _:
                raise BadInput(
                    f"{request.verb[:40]!r} cannot be done to a member",
                    remedy="one of: promote, remove, transfer_leader",
                )

    async def rotate(self, request: control_pb2.RotateRequest, person: str) -> control_pb2.ControlReply:
        """Ask that certificates are made anew; the nodes whose they are do so within seconds."""
        try:
            what = Renewal(request.what)
        except ValueError:
            raise BadInput(
                f"{request.what[:40]!r} cannot be made anew", remedy=f"one of: {', '.join(Renewal)}"
            ) from None
        name = text(request.name, "a node or a site", 63)
        request_id = checked_request_id(request.request_id)
        commands = [AskRenewal(what, node_id) for node_id in self._whose(what, name)]
        notes: list[str] = []
        for number, command in enumerate(commands):
            outcome = await self._consensus.propose(
                command,
                actor=f"person:{person}",
                request_id=stable_request_id("rotate", request_id.hex(), number),
            )
            notes += applied(outcome).notes
        return control_pb2.ControlReply(notes=notes)

    def _whose(self, what: Renewal, name: str) -> list[str]:
        """Return the nodes that a wish is for: one by its id, all of a site, or all that vouch for people."""
        if what is Renewal.ROOT:
            if name:
                raise BadInput("a cluster has one root", remedy="leave the name out")
            return [""]
        with self._consensus.view() as kv:
            vouching = {node_id for node_id, _ in queries.people_authorities(kv)}
        nodes = [
            node.node_id
            for node in self._cluster.nodes()
            if name in (node.node_id, node.site) or (not name and what is Renewal.PEOPLE)
        ]
        if name:  # Asked by its name, a voter begins to vouch.
            vouching.update(node.node_id for node in self._cluster.nodes() if node.role == MemberRole.VOTER)
        found = [node_id for node_id in nodes if what is not Renewal.PEOPLE or node_id in vouching]
        if not found:
            raise NotFound(
                f"there is no node or site {name!r} with a {what} certificate",
                remedy="see `iceprod cluster members`",
            )
        return found

    async def end_authority(
        self, request: control_pb2.EndAuthorityRequest, person: str, *, issuer: str
    ) -> control_pb2.ControlReply:
        """End an authority; refused for the one that vouched for the caller, `issuer` by its key id."""
        reason = text(request.reason, "a reason", 500)
        scope = text(request.scope, "a site, or `people`", 63)
        await self._consensus.barrier()
        with self._consensus.view() as kv:
            row = find_authority(kv, scope, request.authority)
        if row.key_id == issuer:
            raise Refused(
                "own_authority",
                f"this authority vouched for {person}, who would be shut out with it",
                remedy="log in at a node that signs with another one, then ask again",
            )
        return await self._do(EndAuthority(scope, row.digest, reason), person, request.request_id)

    async def raise_version(
        self, request: control_pb2.RaiseVersionRequest, person: str
    ) -> control_pb2.ControlReply:
        """Raise the ledger's version, when every node reads the new one; there is no way back."""
        if request.to > VERSION_LIMIT:
            raise BadInput(f"{request.to} is no version of the ledger")
        return await self._do(RaiseVersion(request.to), person, request.request_id)

    async def _do(self, command: Command, person: str, request_id: bytes) -> control_pb2.ControlReply:
        outcome = await self._consensus.propose(
            command, actor=f"person:{person}", request_id=checked_request_id(request_id)
        )
        return control_pb2.ControlReply(notes=applied(outcome).notes)

    def _founder(self) -> str:
        nodes = self._cluster.nodes()
        return nodes[0].node_id if nodes else "FOUNDER"


def checked_request_id(request_id: bytes) -> bytes:
    """Return the caller's request id, a new one when there is none; BadInput when it is malformed."""
    if not request_id:
        return new_request_id()
    if len(request_id) != 16:
        raise BadInput(f"a request id has 16 bytes, not {len(request_id)}")
    return request_id


def _verb(word: str) -> Verb:
    try:
        return Verb(word.replace("-", "_"))
    except ValueError:
        raise BadInput(f"{word[:40]!r} is no verb", remedy=f"one of: {', '.join(Verb)}") from None
