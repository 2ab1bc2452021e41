"""How many pilots to submit, and which to take out of the queue: a pure decision of the site's keeper.

The queue follows the demand: one pilot for as many waiting tasks as it has slots, less what running pilots
have free and queued pilots will have.  Limits bound it: grid jobs in all, per class, queued at once, per
submission, and time between submissions; a batch system that fails is left alone for a while (`BackOff`).

Nothing is removed because demand fell: a queued pilot that finds no work ends by itself, and removing and
submitting again would cost its place in the queue.  Removed are held grid jobs, after a while, and
everything that waits once the site drains; running pilots are told to drain by others. Source:
arXiv:1311.5904, 3.2 (soapqueue).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

BACK_OFF_LEAST_S: Final = 10.0
BACK_OFF_MOST_S: Final = 900.0


class Standing(StrEnum):
    """Where one grid job stands for the queue; ended ones do not count and are not given."""

    UNCLEAR = "unclear"  # Noted before its submission, and nobody knows yet whether the system has it.
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class QueueJob:
    """One live grid job: its tag as text, its resource class, and since when it stands where it does."""

    tag: str
    resource_class: str
    standing: Standing
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ClassDemand:
    """What one resource class wants.

    `tasks_waiting` are claimed and no pilot has them.  `slots_free` are those of its running pilots; a pilot
    that has started but not asked for work yet has all of its slots free.  One pilot runs `slots` tasks at
    once.  `jobs_max` 0 means no limit of its own.
    """

    resource_class: str
    tasks_waiting: int
    slots: int = 1
    slots_free: int = 0
    jobs_max: int = 0


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of one site's queue.

    `queued_max` bounds what waits in the batch system, 0 meaning no such bound.
    """

    jobs_max: int
    per_submit: int
    interval_s: float = 0.0
    queued_max: int = 0
    held_max_s: float = 300.0


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long a failing batch system is left alone: `failures` in a row, nothing before `until_s`."""

    failures: int = 0
    until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SubmitPilots:
    """Submit `count` pilots of one class."""

    resource_class: str
    count: int


@dataclass(frozen=True, slots=True)
class RemoveGridJob:
    """Take one grid job out of the batch system."""

    tag: str
    reason: str


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """What to do now; `waits` says, per class in want, why it gets fewer pilots than it wants."""

    submits: tuple[SubmitPilots, ...] = ()
    removes: tuple[RemoveGridJob, ...] = ()
    waits: tuple[str, ...] = ()


def plan_queue(
    demands: Sequence[ClassDemand],
    jobs: Sequence[QueueJob],
    limits: QueueLimits,
    *,
    now_s: float,
    last_submit_s: float = float("-inf"),
    back_off: BackOff = BackOff(),
    draining: bool = False,
) -> QueuePlan:
    """Return what to submit and remove.

    Equal inputs give equal output, and a plan that was carried out leaves nothing to do for the same
    demand.

    `now_s`, `last_submit_s` and the times in `jobs` are of one monotonic clock.  When a limit binds,
    classes get pilots one at a time, the one in greatest want first.
    """
    if now_s < back_off.until_s:
        left_s = back_off.until_s - now_s
        return QueuePlan(
            waits=(f"the batch system failed {back_off.failures} times; next try in {left_s:.0f} s",)
        )
    removes = _removes(jobs, limits, now_s=now_s, draining=draining)
    if draining:
        return QueuePlan(removes=removes, waits=("the site drains",))
    wanted = {demand.resource_class: _wanted(demand, jobs) for demand in demands}
    if not any(wanted.values()):
        return QueuePlan(removes=removes)
    if now_s < last_submit_s + limits.interval_s:
        return QueuePlan(removes=removes, waits=("the last submission is too recent",))
    given = _share(demands, jobs, limits, wanted)
    return QueuePlan(
        submits=tuple(SubmitPilots(name, count) for name, count in given.items() if count),
        removes=removes,
        waits=tuple(
            f"{name}: {wanted[name] - given[name]} more pilots wanted than the limits allow now"
            for name in wanted
            if wanted[name] > given[name]
        ),
    )


def after_failure(back_off: BackOff, *, now_s: float) -> BackOff:
    """Return the back-off after the batch system failed once more.

    Twice as long each time, up to 15 minutes.
    """
    failures = back_off.failures + 1
    return BackOff(failures, now_s + min(BACK_OFF_MOST_S, BACK_OFF_LEAST_S * 2 ** min(failures - 1, 16)))


def after_success() -> BackOff:
    """Return the back-off after the batch system has answered: none."""
    return BackOff()


def _removes(
    jobs: Sequence[QueueJob], limits: QueueLimits, *, now_s: float, draining: bool
) -> tuple[RemoveGridJob, ...]:
    removes = []
    for job in jobs:
        if draining and job.standing in (Standing.QUEUED, Standing.HELD):
            removes.append(RemoveGridJob(job.tag, "the site drains"))
        elif job.standing is Standing.HELD and now_s - job.since_s > limits.held_max_s:
            removes.append(RemoveGridJob(job.tag, f"held for more than {limits.held_max_s:g} s"))
    return tuple(removes)


def _wanted(demand: ClassDemand, jobs: Sequence[QueueJob]) -> int:
    """Return how many pilots a class wants beyond those that wait already; held ones will bring nothing."""
    waiting = sum(
        job.resource_class == demand.resource_class and job.standing in (Standing.QUEUED, Standing.UNCLEAR)
        for job in jobs
    )
    slots = max(1, demand.slots)
    pilots = -(-max(0, demand.tasks_waiting - demand.slots_free) // slots)
    return max(0, pilots - waiting)


def _share(
    demands: Sequence[ClassDemand], jobs: Sequence[QueueJob], limits: QueueLimits, wanted: dict[str, int]
) -> dict[str, int]:
    """Share the room between the classes: always the one that lacks most next, then by their order."""
    room = min(limits.per_submit, limits.jobs_max - len(jobs))
    if limits.queued_max:
        room = min(room, limits.queued_max - sum(job.standing is not Standing.RUNNING for job in jobs))
    caps = {}
    for demand in demands:
        live = sum(job.resource_class == demand.resource_class for job in jobs)
        own = demand.jobs_max - live if demand.jobs_max else wanted[demand.resource_class]
        caps[demand.resource_class] = max(0, min(wanted[demand.resource_class], own))
    given = dict.fromkeys(caps, 0)
    order = list(caps)
    for _ in range(max(0, room)):
        neediest = max(order, key=lambda name: (caps[name] - given[name], -order.index(name)))
        if given[neediest] >= caps[neediest]:
            break
        given[neediest] += 1
    return given
