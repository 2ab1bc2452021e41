"""Tasks whose pilot is gone, or never received them, are given back to the cluster: soon, but never on a
guess.

A pilot is gone when its grid job has ended.  One that the batch system has merely lost sight of, or that no
longer calls, may still run and report elsewhere; only its silence over a long time counts.  An attempt that
was handed out while its pilot's connection broke is known by the pilot's own next calls, which do not name
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import FailTask, GiveBack, TaskRef
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.site.consensus import Consensus
from iceprod_p2p.site.grid_jobs import GridJob, GridJobBook, GridJobPhase
from iceprod_p2p.site.pilot_board import PilotBoard

NOT_RECEIVED_S: Final = (
    30.0  # An order reaches its pilot within one call, which lasts at most some ten seconds.
)
SETTLE_S: Final = 2.0  # Reports of a pilot's last moments may still be on their way through the log.
VANISHED_SILENCE_S: Final = 300.0
LOG_TAIL_BYTES: Final = 1_500
LOOK_SHARE: Final = 0.02  # Of one processor, for looking over what pilots have.
PAGE: Final = 64  # Per step: a lost machine must not fill the log in one go.
log = get_logger("lost_pilots")


@dataclass(frozen=True, slots=True)
class RunningTask:
    """An attempt that a pilot has, as the ledger knows."""

    ref: TaskRef
    pilot: str
    holder: bytes
    copying: bool = False


class LostView(Protocol):
    """What is read of the ledger."""

    def running(self, site: str) -> Sequence[RunningTask]:
        """Every attempt of the site that a pilot has; called on a thread."""
        ...


class LostPilots:
    """The role; `step` is called by one task of the event loop."""

    def __init__(
        self,
        *,
        site: str,
        node_id: str,
        book: GridJobBook,
        board: PilotBoard,
        consensus: Consensus,
        cluster: LostView,
        clock: Clock,
    ) -> None:
        self._site = site
        self._actor = f"node:{node_id}"
        self._book = book
        self._board = board
        self._consensus = consensus
        self._cluster = cluster
        self._clock = clock
        self._suspects: dict[TaskRef, float] = {}
        self._ended_s: dict[
            str, float
        ] = {}  # When an ended pilot was first seen here, by a clock that never jumps.
        self._look_at_s = float("-inf")

    async def step(self) -> None:
        """Look once over the attempts that pilots have; a large site is looked over less often."""
        began_s = self._clock.monotonic_s()
        if began_s < self._look_at_s:
            return
        running = await asyncio.to_thread(self._cluster.running, self._site)
        now_s = self._clock.monotonic_s()
        self._look_at_s = now_s + (now_s - began_s) / LOOK_SHARE
        await self._settle_ended(running)
        await self._take_back_unreceived(running)

    async def _settle_ended(self, running: Sequence[RunningTask]) -> None:
        now_s = self._clock.monotonic_s()
        unsettled = self._book.unsettled()
        self._ended_s = {job.pilot: self._ended_s.get(job.pilot, now_s) for job in unsettled}
        for job in unsettled:
            if not self._certain(job):
                continue
            lost = [task for task in running if task.pilot == job.pilot]
            for task in lost[:PAGE]:
                await self._fail(task, job)
            passing("lost.settle.before")
            if len(lost) <= PAGE:
                self._book.change(job.pilot, lambda entry: replace(entry, settled=True))

    def _certain(self, job: GridJob) -> bool:
        note = self._board.by_name(job.pilot)
        silent_s = self._board.silent_s(note) if note is not None else float("inf")
        ended_s = self._clock.monotonic_s() - self._ended_s[job.pilot]
        if job.phase is GridJobPhase.VANISHED:
            return min(silent_s, ended_s) > VANISHED_SILENCE_S
        return min(silent_s, ended_s) > SETTLE_S

    async def _fail(self, task: RunningTask, job: GridJob) -> None:
        command = FailTask(
            ref=task.ref,
            holder=b"",
            site=self._site,
            reason=FailReason.EVICTED if job.evicted else FailReason.PILOT_LOST,
            message=f"pilot {job.pilot} is gone: {job.reason}\n{self._last_words(job)}".strip(),
        )
        outcome = await self._consensus.propose(command, actor=self._actor)
        log.warning(
            "task of a lost pilot reported", pilot=job.pilot, task=str(task.ref), outcome=str(outcome)
        )

    def _last_words(self, job: GridJob) -> str:
        path = self._book.path(job.pilot) / "grid" / "grid.err"
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
                return file.read(LOG_TAIL_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    async def _take_back_unreceived(self, running: Sequence[RunningTask]) -> None:
        """Give back attempts that their pilot, which goes on calling here, does not know of."""
        now_s = self._clock.monotonic_s()
        suspects: dict[TaskRef, float] = {}
        for task in running:
            note = self._board.by_holder(task.holder)
            if note is None or (
                note.holds(task.ref) and not self._overdue(task, note.given.get(task.ref), now_s)
            ):
                continue
            if task.ref not in note.running:
                suspects[task.ref] = self._suspects.get(task.ref, now_s)
        self._suspects = suspects
        # Its report may be on its way: a pilot no longer names an attempt once its end is to be reported.
        due = tuple(ref for ref, since_s in suspects.items() if now_s - since_s > NOT_RECEIVED_S)[:PAGE]
        if due:
            await self._consensus.propose(
                GiveBack(self._site, due, "its pilot never received it"), actor=self._actor
            )
            log.warning("attempts given back that no pilot works on", count=len(due))

    @staticmethod
    def _overdue(task: RunningTask, given_s: float | None, now_s: float) -> bool:
        return given_s is not None and now_s - given_s > NOT_RECEIVED_S
