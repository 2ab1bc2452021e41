"""A ledger without Raft for tests of services and roles: the real rules, in memory, one proposal an entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.ledger import versions
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import (
    AddNode,
    Command,
    FoundCluster,
    Heartbeat,
    Invite,
    Proposal,
    SetPerson,
    SubmitDataset,
    Tick,
)
from iceprod_p2p.ledger.outcome import Applied, Outcome
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.resources import Requirements
from iceprod_p2p.model.site import Member, MemberRole, SiteCounts
from iceprod_p2p.security.certificates import certificate_from_der, fingerprint, to_der
from iceprod_p2p.security.random import new_request_id
from iceprod_p2p.site.node_keys import NodeKeys, found_keys
from iceprod_p2p.store.memory_tables import MemoryTables

NOW_MS = 1_700_000_000_000
CLUSTER = "ice"


class OneLedger:
    """Stands for `RaftNode`: `down` makes it refuse, `proposed` holds what was proposed."""

    def __init__(self) -> None:
        self.kv = MemoryTables()
        self.index = 0
        self.down = False
        self.lose_answers = False  # Applied, but the caller never hears of it.
        self.is_leader = True
        self.proposed: list[Command] = []

    async def propose(
        self, command: Command, *, actor: str, request_id: bytes | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        """Apply at once."""
        if self.down:
            raise Unavailable("the ledger is down")
        self.proposed.append(command)
        outcome = self.apply(command, actor=actor, request_id=request_id)
        if self.lose_answers:
            raise Unavailable("the answer was lost")
        return outcome

    async def propose_all(
        self,
        commands: Sequence[Command],
        *,
        actor: str,
        request_ids: Sequence[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> list[Outcome]:
        """Apply them one after the other."""
        ids: Sequence[bytes | None] = request_ids or [None] * len(commands)
        return [
            await self.propose(command, actor=actor, request_id=request_id)
            for command, request_id in zip(commands, ids, strict=True)
        ]

    def apply(
        self, command: Command, *, actor: str = "node:madison-1", request_id: bytes | None = None
    ) -> Outcome:
        """Apply one command as an entry of its own."""
        self.index += 1
        made_at_ms = Tables(self.kv).now_ms
        proposal = Proposal(request_id or new_request_id(), made_at_ms, actor, command)
        return apply(self.kv, self.index, 1, encode_entry([proposal]))[0]

    def must(self, command: Command, *, actor: str = "node:madison-1") -> Applied:
        """Apply a command that a test needs as its ground."""
        outcome = self.apply(command, actor=actor)
        assert isinstance(outcome, Applied), outcome
        return outcome

    async def barrier(self, timeout_s: float = 5.0) -> int:
        """Everything is applied always."""
        return self.index

    @contextmanager
    def view(self) -> Iterator[MemoryTables]:
        """The tables as they are."""
        yield self.kv

    def found(
        self, *, site: str = "madison", node_id: str = "madison-1", version: int = versions.VERSION_MOST
    ) -> NodeKeys:
        """Found the cluster with one node and return its keys."""
        keys, _ = found_keys(cluster=CLUSTER, site=site, node_id=node_id, now_ms=NOW_MS)
        self.keys = keys
        assert keys.root is not None
        entry = [
            FoundCluster(CLUSTER, to_der(keys.root.certificate), 60_000, version),
            _add_node(keys),
            SetPerson("ada", Role.ADMINISTRATOR),
        ]
        self.index += 1
        proposals = [Proposal(new_request_id(), 0, f"node:{node_id}", command) for command in entry]
        outcomes = apply(self.kv, self.index, 1, encode_entry(proposals))
        assert all(isinstance(outcome, Applied) for outcome in outcomes), outcomes
        self.beat(site, node_id)
        return keys

    def admit(self, node_id: str, site: str, *, authority: bytes = b"authority") -> None:
        """Invite a site and let a node of it join, as an observer with this authority."""
        token = sha256(node_id.encode()).digest()
        self.must(Invite(token, site))
        member = Member(node_id, site, "127.0.0.1:4420", MemberRole.OBSERVER)
        most = versions.VERSION_MOST
        key = f"key-{node_id}"
        self.must(AddNode(member, authority, bytes(32), key, bytes(32), token, version_most=most))

    def beat(self, site: str = "madison", node_id: str = "madison-1") -> None:
        """Renew a site's leases."""
        self.must(Heartbeat(site, node_id, SiteCounts()), actor=f"node:{node_id}")

    def tick(self, now_ms: int) -> None:
        """Set the ledger's time."""
        self.must(Tick(1, now_ms))

    def submit(
        self,
        *,
        jobs: int,
        shapes: tuple[TaskShape, ...] = (),
        owner: str = "ada",
        closing: tuple[TaskShape, ...] = (),
    ) -> int:
        """Submit a dataset of one-task jobs, or of these shapes."""
        shapes = shapes or (TaskShape("work", (), Requirements(memory_mib=100, disk_mib=100)),)
        command = SubmitDataset("ab" * 32, jobs, shapes, 7, owner, closing=closing)
        return self.must(command, actor=f"person:{owner}").number


def _add_node(keys: NodeKeys) -> AddNode:
    return AddNode(
        member=Member(keys.node_id, keys.site, "127.0.0.1:4410", MemberRole.VOTER),
        issuing_certificate=to_der(keys.authority.certificate),
        certificate_fingerprint=bytes.fromhex(fingerprint(keys.certificate)),
        passkey_key_id=keys.signer.key_id,
        passkey_public_key=keys.signer.public_key,
        enrol_address="127.0.0.1:4411",
        server_name=keys.server_name,
        version_most=versions.VERSION_MOST,
    )


def root_of(keys: NodeKeys) -> tuple[object, ...]:
    """The roots that a node of this cluster believes."""
    assert keys.root is not None
    return (certificate_from_der(to_der(keys.root.certificate)),)
