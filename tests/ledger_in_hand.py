"""A ledger held in the hand: the real rules over tables in memory, with entries, ticks and invariants in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from iceprod_p2p.ledger import versions
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import (
    AddNode,
    Claim,
    Command,
    FinishTask,
    FoundCluster,
    Heartbeat,
    Invite,
    Proposal,
    StartTasks,
    SubmitDataset,
    TaskRef,
    TaskStart,
    Tick,
)
from iceprod_p2p.ledger.invariants import check
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refused
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.resources import Offer, Usage
from iceprod_p2p.model.site import Member, MemberRole, SiteCounts
from iceprod_p2p.store.memory_tables import MemoryTables

GRACE_MS = 600_000
HOLDER = b"h" * 32
STEERING = "5" * 64
PAIR = (TaskShape("generate"), TaskShape("detect", (0,)))
FIGURE_8 = (  # The chain of the paper's figure 8.
    TaskShape("corsika"),
    TaskShape("neutrino"),
    TaskShape("combine", (0, 1)),
    TaskShape("photons", (2,)),
    TaskShape("detector_a", (3,)),
    TaskShape("detector_b", (3,)),
    TaskShape("merge", (4, 5)),
)
SLOTS = (Offer("std", 1_000),)


class LedgerInHand:
    """Applies commands one entry at a time; `checked` looks at every invariant after each."""

    def __init__(self, kv: KeyValue | None = None, *, checked: bool = True) -> None:
        self.kv: Any = kv if kv is not None else MemoryTables()
        self.checked = checked
        self.index = 0
        self.requests = 0
        self.now_ms = 0
        self.term = 1
        self.entries: list[bytes] = []

    def entry(self, *commands: Command, actor: str = "node:n0") -> list[Outcome]:
        """Apply one entry with these commands."""
        return self.propose([self.proposal(command, actor=actor) for command in commands])

    def proposal(self, command: Command, *, actor: str = "node:n0") -> Proposal:
        """A proposal with a request id of its own, made now."""
        self.requests += 1
        return Proposal(self.requests.to_bytes(16, "big"), self.now_ms, actor, command)

    def propose(self, proposals: Sequence[Proposal]) -> list[Outcome]:
        """Apply one entry with these proposals."""
        return self.raw(encode_entry(proposals))

    def raw(self, entry: bytes) -> list[Outcome]:
        """Apply these bytes."""
        self.index += 1
        self.entries.append(entry)
        outcomes = apply(self.kv, self.index, self.term, entry)
        if self.checked:
            violations = check(self.kv)
            assert not violations, violations
        return outcomes

    def do(self, command: Command, *, actor: str = "node:n0") -> Outcome:
        """Apply one command."""
        return self.entry(command, actor=actor)[0]

    def done(self, command: Command, *, actor: str = "node:n0") -> Applied:
        """Apply one command that must be applied."""
        outcome = self.do(command, actor=actor)
        assert isinstance(outcome, Applied), outcome
        return outcome

    def refused(self, command: Command, *, actor: str = "node:n0") -> Refused:
        """Apply one command that must be refused, and must leave no violation."""
        outcome = self.do(command, actor=actor)
        assert isinstance(outcome, Refused), outcome
        return outcome

    def tick(self, ms: int = 1_000) -> None:
        """Let time pass."""
        self.now_ms += ms
        self.done(Tick(self.term, self.now_ms))

    def found(self, *sites: str, grace_ms: int = GRACE_MS) -> None:
        """Found a cluster with one node per site, n0, n1, ..."""
        self.done(FoundCluster("ice", b"root", grace_ms, versions.VERSION_MOST))
        for number, site in enumerate(sites):
            token = bytes([number]) * 32 if number else b""
            if number:
                self.done(Invite(token, site))
            node = AddNode(member(number, site), b"ca", bytes(32), f"key{number}", bytes(32), token)
            self.done(msgspec.structs.replace(node, version_most=versions.VERSION_MOST))
        self.tick()

    def submit(self, jobs: int = 1, shapes: tuple[TaskShape, ...] = PAIR, **fields: Any) -> int:
        """Submit a dataset and return its number."""
        return self.done(
            SubmitDataset(STEERING, jobs, shapes, 7, fields.pop("owner", "ada"), **fields)
        ).number

    def claim(self, site: str, limit: int = 1, offers: tuple[Offer, ...] = SLOTS) -> list[TaskRef]:
        """Claim tasks for a site."""
        grants = self.done(Claim(site, offers, limit)).grants
        return [TaskRef(grant.dataset, grant.job, grant.task, grant.attempt) for grant in grants]

    def start(self, site: str, *refs: TaskRef, holder: bytes = HOLDER, **fields: Any) -> Applied:
        """Hand claims to a pilot."""
        return self.done(StartTasks(site, tuple(self.start_of(ref, holder, **fields) for ref in refs)))

    def start_of(self, ref: TaskRef, holder: bytes = HOLDER, **fields: Any) -> TaskStart:
        """The hand-over of one attempt, by default for ten days."""
        values = {"key_id": "key0", "pilot": "p1", "host": "node1", "expires_ms": self.now_ms + 864_000_000}
        values.update(fields)
        self.requests += 1
        return TaskStart(ref, self.requests.to_bytes(16, "big"), holder=holder, **values)

    def finish(self, ref: TaskRef, site: str, holder: bytes = HOLDER, **fields: Any) -> Outcome:
        """Report a result."""
        fields.setdefault("usage", Usage(1_000, 900, 50, 10))
        return self.do(FinishTask(ref, holder, site, **fields))

    def run(self, site: str, limit: int = 1, **fields: Any) -> list[TaskRef]:
        """Claim, start and finish tasks at a site; returns what was run."""
        refs = self.claim(site, limit)
        if refs:
            self.start(site, *refs)
        for ref in refs:
            assert isinstance(self.finish(ref, site, **fields), Applied)
        return refs

    def beat(self, site: str, node_id: str, *vouched: TaskRef) -> Applied:
        """Send a heartbeat."""
        return self.done(Heartbeat(site, node_id, SiteCounts(), vouched))


def member(number: int, site: str) -> Member:
    """Node `n<number>` of a site; the first one votes."""
    role = MemberRole.OBSERVER if number else MemberRole.VOTER
    return Member(f"n{number}", site, f"{site}:7000", role)
