"""What the site's pilots have and will have, by resource class: the volunteer's and the keeper's common
view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from iceprod_p2p.base.config import QueueConfig, ResourceClass
from iceprod_p2p.grids.base import Tag
from iceprod_p2p.model.resources import Requirements
from iceprod_p2p.model.site import SiteCounts
from iceprod_p2p.site.grid_jobs import GridJob, GridJobBook, GridJobPhase
from iceprod_p2p.site.pilot_board import PilotBoard, PilotNote
from iceprod_p2p.site.pilot_files import offer_of
from iceprod_p2p.site.plans.claims import ClassCapacity, fit_of
from iceprod_p2p.site.plans.orders import Candidate
from iceprod_p2p.site.plans.queue import ClassDemand, QueueJob, Standing

SILENT_S = 120.0  # A pilot that has not called for so long is not counted on for new work.

_STANDING = {
    GridJobPhase.NOTED: Standing.UNCLEAR,
    GridJobPhase.QUEUED: Standing.QUEUED,
    GridJobPhase.HELD: Standing.HELD,
    GridJobPhase.RUNNING: Standing.RUNNING,
}


class Capacity:
    """Reads the book of grid jobs and the board of pilots; used on the event loop only."""

    def __init__(self, queue: QueueConfig, book: GridJobBook, board: PilotBoard) -> None:
        self._queue = queue
        self._book = book
        self._board = board
        self.grid_down = False  # The keeper says so; then no pilots can be promised.

    def use(self, queue: QueueConfig) -> None:
        """Go on with a changed configuration."""
        self._queue = queue

    def classes(self) -> list[ClassCapacity]:
        """Return every resource class with the slots it has and may still get."""
        live: Counter[str] = Counter()
        wanted: Counter[str] = Counter()
        now_s = self._board.now_s()
        for job in self._book.live():  # Once for all classes: there may be ten thousand, many times a second.
            note = self._heard(job.pilot, now_s)
            live[job.resource_class] += 1
            if note is None or not note.ending:
                wanted[job.resource_class] += _wanted(job, note)
        room = 0 if self.grid_down else max(0, self._queue.grid_jobs_max - sum(live.values()))
        result = []
        for kind in self._queue.classes:
            present = wanted[kind.name]
            possible = min(room, kind.pilots_max - live[kind.name]) if kind.pilots_max else room
            result.append(ClassCapacity(offer_of(kind), present, max(0, possible) * kind.slots))
        return result

    def demands(self, waiting: Sequence[Candidate]) -> list[ClassDemand]:
        """Return what each class wants for the claimed tasks that no pilot has."""
        offers = [offer_of(kind) for kind in self._queue.classes]
        wanted: Counter[str] = Counter()
        by_need: Counter[Requirements] = Counter(entry.need for entry in waiting)
        for need, count in by_need.items():
            offer = fit_of(need, offers)
            if offer is not None:
                wanted[offer.resource_class] += count
        return [
            ClassDemand(
                kind.name,
                wanted[kind.name],
                slots=kind.slots,
                slots_free=self._slots_free(kind),
                jobs_max=kind.pilots_max,
            )
            for kind in self._queue.classes
        ]

    def queue_jobs(self, tag_of: dict[str, Tag], since_s: dict[str, float]) -> list[QueueJob]:
        """Return the live grid jobs as the queue's plan wants them."""
        return [
            QueueJob(
                str(tag_of[job.pilot]), job.resource_class, _STANDING[job.phase], since_s.get(job.pilot, 0.0)
            )
            for job in self._book.live()
        ]

    def counts(self, *, grid: str, attributes: tuple[str, ...], version: str) -> SiteCounts:
        """Return what the site says of itself in its heartbeat."""
        live = self._book.live()
        running = [job for job in live if job.phase is GridJobPhase.RUNNING]
        now_s = self._board.now_s()
        busy = sum(len(note.running) for note in self._board.pilots() if now_s - note.seen_s < SILENT_S)
        return SiteCounts(
            grid=grid,
            slots=sum(job.slots for job in running),
            slots_busy=busy,
            pilots_queued=len(live) - len(running),
            pilots_running=len(running),
            attributes=attributes,
            version=version,
        )

    def _slots_free(self, kind: ResourceClass) -> int:
        now_s = self._board.now_s()
        free = 0
        for job in self._book.live():
            if job.resource_class != kind.name or job.phase is not GridJobPhase.RUNNING:
                continue
            free += _free(job, self._heard(job.pilot, now_s))
        return free

    def _heard(self, pilot: str, now_s: float) -> PilotNote | None:
        """Return what a pilot said last, unless that is too long ago to count on."""
        note = self._board.by_name(pilot)
        return note if note is not None and now_s - note.seen_s < SILENT_S else None


def _free(job: GridJob, note: PilotNote | None) -> int:
    if note is None:
        return job.slots  # It has just started, and will call.
    return 0 if note.ending else note.room.slots


def _wanted(job: GridJob, note: PilotNote | None) -> int:
    """How many tasks a pilot wants in all: its slots, or more while tasks are so short that it asks ahead."""
    return job.slots if note is None else max(job.slots, len(note.running) + note.room.slots)
