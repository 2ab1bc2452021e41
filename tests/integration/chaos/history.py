"""What clients asked and were told, and what must be true of it: the checkers of every history with real processes.

The truth is what members applied, entry by entry (their traces): it is replayed from the first entry on by the
ledger's pure rules, and every answer that a client was given must be the one that follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iceprod_p2p.ledger import invariants, queries
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import Damaged, decode_entry, encode_outcome
from iceprod_p2p.ledger.commands import Claim, Command, FinishTask, Tick
from iceprod_p2p.ledger.outcome import Applied, Outcome
from iceprod_p2p.store.memory_tables import MemoryTables
from tests.integration.chaos.member import records_of


@dataclass(slots=True)
class Call:
    """One request of one client: `outcome` is None while nobody knows it."""

    request_id: bytes
    command: Command
    began_s: float
    ended_s: float = 0.0
    outcome: Outcome | None = None
    tries: int = 0


@dataclass
class History:
    """All calls of one run."""

    calls: list[Call] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[Call]:
        return [call for call in self.calls if call.outcome is not None]


@dataclass
class Truth:
    """What the cluster applied."""

    entries: dict[int, tuple[int, bytes]]
    outcomes: dict[bytes, tuple[int, int, Outcome]] = field(default_factory=dict)
    applied_twice: list[str] = field(default_factory=list)
    tables: Any = None

    def replay(self) -> None:
        """Apply everything to an empty ledger: first outcomes, and where each stands."""
        tables = MemoryTables()
        for index in range(1, len(self.entries) + 1):
            term, entry = self.entries[index]
            outcomes = apply(tables, index, term, entry)
            for place, (proposal, outcome) in enumerate(zip(decode_entry(entry), outcomes, strict=True)):
                if isinstance(proposal, Damaged) or isinstance(proposal.command, Tick):
                    continue  # Ticks are harmless to repeat, and not remembered.
                known = self.outcomes.setdefault(proposal.request_id, (index, place, outcome))
                if encode_outcome(known[2]) != encode_outcome(outcome):
                    self.applied_twice.append(
                        f"{proposal} was applied twice: {known} and at {index}.{place} {outcome}"
                    )
        self.tables = tables


def read_trace(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield (index, term, entry) of everything that a member applied, in the order of applying."""
    yield from records_of(path.read_bytes() if path.exists() else b"")


def merge_traces(traces: Mapping[str, Sequence[tuple[int, int, bytes]]]) -> tuple[Truth, list[str]]:
    """Put what members applied together; name every index at which two of them (or one, twice) differ."""
    faults: list[str] = []
    entries: dict[int, tuple[int, bytes]] = {}
    for name, trace in traces.items():
        for index, term, entry in trace:
            known = entries.setdefault(index, (term, entry))
            if known != (term, entry):
                faults.append(f"{name} applied another entry {index}: of term {term}, not {known[0]}")
    missing = sorted(set(range(1, max(entries, default=0) + 1)) - set(entries))
    if missing:
        faults.append(f"nobody applied entries {missing[:5]}")
    return Truth(entries), faults


def check(history: History, truth: Truth, terms: Mapping[int, set[str]]) -> list[str]:
    """Return everything that contradicts the promises."""
    found = list(_lost(history, truth))
    found += truth.applied_twice
    found += list(_out_of_order(history, truth))
    found += list(_claimed_twice(history))
    found += list(_finished_twice(history))
    found += [
        f"term {term} had the leaders {sorted(names)}" for term, names in terms.items() if len(names) > 1
    ]
    if truth.tables is not None:
        found += invariants.check(truth.tables)
    return found


def _lost(history: History, truth: Truth) -> Iterator[str]:
    """Acknowledged commands that are not there, or whose outcome is another one."""
    for call in history.acknowledged:
        place = truth.outcomes.get(call.request_id)
        name = type(call.command).__name__
        if place is None:
            yield f"lost: {name} {call.request_id.hex()} was acknowledged and is nowhere"
        elif call.outcome is not None and encode_outcome(place[2]) != encode_outcome(call.outcome):
            yield f"{name} {call.request_id.hex()} was answered {call.outcome}, but is {place[2]}"


def _out_of_order(history: History, truth: Truth) -> Iterator[str]:
    """Calls that stand before one which had been answered before they began."""
    placed = sorted(
        (
            (truth.outcomes[call.request_id][:2], call)
            for call in history.acknowledged
            if call.request_id in truth.outcomes
        ),
        key=lambda pair: pair[0],
    )
    latest_begin_s, latest = float("-inf"), None
    for place, call in placed:
        if call.ended_s < latest_begin_s and latest is not None:
            yield f"{call.request_id.hex()} was answered before {latest.hex()} began, but stands after it, at {place}"
        if call.began_s > latest_begin_s:
            latest_begin_s, latest = call.began_s, call.request_id


def _claimed_twice(history: History) -> Iterator[str]:
    seen: dict[tuple[int, int, int, int], bytes] = {}
    for call in history.acknowledged:
        if isinstance(call.command, Claim) and isinstance(call.outcome, Applied):
            for grant in call.outcome.grants:
                attempt = (grant.dataset, grant.job, grant.task, grant.attempt)
                if seen.setdefault(attempt, call.request_id) != call.request_id:
                    yield f"attempt {attempt} was granted to two claims"


def _finished_twice(history: History) -> Iterator[str]:
    seen: dict[tuple[int, int, int], tuple[int, bytes]] = {}
    for call in history.acknowledged:
        if isinstance(call.command, FinishTask) and isinstance(call.outcome, Applied):
            ref = call.command.ref
            known = seen.setdefault((ref.dataset, ref.job, ref.task), (ref.attempt, call.command.holder))
            if known != (ref.attempt, call.command.holder):
                yield f"task {ref} was finished by two attempts or holders"


def state_digest(truth: Truth) -> bytes:
    """The digest that every member must have."""
    return queries.state_digest(truth.tables)
