"""A ledger under random commands: every invariant holds after every entry, whatever came before."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import (
    AddJobs,
    Claim,
    ControlDataset,
    ControlSite,
    ControlTasks,
    CopyTask,
    FailTask,
    FinishTask,
    GiveBack,
    QueueTasks,
    RecordReplicas,
    RecordVerification,
    ReplicaRef,
    SetDataset,
    SiteVerb,
    SubmitDataset,
    TaskRef,
    Verb,
)
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.resources import Offer, Requirements, Usage
from iceprod_p2p.model.states import FailReason, TaskState
from tests.ledger_in_hand import FIGURE_8, PAIR, STEERING, LedgerInHand

SITES = ("desy", "madison", "uppsala")
HOLDERS = (b"a" * 32, b"b" * 32)
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
    (Offer("gpu", 3, gpus=1), Offer("std", 2)),
    (Offer("big", 4, cpus=8, gpus=2, memory_mib=64_000, walltime_s=100_000, gpu_tasks_only=False),),
)

sites = st.sampled_from(SITES)
small = st.integers(0, 6)
values = st.floats(allow_nan=False, allow_infinity=False)


class LedgerMachine(RuleBasedStateMachine):
    """Three sites, a few datasets, and everything that sites, pilots, people and time may do to them."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = LedgerInHand()
        self.attempts: dict[tuple[int, int, int], int] = {}
        self.claimed: set[tuple[int, int, int, int]] = set()
        self.finished: dict[tuple[int, int, int, int], int] = {}

    @initialize()
    def found(self) -> None:
        self.ledger.found(*SITES, grace_ms=60_000)

    def held(self, data: Any, site: str) -> list[TaskRef]:
        rows = queries.held_by(self.ledger.kv, site).rows
        if not rows:
            return []
        return data.draw(
            st.lists(st.sampled_from([row.ref for row in rows]), min_size=1, max_size=8, unique=True)
        )

    def some_dataset(self, data: Any) -> int:
        settings_now = queries.settings(self.ledger.kv)
        assert settings_now is not None
        return data.draw(st.integers(1, max(settings_now.datasets, 1)))

    @rule(
        jobs=st.sampled_from([0, 1, 2, 5, 300]),
        shapes=st.sampled_from(SHAPES),
        priority=st.sampled_from([0, 500, 900]),
        owner=st.sampled_from(["ada", "bo"]),
        attempts_max=st.integers(1, 3),
        excluded=st.sampled_from([(), ("desy",)]),
    )
    def submit(
        self,
        jobs: int,
        shapes: tuple[TaskShape, ...],
        priority: int,
        owner: str,
        attempts_max: int,
        excluded: tuple[str, ...],
    ) -> None:
        self.ledger.done(
            SubmitDataset(
                STEERING,
                jobs,
                shapes,
                1,
                owner,
                group=owner[0],
                priority=priority,
                attempts_max=attempts_max,
                sites_excluded=excluded,
                retry_pause_ms=5_000,
            )
        )

    @rule(data=st.data(), jobs=small)
    def add_jobs(self, data: Any, jobs: int) -> None:
        self.ledger.do(AddJobs(self.some_dataset(data), jobs))

    @rule(site=sites, limit=st.sampled_from([1, 3, 40]), offers=st.sampled_from(OFFERS))
    def claim(self, site: str, limit: int, offers: tuple[Offer, ...]) -> None:
        outcome = self.ledger.do(Claim(site, offers, limit))
        if isinstance(outcome, Applied):
            for grant in outcome.grants:
                attempt = (grant.dataset, grant.job, grant.task, grant.attempt)
                assert attempt not in self.claimed, "an attempt was claimed twice"
                self.claimed.add(attempt)
                assert any(offer.fits(grant.requirements) for offer in offers)

    @rule(data=st.data(), site=sites)
    def queue(self, data: Any, site: str) -> None:
        self.ledger.do(QueueTasks(site, tuple(self.held(data, site))))

    @rule(
        data=st.data(), site=sites, holder=st.sampled_from(HOLDERS), lifetime=st.sampled_from([10_000, 10**9])
    )
    def start(self, data: Any, site: str, holder: bytes, lifetime: int) -> None:
        refs = self.held(data, site)
        if refs and queries.site(self.ledger.kv, site).state != "banned":
            self.ledger.start(site, *refs, holder=holder, expires_ms=self.ledger.now_ms + lifetime)

    @rule(data=st.data(), site=sites, holder=st.sampled_from(HOLDERS))
    def copy(self, data: Any, site: str, holder: bytes) -> None:
        for ref in self.held(data, site):
            self.ledger.do(CopyTask(ref, holder))

    @rule(data=st.data(), site=sites, holder=st.sampled_from(HOLDERS), value=values, twice=st.booleans())
    def finish(self, data: Any, site: str, holder: bytes, value: float, twice: bool) -> None:
        for ref in self.held(data, site):
            files = (
                FileEntry(f"out.{ref.task}", 5, f"{ref.job:032x}{ref.task:032x}"),
                FileEntry("shared", 5, STEERING, "dataset_temp"),
                FileEntry("log", 5, STEERING, "log"),
            )
            command = FinishTask(
                ref, holder, site, {"x": value, "n": 1.0}, files, Usage(2_000, 1_000, 10, 10)
            )
            for _ in range(1 + twice):
                if isinstance(self.ledger.do(command), Applied):
                    key = (ref.dataset, ref.job, ref.task, ref.attempt)
                    self.finished[key] = self.finished.get(key, 0) + 1

    @rule(
        data=st.data(),
        site=sites,
        holder=st.sampled_from((*HOLDERS, b"")),
        reason=st.sampled_from(FailReason),
    )
    def fail(self, data: Any, site: str, holder: bytes, reason: FailReason) -> None:
        for ref in self.held(data, site):
            self.ledger.do(FailTask(ref, holder, site, reason, "it broke", 1, Usage(10, 10, 3_000, 10)))

    @rule(data=st.data(), site=sites)
    def give_back(self, data: Any, site: str) -> None:
        self.ledger.do(GiveBack(site, tuple(self.held(data, site))))

    @rule(data=st.data(), site=sites, other=sites)
    def heartbeat(self, data: Any, site: str, other: str) -> None:
        if queries.site(self.ledger.kv, site).state != "banned":
            self.ledger.beat(site, f"n{SITES.index(site)}", *self.held(data, other))

    @rule(ms=st.sampled_from([0, 1_000, 20_000, 70_000, 7 * 3_600_000]))
    def tick(self, ms: int) -> None:
        self.ledger.tick(ms)

    @rule(data=st.data(), verb=st.sampled_from(Verb))
    def control_dataset(self, data: Any, verb: Verb) -> None:
        self.ledger.do(ControlDataset(self.some_dataset(data), verb))

    @rule(
        data=st.data(),
        verb=st.sampled_from([Verb.SUSPEND, Verb.RESUME, Verb.RESET, Verb.RESET_FAILED, Verb.ABORT]),
        first=small,
        more=st.sampled_from([0, 0, 1, 250]),
        task=st.sampled_from([-1, -1, 0, 1, 3]),
    )
    def control_tasks(self, data: Any, verb: Verb, first: int, more: int, task: int) -> None:
        self.ledger.do(ControlTasks(self.some_dataset(data), verb, first, first + more, task))

    @rule(
        data=st.data(),
        priority=st.sampled_from([None, 0, 700]),
        excluded=st.sampled_from([None, (), ("desy",)]),
    )
    def set_dataset(self, data: Any, priority: int | None, excluded: tuple[str, ...] | None) -> None:
        self.ledger.do(SetDataset(self.some_dataset(data), priority, sites_excluded=excluded))

    @rule(site=sites, verb=st.sampled_from(SiteVerb))
    def control_site(self, site: str, verb: SiteVerb) -> None:
        self.ledger.do(ControlSite(site, verb))

    @rule(data=st.data(), site=sites, job=small, task=small)
    def replicas(self, data: Any, site: str, job: int, task: int) -> None:
        number = self.some_dataset(data)
        ref = ReplicaRef(number, job, f"out.{task}")
        self.ledger.do(RecordReplicas(site, (ref,), (ReplicaRef(number, -1, "shared"),)))
        self.ledger.do(RecordVerification(ref, site, ""))

    @invariant()
    def attempts_only_grow(self) -> None:
        for number in range(1, 4):
            for row in queries.tasks(self.ledger.kv, number, limit=60).rows:
                key = (row.dataset, row.job, row.task)
                assert row.attempt >= self.attempts.get(key, 0), row
                self.attempts[key] = row.attempt

    @precondition(lambda self: self.ledger.index > 0)
    @invariant()
    def lists_agree_with_counts(self) -> None:
        for row in queries.datasets(self.ledger.kv, limit=3).rows:
            if row.jobs > 40:
                continue
            counted = dict.fromkeys(TaskState, 0)
            for job in queries.jobs(self.ledger.kv, row.dataset, limit=1_000).rows:
                for state, count in job.tasks.items():
                    counted[state] += count
            assert counted == row.tasks


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
