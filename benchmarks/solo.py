"""One node without peers: a store filled entry by entry through the real journal and rules, then started again."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from benchmarks.children import Say, say
from benchmarks.numbers import percentile
from iceprod_p2p.base import logs
from iceprod_p2p.ledger import keys, queries
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import (
    AddNode,
    Claim,
    Command,
    ControlTasks,
    FinishTask,
    FoundCluster,
    Proposal,
    RecordBlob,
    SetDataset,
    StartTasks,
    SubmitDataset,
    TaskRef,
    TaskStart,
    Tick,
    Verb,
)
from iceprod_p2p.ledger.outcome import Applied, Outcome
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.resources import Offer, Usage
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.model.states import JobState, TaskState
from iceprod_p2p.raft.compaction import compact
from iceprod_p2p.raft.founding import found
from iceprod_p2p.raft.journal import Journal
from iceprod_p2p.raft.machine import ledger_machine
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.raft.ports import KeyValue
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.raft.syncobj import REGULAR
from iceprod_p2p.store.environment import Environment

NODE: Final = "node-a"
SITE: Final = "madison"
IDLE_SITE: Final = "uppsala"
ACTOR: Final = f"node:{NODE}"
PAGE_TASKS: Final = 256  # Claimed, started and finished in one entry.
HOLDER: Final = b"h" * 32
STATISTICS: Final = {"events": 1_000.0, "energy_sum_GeV": 123_456.75}
SAY_S: Final = 15.0
REQUESTS_MAX: Final = (
    4_096  # Requests of one entry are fewer: what began again gives none of its numbers twice.
)
HORIZON_MS: Final = 11 * 60_000  # Beyond the ledger's memory of requests.


class Solo:
    """Applies entries to a store as a node does, without waiting for the disk: filling is not what is measured."""

    def __init__(self, path: Path) -> None:
        """Found a ledger in `path`, or go on with the one that lies there."""
        self.environment = Environment(path, sync=False)
        self._settings = RaftSettings()
        self._requests = 0
        self._now_ms = 0
        with self.environment.read() as snapshot:
            applied = queries.applied_index(snapshot.ledger)
            self._requests, self._now_ms = applied * REQUESTS_MAX, queries.ledger_time_ms(snapshot.ledger)
        if not applied:
            member = Member(NODE, SITE, "127.0.0.1:1", MemberRole.VOTER)
            idle = Member("node-b", IDLE_SITE, "127.0.0.1:2", MemberRole.OBSERVER)
            first: list[Command] = [
                FoundCluster("bench", b"root", 86_400_000),
                AddNode(member, b"authority", bytes(32), "key-a", bytes(32)),
                AddNode(idle, b"authority-b", b"b" * 32, "key-b", b"b" * 32),
            ]
            found(self.environment, NODE, encode_entry([self._proposal(c) for c in first]), apply=apply)
        with self.environment.read() as snapshot:
            self._journal = Journal(snapshot, cache_bytes=self._settings.log_cache_bytes)
        self.tick(1_000)

    def entry(self, *commands: Command) -> tuple[list[Outcome], float, int]:
        """Append and apply one entry; return its outcomes, its milliseconds of processor time, and its size.

        Processor time, because what else the machine does would make the slowest of many claims meaningless.
        """
        entry = encode_entry([self._proposal(command) for command in commands])
        journal = self._journal
        transaction = self.environment.write()
        journal.open(transaction)
        began_s = time.thread_time()
        index = journal.append(1, REGULAR + entry)
        outcomes = apply(transaction.ledger, index, 1, entry)
        taken_ms = (time.thread_time() - began_s) * 1e3
        journal.setRaftCommitIndex(index)
        journal.state.applied = index
        compact(journal, self._settings, None)
        journal.save()
        transaction.commit()
        journal.close()
        for outcome in outcomes:
            assert isinstance(outcome, Applied), outcome
        return outcomes, taken_ms, len(entry)

    def tick(self, ms: int) -> None:
        """Let ledger time pass."""
        self._now_ms += ms
        self.entry(Tick(1, self._now_ms))

    def submit(self, jobs: int, *shapes: str) -> tuple[int, float, int]:
        """Submit a chain of tasks; return the dataset's number, and the entry's milliseconds and bytes."""
        chain = tuple(TaskShape(name, (number - 1,) if number else ()) for number, name in enumerate(shapes))
        outcomes, taken_ms, size = self.entry(SubmitDataset("5" * 64, jobs, chain, 7, "ada"))
        return _applied(outcomes[0]).number, taken_ms, size

    def prefer(self, dataset: int, priority: int) -> None:
        """Let a dataset's tasks go before those of lower priority."""
        self.entry(SetDataset(dataset, priority=priority))

    def claim(self, limit: int) -> tuple[list[TaskRef], float]:
        """Claim tasks; return them and the milliseconds of processor time."""
        outcomes, taken_ms, _ = self.entry(Claim(SITE, (Offer("std", limit),), limit))
        grants = _applied(outcomes[0]).grants
        return [TaskRef(g.dataset, g.job, g.task, g.attempt) for g in grants], taken_ms

    def run(self, tasks: int, *, statistics: dict[str, float], say: Say) -> None:
        """Claim, start and finish `tasks` tasks, whichever the ledger gives."""
        done, told_s = 0, time.monotonic()
        while done < tasks:
            refs, _ = self.claim(min(PAGE_TASKS, tasks - done))
            self._finish(refs, statistics)
            done += len(refs)
            if time.monotonic() - told_s > SAY_S:
                told_s = time.monotonic()
                say(f"{done:,} of {tasks:,} tasks finished")

    def make_dependents(self, tasks: int, *, say: Say) -> None:
        """Submit a chain of two and finish the first task of `tasks` jobs: their second ones are ready then."""
        dataset, _, _ = self.submit(tasks, "generate", "detect")
        self.prefer(dataset, 1_000)
        held: list[TaskRef] = []
        while len(held) < tasks:  # All are claimed before one is finished: dependents would be given first.
            refs, _ = self.claim(min(PAGE_TASKS, tasks - len(held)))
            assert all(ref.dataset == dataset and ref.task == 0 for ref in refs), "another dataset goes first"
            held += refs
        for start in range(0, tasks, PAGE_TASKS):
            self._finish(held[start : start + PAGE_TASKS], {})
        say(f"{tasks:,} dependents are ready")

    def abort_last(self, dataset: int, jobs: int) -> None:
        """Abort the last job of a dataset: the one that whoever looks for aborted ones finds last."""
        self.entry(ControlTasks(dataset, Verb.ABORT, jobs - 1, jobs - 1))

    def _finish(self, refs: Sequence[TaskRef], statistics: dict[str, float]) -> None:
        usage = Usage(1_000, 900, 50, 10)
        self.entry(StartTasks(SITE, tuple(self._start(ref) for ref in refs)))
        self.entry(*(FinishTask(ref, HOLDER, SITE, statistics, (), usage) for ref in refs))
        self.tick(500)

    def forget_requests(self) -> None:
        """Let the memory of requests run out, so that only what stays is counted."""
        self.tick(HORIZON_MS)
        for _ in range(20_000):
            with self.environment.read() as snapshot:
                if (
                    next(snapshot.ledger.scan(keys.REQUEST_PAGE, keys.prefix_stop(keys.REQUEST_PAGE)), None)
                    is None
                ):
                    return
            self.tick(1)

    def ledger_bytes(self) -> int:
        """Return what the ledger's tables take on disk, in whole pages in use."""
        self.environment.checkpoint()
        return self.environment.table_bytes("ledger")

    def close(self) -> None:
        """Close the store."""
        self.environment.close()

    def _proposal(self, command: Command) -> Proposal:
        self._requests += 1
        return Proposal(self._requests.to_bytes(16, "big"), self._now_ms, ACTOR, command)

    def _start(self, ref: TaskRef) -> TaskStart:
        self._requests += 1
        passkey = self._requests.to_bytes(16, "big")
        return TaskStart(ref, passkey, "key-a", HOLDER, "pilot-1", "worker-1", 10**12)


def views(kv: KeyValue, dataset: int) -> dict[str, Callable[[], Any]]:
    """Return every question a person's screen puts to the ledger, by name."""
    found = queries.dataset(kv, dataset)
    assert found is not None
    half = found.row.tasks[TaskState.COMPLETE] // 2
    return {
        "datasets": lambda: queries.datasets(kv),
        "dataset": lambda: queries.dataset(kv, dataset),
        "statistics": lambda: queries.statistics(kv, dataset),
        "jobs, a page": lambda: queries.jobs(kv, dataset),
        "tasks, a page": lambda: queries.tasks(kv, dataset),
        "tasks that failed (none)": lambda: queries.tasks(kv, dataset, state=TaskState.FAILED),
        "tasks that were aborted (one, the last)": lambda: queries.tasks(
            kv, dataset, state=TaskState.ABORTED
        ),
        "tasks that run (none)": lambda: queries.tasks(kv, dataset, state=TaskState.PROCESSING),
        "tasks that are claimed": lambda: queries.tasks(kv, dataset, state=TaskState.CLAIMED),
        "tasks that are complete, the thousand after half": lambda: queries.tasks(
            kv, dataset, state=TaskState.COMPLETE, limit=1_000, after=(half, 0)
        ),
        "tasks at another site (none)": lambda: queries.tasks(kv, dataset, site=IDLE_SITE),
        "jobs that were aborted (one, the last)": lambda: queries.jobs(kv, dataset, state=JobState.ABORTED),
        "task of a job": lambda: queries.task(kv, dataset, 0, 0),
        "sites": lambda: queries.sites(kv),
        "ready counts": lambda: queries.ready_counts(kv),
        "held by a site": lambda: queries.held_by(kv, SITE),
        "audit, a page": lambda: queries.audit(kv),
    }


def time_views(kv: KeyValue, dataset: int) -> dict[str, float]:
    """Return the slowest of ten answers to each question, in milliseconds of processor time."""
    taken: dict[str, float] = {}
    for name, view in views(kv, dataset).items():
        times = []
        for _ in range(10):
            began_s = time.thread_time()
            view()
            times.append((time.thread_time() - began_s) * 1e3)
        taken[name] = percentile(times, 100)
    return taken


def _applied(outcome: Outcome) -> Applied:
    assert isinstance(outcome, Applied), outcome
    return outcome


class NoLinks:
    """The links of a node that has no peers."""

    def attach(self, **callbacks: Any) -> None: ...

    def send(self, node_id: str, frame: bytes) -> None: ...

    def members_changed(self, members: Sequence[Member]) -> None: ...

    async def stop(self) -> None: ...


async def restart(path: Path) -> None:
    """In a process of its own: start the node on a filled store, have one command acknowledged, and say so."""
    environment = Environment(path)
    node = RaftNode(NODE, environment=environment, links=NoLinks(), machine=ledger_machine())
    await node.start()
    await node.propose(RecordBlob("7" * 64, 1, (NODE,)), actor=ACTOR, timeout_s=60)
    say(ready=True, anonymous=machine.anonymous_bytes())
    sys.stdin.readline()
    await node.stop()
    environment.close()


if __name__ == "__main__":
    logs.configure(style="text", level="warning")
    asyncio.run(restart(Path(sys.argv[1])))
