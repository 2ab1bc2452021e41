"""Which of a site's claimed tasks one pilot is given.

A pilot has so much free in all, not per slot, so tasks of different sizes share it.  GPU pilots take GPU
tasks first; otherwise the order of the claims stands (it carries the ledger's fairness), and a task that does
not fit now is passed over for the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.model.resources import Requirements, has_attribute

ORDERS_MAX = 256  # In one exchange: the reply stays small, and one pilot does not empty a site's stock.


@dataclass(frozen=True, slots=True)
class Candidate:
    """One attempt that the site holds and no pilot has; `queued` when its grid was said to have a pilot for
    it.
    """

    ref: TaskRef
    need: Requirements
    queued: bool = False


@dataclass(frozen=True, slots=True)
class Room:
    """What one pilot has free; `walltime_s` is what is left of its own life, 0 meaning that nothing limits
    it.
    """

    slots: int
    cpus: int
    gpus: int
    memory_mib: int
    disk_mib: int
    walltime_s: int
    attributes: frozenset[str] = frozenset()
    gpu_tasks_only: bool = False


def choose(candidates: Iterable[Candidate], room: Room) -> list[Candidate]:
    """Return the tasks to hand to a pilot with this room, best first; equal inputs give equal output."""
    slots = min(room.slots, ORDERS_MAX)
    cpus, gpus, memory_mib, disk_mib = room.cpus, room.gpus, room.memory_mib, room.disk_mib
    chosen: list[Candidate] = []
    ordered = sorted(candidates, key=lambda entry: entry.need.gpus == 0) if gpus else candidates
    for candidate in ordered:
        if len(chosen) >= slots:
            break
        need = candidate.need
        if room.gpu_tasks_only and need.gpus == 0:
            continue
        if need.cpus > cpus or need.gpus > gpus or need.memory_mib > memory_mib or need.disk_mib > disk_mib:
            continue
        if room.walltime_s and need.walltime_s > room.walltime_s:
            continue
        if not all(has_attribute(room.attributes, attribute) for attribute in need.attributes):
            continue
        cpus -= need.cpus
        gpus -= need.gpus
        memory_mib -= need.memory_mib
        disk_mib -= need.disk_mib
        chosen.append(candidate)
    return chosen
