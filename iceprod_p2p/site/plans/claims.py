"""What a site asks the ledger for: only tasks that it can start soon.

A site offers, per resource class, the slots of pilots that run, are queued or may still be submitted, plus a
small stock so that a slot never waits for a commit, less what it holds already.  The ledger decides which
tasks it gets. Source: arXiv:1311.5904, 3.2 (opportunistic volunteers), 4.2 (requirements per task).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from iceprod_p2p.model.resources import Offer, Requirements

LIMIT_MAX = 512  # Tasks asked for at once: one claim stays a small part of a log entry and of a tick.


@dataclass(frozen=True, slots=True)
class ClassCapacity:
    """One resource class as it is now: `offer` describes a slot (its `slots` is ignored).

    `slots_live` belong to pilots that run or are queued, `slots_possible` to pilots that may still be
    submitted.
    """

    offer: Offer
    slots_live: int
    slots_possible: int


def plan_offers(
    capacities: Sequence[ClassCapacity],
    held: Mapping[Requirements, int],
    *,
    ahead: float,
    limit: int = LIMIT_MAX,
) -> tuple[Offer, ...]:
    """Return the offers to claim with, most demanded kind of slot first; none when the site has enough.

    `held` counts the tasks that the site holds in any state by what they need; each takes a slot of the
    tightest class that fits it.  `ahead` is the stock, as a share of the slots.  At most `limit` slots are
    offered in all.
    """
    room = [
        int((capacity.slots_live + capacity.slots_possible) * (1 + ahead))
        + (1 if ahead > 0 and capacity.slots_live else 0)
        for capacity in capacities
    ]
    order = tightest_first([capacity.offer for capacity in capacities])
    for need, count in sorted(held.items(), key=lambda item: _size(item[0]), reverse=True):
        _take(room, [number for number in order if capacities[number].offer.fits(need)], count)
    offers = []
    for number in sorted(order, key=lambda number: -capacities[number].offer.gpus):
        slots = min(max(room[number], 0), limit)
        if slots:
            limit -= slots
            offers.append(_with_slots(capacities[number].offer, slots))
    return tuple(offers)


def tightest_first(offers: Sequence[Offer]) -> list[int]:
    """Return the indices of `offers`, the smallest slots first: big slots are kept for tasks that need
    them.
    """
    return sorted(
        range(len(offers)),
        key=lambda number: (
            offers[number].gpus,
            offers[number].cpus,
            offers[number].memory_mib,
            len(offers[number].attributes),
            number,
        ),
    )


def fit_of(need: Requirements, offers: Iterable[Offer]) -> Offer | None:
    """Return the tightest of `offers` that can run a task with these needs."""
    choices = list(offers)
    return next((choices[n] for n in tightest_first(choices) if choices[n].fits(need)), None)


def _take(room: list[int], fitting: list[int], count: int) -> None:
    """Let `count` tasks fill the room of the fitting classes in order; the rest weighs on the last of
    them.
    """
    for number in fitting:
        taken = min(max(room[number], 0), count)
        room[number] -= taken
        count -= taken
    if count and fitting:
        room[fitting[-1]] -= count


def _size(need: Requirements) -> tuple[int, int, int, int]:
    return need.gpus, need.cpus, need.memory_mib, need.walltime_s


def _with_slots(offer: Offer, slots: int) -> Offer:
    return Offer(
        offer.resource_class,
        slots,
        cpus=offer.cpus,
        gpus=offer.gpus,
        memory_mib=offer.memory_mib,
        disk_mib=offer.disk_mib,
        walltime_s=offer.walltime_s,
        attributes=offer.attributes,
        gpu_tasks_only=offer.gpu_tasks_only,
    )
