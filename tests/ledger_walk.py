"""A random walk through a ledger: three sites, a few datasets, and all that sites, pilots, people and time may do.

One seed is one walk, replayed identically.  What each step proposes is drawn by weight, so that tasks do get claimed,
run, lost, reset and finished within a few hundred steps.  The walk keeps its own account of what must never happen.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import Command, TaskRef, Verb
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.outcome import Applied, Outcome
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.resources import Offer, Requirements, Usage
from iceprod_p2p.model.site import SiteCounts
from iceprod_p2p.model.states import FailReason, TaskState
from tests.ledger_in_hand import FIGURE_8, PAIR, STEERING, LedgerInHand

SITES = ("desy", "madison", "uppsala")
HOLDERS = (b"a" * 32, b"a" * 32, b"a" * 32, b"b" * 32)
SHAPES = (
    PAIR,
    FIGURE_8,
    (TaskShape("alone"),),
    (
        TaskShape("a"),
        TaskShape("b", (), Requirements(gpus=1)),
        TaskShape("c", (0, 1), Requirements(2, 0, 2_000)),
    ),
)
OFFERS = (
    (Offer("std", 50),),
    (Offer("gpu", 3, gpus=1), Offer("std", 9, 2, 0, 3_000)),
    (Offer("big", 9, 8, 2, 64_000, 64_000, 100_000, gpu_tasks_only=False),),
)
VERBS = (Verb.SUSPEND, Verb.RESUME, Verb.RESUME, Verb.RESET, Verb.RESET_FAILED, Verb.ABORT)


class Walk:
    """One walk; `step` applies one entry and checks what the walk itself can know."""

    def __init__(self, seed: int, kv: KeyValue | None = None, *, checked: bool = True) -> None:
        self.random = Random(seed)
        self.ledger = LedgerInHand(kv, checked=checked)
        self.ledger.found(*SITES, grace_ms=60_000)
        self.attempts: dict[tuple[int, int, int], int] = {}
        self.claimed: set[tuple[int, int, int, int]] = set()
        self.files: dict[tuple[int, int, str, int, int, int], tuple[str, int]] = {}
        self.done: dict[str, int] = {}
        self.passkeys = 0
        self.actions: list[tuple[int, Callable[[], list[Command]]]] = [
            (4, self.submit),
            (1, self.add_jobs),
            (24, self.claim),
            (5, self.queue),
            (22, self.start),
            (5, self.copy),
            (28, self.finish),
            (8, self.fail),
            (2, self.give_back),
            (8, self.heartbeat),
            (9, self.tick),
            (3, self.control_dataset),
            (8, self.control_tasks),
            (4, self.redo),
            (2, self.set_dataset),
            (2, self.control_site),
            (3, self.replicas),
        ]

    def step(self) -> None:
        """Draw one or more commands, apply them as one entry, and look at the outcome."""
        weights = [weight for weight, _ in self.actions]
        action = self.random.choices(self.actions, weights)[0][1]
        commands = action()
        if self.random.random() < 0.2:
            commands += self.random.choices(self.actions, weights)[0][1]()
        if not commands:
            return
        outcomes = self.ledger.entry(*commands)
        for command, outcome in zip(commands, outcomes, strict=True):
            self.note(command, outcome)
        self.look()

    def note(self, command: Command, outcome: Outcome) -> None:
        """Keep account of what was applied, and refuse to see an attempt claimed twice."""
        if not isinstance(outcome, Applied):
            return
        name = type(command).__name__
        self.done[name] = self.done.get(name, 0) + 1
        if isinstance(command, c.Claim):
            for grant in outcome.grants:
                attempt = (grant.dataset, grant.job, grant.task, grant.attempt)
                assert attempt not in self.claimed, f"attempt {attempt} was claimed twice"
                self.claimed.add(attempt)
                assert any(offer.fits(grant.requirements) for offer in command.offers)

    def look(self) -> None:
        """Check that attempts only grow, that files stay as they are, and that lists agree with counters."""
        kv = self.ledger.kv
        for dataset in queries.datasets(kv, limit=4).rows:
            for row in queries.tasks(kv, dataset.dataset, limit=40).rows:
                key = (row.dataset, row.job, row.task)
                assert row.attempt >= self.attempts.get(key, 0), row
                self.attempts[key] = row.attempt
            for file in queries.files(kv, dataset.dataset, limit=40).rows:
                name = (dataset.dataset, file.job, file.name, file.by_job, file.task, file.attempt)
                content = (file.sha256, file.size_bytes)
                assert self.files.setdefault(name, content) == content, f"file record changed: {name}"
            if dataset.jobs <= 12:
                counted = dict.fromkeys(TaskState, 0)
                for job in queries.jobs(kv, dataset.dataset, limit=20).rows:
                    for state, count in job.tasks.items():
                        counted[state] += count
                assert counted == dataset.tasks

    def a_dataset(self) -> int:
        """Some dataset, perhaps one that does not exist."""
        now = queries.settings(self.ledger.kv)
        return self.random.randint(1, max(now.datasets if now else 0, 1))

    def held(self, site: str, states: tuple[TaskState, ...]) -> list[TaskRef]:
        """Some of what a site holds in these states."""
        refs = [row.ref for row in queries.held_by(self.ledger.kv, site, states).rows]
        return self.random.sample(refs, self.random.randint(0, len(refs)))[:12]

    def a_site(self) -> str:
        """Some site."""
        return self.random.choice(SITES)

    def submit(self) -> list[Command]:
        """Submit a dataset, unless there are many."""
        now = queries.settings(self.ledger.kv)
        if now is not None and now.datasets >= 6:
            return []
        owner = self.random.choice(["ada", "bo"])
        return [
            c.SubmitDataset(
                STEERING,
                self.random.choice([0, 1, 3, 6, 300]),
                self.random.choice(SHAPES),
                1,
                owner,
                group=owner[0],
                priority=self.random.choice([0, 500, 900]),
                sites_excluded=self.random.choice([(), (), ("desy",)]),
                attempts_max=self.random.randint(1, 3),
                retry_pause_ms=5_000,
                closing=SHAPES[0] if now is not None and now.datasets == 3 else (),
            )
        ]

    def add_jobs(self) -> list[Command]:
        """Let a dataset grow."""
        return [c.AddJobs(self.a_dataset(), self.random.randint(0, 5))]

    def claim(self) -> list[Command]:
        """Claim for a site."""
        return [c.Claim(self.a_site(), self.random.choice(OFFERS), self.random.choice([1, 3, 12]))]

    def queue(self) -> list[Command]:
        """Say that claims stand in a site's queue."""
        site = self.a_site()
        return [c.QueueTasks(site, tuple(self.held(site, (TaskState.CLAIMED, TaskState.PROCESSING))))]

    def start(self) -> list[Command]:
        """Hand claims to pilots."""
        site = self.a_site()
        starts = []
        for ref in self.held(site, (TaskState.CLAIMED, TaskState.QUEUED, TaskState.PROCESSING)):
            self.passkeys += 1
            lifetime_ms = self.random.choice([10_000, 10**9, 10**9])
            starts.append(
                c.TaskStart(
                    ref,
                    self.passkeys.to_bytes(16, "big"),
                    "key0",
                    self.random.choice(HOLDERS),
                    "p1",
                    self.random.choice(["node1", "node2"]),
                    self.ledger.now_ms + lifetime_ms,
                )
            )
        return [c.StartTasks(site, tuple(starts))]

    def copy(self) -> list[Command]:
        """Say that outputs are on their way."""
        refs = self.held(self.a_site(), (TaskState.PROCESSING,))
        return [c.CopyTask(ref, self.random.choice(HOLDERS)) for ref in refs]

    def finish(self) -> list[Command]:
        """Report results, some of them twice, some with a digest that differs."""
        site = self.a_site()
        commands: list[Command] = []
        for ref in self.held(site, (TaskState.PROCESSING, TaskState.COPYING)):
            statistics = {"x": self.random.choice([1.0, -3.5, 1e300, 1e-300, 0.1, -0.0]), "n": 1.0}
            files = (
                FileEntry(f"out.{ref.task}", 5, f"{ref.job:032x}{ref.task:032x}"),
                FileEntry("shared", 5, STEERING, "dataset_temp"),
                FileEntry("log", 5, STEERING, "log"),
            )
            files = files[: self.random.randint(0, 3)]
            holder = self.random.choice(HOLDERS)
            for _ in range(self.random.choice([1, 1, 2])):
                commands.append(
                    c.FinishTask(ref, holder, site, statistics, files, Usage(2_000, 1_000, 10, 10))
                )
        return commands

    def fail(self) -> list[Command]:
        """Report failures."""
        site = self.a_site()
        states = (TaskState.CLAIMED, TaskState.PROCESSING, TaskState.PROCESSING, TaskState.COPYING)
        logs = (FileEntry("log", 5, STEERING, "log"),)
        return [
            c.FailTask(
                ref,
                self.random.choice((*HOLDERS, b"")),
                site,
                self.random.choice(list(FailReason)),
                "it broke",
                1,
                Usage(10, 10, 3_000, 10),
                self.random.choice([(), logs]),
            )
            for ref in self.held(site, states)
        ]

    def give_back(self) -> list[Command]:
        """Return claims."""
        site = self.a_site()
        return [c.GiveBack(site, tuple(self.held(site, (TaskState.CLAIMED, TaskState.PROCESSING))))]

    def heartbeat(self) -> list[Command]:
        """Let a site be heard, vouching for attempts of another."""
        site = self.a_site()
        vouched = self.held(self.a_site(), (TaskState.PROCESSING, TaskState.COPYING))
        return [c.Heartbeat(site, f"n{SITES.index(site)}", SiteCounts(), tuple(vouched))]

    def tick(self) -> list[Command]:
        """Let time pass, a moment or hours."""
        self.ledger.now_ms += self.random.choice([0, 1_000, 6_000, 6_000, 20_000, 70_000, 8 * 3_600_000])
        return [c.Tick(self.ledger.term, self.ledger.now_ms)]

    def control_dataset(self) -> list[Command]:
        """Ask something of a whole dataset."""
        return [c.ControlDataset(self.a_dataset(), self.random.choice((*VERBS, Verb.TRUNCATE, Verb.DELETE)))]

    def control_tasks(self) -> list[Command]:
        """Ask something of jobs or tasks."""
        first = self.random.randint(0, 5)
        last = first + self.random.choice([0, 0, 0, 1, 250])
        verb = self.random.choice((*VERBS, Verb.RESET_FAILED, Verb.RESET_FAILED))
        return [c.ControlTasks(self.a_dataset(), verb, first, last, self.random.choice([-1, -1, 0, 1, 3]))]

    def redo(self) -> list[Command]:
        """Reset a task that is complete."""
        done = queries.tasks(self.ledger.kv, self.a_dataset(), state=TaskState.COMPLETE, limit=20).rows
        rows = self.random.sample(done, min(len(done), 1))
        return [c.ControlTasks(row.dataset, Verb.RESET, row.job, row.job, row.task) for row in rows]

    def set_dataset(self) -> list[Command]:
        """Change a dataset."""
        priority = self.random.choice([None, 0, 700])
        return [
            c.SetDataset(self.a_dataset(), priority, sites_excluded=self.random.choice([None, (), ("desy",)]))
        ]

    def control_site(self) -> list[Command]:
        """Drain, ban or resume a site."""
        verbs = [c.SiteVerb.DRAIN, c.SiteVerb.BAN, *[c.SiteVerb.RESUME] * 4]
        return [c.ControlSite(site, self.random.choice(verbs)) for site in SITES]

    def replicas(self) -> list[Command]:
        """Record copies, and what became of them."""
        number, site = self.a_dataset(), self.a_site()
        ref = c.ReplicaRef(number, self.random.randint(0, 3), f"out.{self.random.randint(0, 3)}")
        shared = c.ReplicaRef(number, -1, "shared")
        found = self.random.choice(["", STEERING])
        return [c.RecordReplicas(site, (ref,), (shared,)), c.RecordVerification(ref, site, found)]
