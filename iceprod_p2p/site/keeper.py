"""The keeper: holds the site's queue in the batch system (arXiv:1311.5904, 3.2: soapqueue).

`plans/queue.py` decides how many pilots; here they are written down, submitted, watched and, when they are
gone, accounted for.  A grid job is noted before it is submitted, so that after a crash its tag tells whether
the system has it, and nothing is submitted twice.  The batch system is spoken to on threads, one call at a
time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.grids.base import (
    Completed,
    Failed,
    Grid,
    GridRequest,
    GridState,
    Held,
    NotSubmitted,
    Queued,
    Removed,
    Running,
    Submitted,
    Tag,
    Vanished,
)
from iceprod_p2p.grids.polling import poll
from iceprod_p2p.ledger.commands import GiveBack, QueueTasks, TaskRef
from iceprod_p2p.security.random import new_pilot_id
from iceprod_p2p.site.capacity import Capacity
from iceprod_p2p.site.consensus import Consensus
from iceprod_p2p.site.grid_jobs import GridJob, GridJobBook, GridJobPhase
from iceprod_p2p.site.pilot_files import PilotKit, offer_of
from iceprod_p2p.site.plans.claims import fit_of
from iceprod_p2p.site.plans.hosts import HostWatch, excluded
from iceprod_p2p.site.plans.queue import (
    BackOff,
    QueueLimits,
    SubmitPilots,
    after_failure,
    after_success,
    plan_queue,
)
from iceprod_p2p.site.stock import Stock
from iceprod_p2p.wire.pb import common_pb2

PILOTS_DIRECTORY: Final = "pilots"  # In the data directory.
QUEUE_PAGE: Final = 256  # Tasks per command: a small part of a log entry.
REFS_AGE_S: Final = 2.0  # A task that a pilot takes at once needs no word that help is on its way.
FORGET_AGE_S: Final = 30.0  # A noted job that the system does not know for so long was never submitted.
log = get_logger("keeper")
Result = TypeVar("Result")


class KeeperView(Protocol):
    """What the keeper reads of the cluster."""

    def draining(self, site: str) -> bool:
        """Whether the site takes no new work."""
        ...

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node that can be called."""
        ...

    def hosts_shut_out(self, site: str) -> tuple[str, ...]:
        """Hosts of a site that lost so many tasks in a row that the ledger gives them none."""
        ...


class Keeper:
    """The role; `step` is called by one task of the event loop."""

    def __init__(
        self,
        config: SiteConfig,
        grid: Grid,
        kit: PilotKit,
        book: GridJobBook,
        capacity: Capacity,
        stock: Stock,
        consensus: Consensus,
        cluster: KeeperView,
        executor: Executor,
        clock: Clock,
    ) -> None:
        self.use(config)
        self._site = config.node.site
        self._actor = f"node:{config.node.id}"
        self._grid = grid
        self._kit = kit
        self._book = book
        self._capacity = capacity
        self._stock = stock
        self._consensus = consensus
        self._cluster = cluster
        self._executor = executor
        self._clock = clock
        self._back_off = BackOff()
        self._missing: frozenset[str] = frozenset()
        self._since_s: dict[str, float] = {}
        self._unclear_s: dict[str, float] = {}  # Since when a submission has been looked for.
        self._first_seen_s: dict[TaskRef, float] = {}
        self._reconciled = self._looked = False
        self.hosts = HostWatch()
        self._trouble = ""

    def use(self, config: SiteConfig) -> None:
        """Go on with a changed configuration; the plugin stays."""
        self._config = config
        self._limits = QueueLimits(config.queue.grid_jobs_max, config.queue.per_submit, 0.0)

    async def step(self) -> None:
        """Look at the batch system once, and do what the plan says."""
        if self._clock.monotonic_s() < self._back_off.until_s:
            return
        try:
            await self._look()
            await self._act()
        except IceProdError as trouble:
            self._back_off = after_failure(self._back_off, now_s=self._clock.monotonic_s())
            self._capacity.grid_down = True
            self._trouble = str(trouble)
            log.warning("batch system in trouble", grid=self._config.queue.plugin, error=str(trouble))
            return
        self._back_off = after_success()
        self._capacity.grid_down = False
        self._trouble = ""
        await self._tell_ledger()

    def problems(self) -> list[str]:
        """Return what keeps pilots from starting, one sentence each; asks the batch system nothing."""
        now = [f"batch system {self._config.queue.plugin}: {self._trouble}"] if self._trouble else []
        shut_out = sorted(self.hosts.shut_out(self._clock.wall_ms()))
        hosts = [f"hosts shut out, as pilots end there unheard: {', '.join(shut_out)}"] if shut_out else []
        return [*now, *self._kit.misfits(self._grid), *hosts]

    async def _look(self) -> None:
        await self._look_once()
        self._looked = True

    async def _look_once(self) -> None:
        await self._find_noted()
        if not self._reconciled:
            await self._clean_orphans()
            self._reconciled = True
        jobs = {job.grid_job_id: job for job in self._book.live() if job.grid_job_id}
        if not jobs:
            return
        result = await self._thread(lambda: poll(self._grid, list(jobs), missing_before=self._missing))
        self._missing = result.missing
        for grid_job_id, state in result.states.items():
            end = result.ended.get(grid_job_id)
            self._note_state(self._present(jobs[grid_job_id]), state, host=end.host if end else "")
        self._note_hosts_that_work()
        over = [job.grid_job_id for job in jobs.values() if not self._is_live(job.pilot)]
        if over:
            passing("keeper.forget.before")
            await self._thread(lambda: self._grid.forget(over))

    async def _find_noted(self) -> None:
        """Ask by tag for jobs whose submission is unclear: after a crash, or a batch system that was
        silent.  Meanwhile their pilots may have started and enrolled.
        """
        unclear = {self._kit.tag(job): job for job in self._book.live() if not job.grid_job_id}
        # By our own clock: one that is set must neither forget what may yet arrive nor keep it for a day.
        now_s = self._clock.monotonic_s()
        self._unclear_s = {job.pilot: self._unclear_s.get(job.pilot, now_s) for job in unclear.values()}
        if not unclear:
            return
        found = await self._thread(lambda: self._grid.find_by_tag(list(unclear)))
        for tag, before in unclear.items():
            job = self._present(before)
            noted = job.phase is GridJobPhase.NOTED
            if tag in found:
                phase = GridJobPhase.QUEUED if noted else job.phase
                passing("keeper.find.before")
                self._book.put(replace(job, phase=phase, grid_job_id=found[tag].grid_job_id))
                self._note_state(self._present(job), found[tag].state)
            elif now_s - self._unclear_s[job.pilot] > FORGET_AGE_S:
                if noted:
                    self._end(job, GridJobPhase.ENDED, "it was never submitted")
                else:
                    self._note_state(job, Vanished())

    async def _clean_orphans(self) -> None:
        owner, known = self._kit.owner, self._kit.known(self._book)
        orphans = await self._thread(lambda: self._grid.clean_queue(owner, known))
        for orphan in orphans:
            log.warning("orphaned grid job removed", grid_job=orphan.grid_job_id)

    async def _act(self) -> None:
        tags: dict[str, Tag] = {job.pilot: self._kit.tag(job) for job in self._book.live()}
        plan = plan_queue(
            self._capacity.demands(self._stock.tasks),
            self._capacity.queue_jobs(tags, self._since_s),
            self._limits,
            now_s=self._clock.monotonic_s(),
            draining=self._cluster.draining(self._site),
        )
        for submit in plan.submits:
            await self._submit(submit)
        removed = {remove.tag: remove.reason for remove in plan.removes}
        jobs = [job for job in self._book.live() if str(tags.get(job.pilot)) in removed and job.grid_job_id]
        if jobs:
            passing("keeper.remove.before")
            await self._thread(lambda: self._grid.remove([job.grid_job_id for job in jobs]))
            passing("keeper.remove.after")
            for job in jobs:
                log.info("grid job removed", grid_job=job.grid_job_id, why=removed[str(tags[job.pilot])])

    async def _submit(self, submit: SubmitPilots) -> None:
        kind = self._config.queue.resource_class(submit.resource_class)
        if kind is None:
            return
        await self._thread(self._kit.make_ready)
        requests: list[GridRequest] = []
        shut_out = self.hosts.shut_out(self._clock.wall_ms())
        excluded_hosts = excluded(shut_out, self._cluster.hosts_shut_out(self._site))
        for _ in range(submit.count):
            pilot = new_pilot_id()
            job, request = self._kit.prepare(
                pilot, kind, self._book.path(pilot), self._cluster.nodes(), now_ms=self._clock.wall_ms()
            )
            passing("keeper.note.before")
            self._book.put(job)
            requests.append(replace(request, exclude_hosts=excluded_hosts))
        passing("keeper.submit.before")
        results = await self._thread(lambda: self._grid.submit(requests))
        passing("keeper.submit.after")
        refused = ""
        for result in results:
            job_now = self._book.get(result.tag.grid_job)
            if job_now is None:
                continue
            if isinstance(result, Submitted):
                phase = GridJobPhase.QUEUED if job_now.phase is GridJobPhase.NOTED else job_now.phase
                self._book.put(replace(job_now, phase=phase, grid_job_id=result.grid_job_id))
                self._since_s[job_now.pilot] = self._clock.monotonic_s()
            elif isinstance(result, NotSubmitted):
                self._end(job_now, GridJobPhase.ENDED, f"refused: {result.reason}")
                refused = result.reason
        passing("keeper.note.after")
        log.info(
            "pilots submitted", resource_class=kind.name, count=len(requests), grid=self._config.queue.plugin
        )
        if refused:
            raise IceProdError(f"the batch system refused pilots of class {kind.name}: {refused}")

    async def _tell_ledger(self) -> None:
        """Say which claimed tasks have a pilot on its way, and give back those that none of our classes can
        run.
        """
        offers = [offer_of(kind) for kind in self._config.queue.classes]
        draining = self._cluster.draining(self._site)
        waiting = self._stock.tasks
        now_s = self._clock.monotonic_s()
        self._first_seen_s = {entry.ref: self._first_seen_s.get(entry.ref, now_s) for entry in waiting}
        back = [entry.ref for entry in waiting if draining or fit_of(entry.need, offers) is None]
        if back:
            reason = "the site drains" if draining else "no resource class of the site can run it"
            await self._give_back(back[:QUEUE_PAGE], reason)
        if not self._book.live():
            return
        queued = [
            entry.ref
            for entry in waiting
            if not entry.queued
            and entry.ref not in back
            and now_s - self._first_seen_s[entry.ref] > REFS_AGE_S
        ]
        if queued:
            command = QueueTasks(self._site, tuple(queued[:QUEUE_PAGE]))
            await self._consensus.propose(command, actor=self._actor)

    async def _give_back(self, refs: Sequence[TaskRef], reason: str) -> None:
        await self._consensus.propose(GiveBack(self._site, tuple(refs), reason), actor=self._actor)
        log.info("claims given back", count=len(refs), why=reason)

    def _note_state(self, job: GridJob, state: GridState, *, host: str = "") -> None:
        match state:
            case Queued():
                if job.phase is not GridJobPhase.RUNNING:  # A pilot that has enrolled runs: it was seen late.
                    self._move(job, GridJobPhase.QUEUED)
            case Running():
                self._move(job, GridJobPhase.RUNNING, host=state.host)
            case Held():
                self._move(job, GridJobPhase.HELD, reason=state.reason)
            case Completed():
                self._note_host_of_end(job, host or job.host)
                self._end(job, GridJobPhase.ENDED, f"ended with exit code {state.exit_code}", host=host)
            case Removed() | Failed():
                if isinstance(state, Failed):
                    self._note_host_of_end(job, host or job.host)
                evicted = isinstance(state, Removed)
                self._end(job, GridJobPhase.ENDED, state.reason or "removed", host=host, evicted=evicted)
            case Vanished():
                self._end(job, GridJobPhase.VANISHED, "the batch system no longer knows it")

    def _note_host_of_end(self, job: GridJob, host: str) -> None:
        """Count a pilot that never enrolled against its host, unless it ended while this node was down."""
        if not host or job.enrolled_key or not self._looked:
            return
        now_ms = self._clock.wall_ms()
        if self.hosts.failed(host, now_ms):
            minutes = (self.hosts.shut_out(now_ms)[host] - now_ms) // 60_000
            log.warning("host shut out: pilots end there before they enrol", host=host, minutes=minutes)

    def _note_hosts_that_work(self) -> None:
        now_ms = self._clock.wall_ms()
        for job in self._book.live():
            if job.enrolled_key and job.host:
                self.hosts.works(job.host, submitted_ms=job.noted_ms, now_ms=now_ms)

    def _move(self, job: GridJob, phase: GridJobPhase, *, host: str = "", reason: str = "") -> None:
        if job.phase is not phase:
            self._since_s[job.pilot] = self._clock.monotonic_s()
            self._book.put(replace(job, phase=phase, host=host or job.host, reason=reason[:500]))
            log.info("grid job moved", pilot=job.pilot, grid_job=job.grid_job_id, phase=str(phase))

    def _end(
        self, job: GridJob, phase: GridJobPhase, reason: str, *, host: str = "", evicted: bool = False
    ) -> None:
        if host and not job.host:
            self._book.put(replace(job, host=host))
        now_ms = self._clock.wall_ms()
        passing("keeper.end.before")
        self._book.end(job.pilot, phase=phase, now_ms=now_ms, reason=reason, evicted=evicted)
        passing("keeper.end.after")
        self._since_s.pop(job.pilot, None)
        log.info("grid job ended", pilot=job.pilot, grid_job=job.grid_job_id, why=reason)

    def _present(self, job: GridJob) -> GridJob:
        return self._book.get(job.pilot) or job

    def _is_live(self, pilot: str) -> bool:
        job = self._book.get(pilot)
        return job is not None and job.live

    async def _thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def end_pilots(config: SiteConfig, grid: Grid) -> int:
    """Remove every live grid job of a node that does not run, and return how many there were; blocking.

    The node accounts for them when it runs again.
    """
    jobs = [job for job in GridJobBook(config.node.data_dir / PILOTS_DIRECTORY).live() if job.grid_job_id]
    if jobs:
        grid.remove([job.grid_job_id for job in jobs])
    return len(jobs)
