"""A node that is very far behind catches up while the cluster works on: how long, in how much memory, at whose cost?

Two of three voters have a long history; the third has the first entry alone, and its next ones are gone, so that it
gets a snapshot of the tables and then the log behind it.  Meanwhile callers at a voter propose as fast as they are
answered.  Memory is anonymous memory (RssAnon): what is beyond it, the page cache can take back.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from iceprod_cli.free_ports import free_ports

from benchmarks import keys, machine
from benchmarks.children import Child, Say
from benchmarks.cluster import NAMES, Cluster
from benchmarks.numbers import median, percentile, rate
from benchmarks.report import table
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import Proposal, Tick
from iceprod_p2p.raft.compaction import compact
from iceprod_p2p.raft.founding import found
from iceprod_p2p.raft.journal import IDENTITY_KEY, PLACE_KEY, Identity, Journal, seal
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.raft.syncobj import REGULAR
from iceprod_p2p.store.environment import Environment

ENTRIES: Final = 1_000_000
STATE_MIB: Final = 512  # What the tables hold beside what the entries brought.
ENTRIES_PER_COMMIT: Final = 500
VALUE_BYTES: Final = 4_000
FILLING: Final = b"\x7e"  # A table of nobody: its records stand for those of a large production.
CALLERS: Final = 32
SLICE_S: Final = 2.0  # The load is driven, and counted, in slices of so long.
CALM_SLICES: Final = 3
SAMPLE_S: Final = 0.05
WAIT_S: Final = 900.0
LEADER: Final = "the leader"
THIRD: Final = "the one behind"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run gave."""

    taken_s: float
    first_bytes: dict[str, int]  # Anonymous memory when the node began to catch up, of the leader and of it.
    most_bytes: dict[str, int]
    load: dict[str, list[dict[str, Any]]]  # Slices of the callers' work, by when.

    def lines(self, *, entries: int, state_mib: int, slice_s: float) -> list[str]:
        """Return the report's lines."""
        rows = []
        for when, slices in self.load.items():
            latencies = [us / 1e3 for one in slices for us in one["latencies_us"]]
            per_s = median([one["commands"] / slice_s for one in slices])
            p50, p99 = percentile(latencies, 50), percentile(latencies, 99)
            rows.append([when, rate(per_s), f"{p50:.1f}", f"{p99:.0f}"])
        grown = ", ".join(
            f"{who} {first / 2**20:.0f} MiB at first and {self.most_bytes[who] / 2**20:.0f} MiB at most"
            for who, first in self.first_bytes.items()
        )
        return [
            f"- {entries:,} entries behind, {state_mib:,} MiB of tables: caught up in {self.taken_s:.1f} s,"
            " start of the process not counted",
            f"- anonymous memory: {grown}",
            "",
            *table([f"{CALLERS} callers at the leader", "light commands /s", "p50 ms", "p99 ms"], rows),
        ]


def measure(
    directory: Path, *, entries: int = ENTRIES, state_mib: int = STATE_MIB, say: Say = lambda line: None
) -> list[str]:
    """Measure and return the report's lines."""
    outcome = run(directory, entries=entries, state_mib=state_mib, slice_s=SLICE_S, say=say)
    return outcome.lines(entries=entries, state_mib=state_mib, slice_s=SLICE_S)


def run(
    directory: Path, *, entries: int, state_mib: int, slice_s: float, say: Say = lambda line: None
) -> Outcome:
    """Let the third node catch up under load, and return what it and the leader needed."""
    cluster = Behind(directory, entries=entries, state_mib=state_mib, say=say)
    load = {"do": "drive", "work": "light", "callers": CALLERS, "batch": 1, "warm_s": 0.0, "seconds": slice_s}
    try:
        leader = cluster.members[cluster.leader()]
        calm = [leader.ask(**load) for _ in range(CALM_SLICES)]
        third = cluster.start_third()
        began_s = time.monotonic()
        memory = {LEADER: Memory(leader.process.pid), THIRD: Memory(third.process.pid)}
        for sampler in memory.values():
            sampler.start()
        busy, taken_s = [], 0.0
        while not taken_s:
            target = leader.ask(do="status")["applied"]
            leader.tell(**load)
            slice_ends_s = time.monotonic() + slice_s
            while not taken_s and time.monotonic() < slice_ends_s:
                if third.ask(do="status")["applied"] >= target:  # All that there was when this slice began.
                    taken_s = time.monotonic() - began_s
                time.sleep(SAMPLE_S)
            busy.append(leader.answer())
            assert time.monotonic() - began_s < WAIT_S, "it does not catch up"
        for sampler in memory.values():
            sampler.stop()
        after = [leader.ask(**load) for _ in range(CALM_SLICES)]
        say(f"caught up in {taken_s:.1f} s")
    finally:
        cluster.stop()
    return Outcome(
        taken_s,
        {who: sampler.first_bytes for who, sampler in memory.items()},
        {who: sampler.most_bytes for who, sampler in memory.items()},
        {"before": calm, "while it catches up": busy, "after": after},
    )


class Behind(Cluster):
    """Three voters: the first two with a history, the third with the first entry alone and not yet started."""

    def __init__(self, directory: Path, *, entries: int, state_mib: int, say: Say) -> None:
        self.directory = directory
        self._ring = keys.make_ring()
        self._configs = [self._config(name) for name in NAMES]
        for config, port in zip(self._configs, free_ports(len(NAMES)), strict=True):
            config["address"] = config["public"] = f"127.0.0.1:{port}"
        self._genesis = self._first_entry().hex()
        first, second, _ = (Path(config["directory"]) for config in self._configs)
        _fill(first, bytes.fromhex(self._genesis), entries=entries, state_mib=state_mib, say=say)
        _copy(first, second, NAMES[1])
        self.members: list[Child] = []
        for config in self._configs[:2]:
            self._begin(config)
        self.leader()

    def start_third(self) -> Child:
        """Start the one that is behind."""
        self._begin(self._configs[2])
        return self.members[2]

    def _begin(self, config: dict[str, Any]) -> None:
        member = self._spawn(config)
        self.members.append(member)
        member.answer()
        member.ask(do="start", genesis=self._genesis)


def _fill(path: Path, genesis: bytes, *, entries: int, state_mib: int, say: Say) -> None:
    """Write a history through the real journal and rules, without waiting for the disk."""
    store, settings = Environment(path, sync=False), RaftSettings()
    found(store, NAMES[0], genesis, apply=apply)
    with store.read() as snapshot:
        journal = Journal(snapshot, cache_bytes=settings.log_cache_bytes)
    for part in range(0, state_mib << 20, 8 << 20):
        transaction = store.write()
        for at in range(part, part + (8 << 20), VALUE_BYTES):
            transaction.ledger.put(FILLING + at.to_bytes(8, "big"), os.urandom(VALUE_BYTES))
        transaction.commit()
    now_ms, last = 1_000, entries
    while journal.last_index < last:
        transaction = store.write()
        journal.open(transaction)
        for _ in range(min(ENTRIES_PER_COMMIT, last - journal.last_index)):
            now_ms += 10
            number = journal.last_index.to_bytes(16, "big")
            entry = encode_entry([Proposal(number, 0, f"node:{NAMES[0]}", Tick(1, now_ms))])
            index = journal.append(1, REGULAR + entry)
            apply(transaction.ledger, index, 1, entry)
        journal.setRaftCommitIndex(journal.last_index)
        journal.state.applied = journal.last_index
        compact(journal, settings, None)
        journal.save()
        transaction.commit()
        journal.close()
        if journal.last_index % 100_000 < ENTRIES_PER_COMMIT:
            say(f"{journal.last_index:,} of {last:,} entries written")
    store.close()


def _copy(path: Path, other: Path, name: str) -> None:
    """Give another node the same history, under its own name."""
    source, target = Environment(path, sync=False), Environment(other, sync=False)
    with source.read() as snapshot:
        for database in ("ledger", "log", "meta"):
            pairs = getattr(snapshot, database).scan(b"\x00", b"\xff" * 511)
            transaction, size = target.write(), 0
            for key, value in pairs:
                if key not in (IDENTITY_KEY, PLACE_KEY):
                    getattr(transaction, database).put(key, value)
                    size += len(value)
                if size > 8 << 20:
                    transaction.commit()
                    transaction, size = target.write(), 0
            transaction.commit()
    transaction = target.write()
    transaction.meta.put(IDENTITY_KEY, seal(Identity(name)))
    transaction.commit()
    source.close()
    target.close()


class Memory(threading.Thread):
    """Samples a process's anonymous memory until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self.first_bytes = machine.anonymous_bytes(pid)
        self.most_bytes = self.first_bytes

    def run(self) -> None:
        """Sample."""
        while not self._ended.wait(SAMPLE_S):
            self.most_bytes = max(self.most_bytes, machine.anonymous_bytes(self._pid))

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self.join()
