"""Dependencies between tasks: what a written one means, and whether they go in a circle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.model.steering import After, Task


@dataclass(frozen=True, slots=True)
class OtherDataset:
    """A task of another dataset."""

    dataset: str
    task: str


def names_of(tasks: Sequence[Task]) -> dict[str, int]:
    """Return the index of each task by its name; the first of equal names."""
    names: dict[str, int] = {}
    for index, task in enumerate(tasks):
        names.setdefault(task.name, index)
    return names


def resolve_depends(written: str, names: Mapping[str, int]) -> int | OtherDataset | None:
    """Return the index of the task meant, or the task of another dataset; None when there is no such task.

    A name comes before an index, and both before ``dataset:task``.
    """
    name = written.strip()
    if name in names:
        return names[name]
    if name.isascii() and name.isdigit() and len(name) < 10:
        return int(name) if int(name) < len(names) else None
    dataset, colon, task = name.partition(":")
    if colon and dataset and task and not task.startswith(":"):
        return OtherDataset(dataset, task)
    return None


RANKS: Final = {After.PARENTS: 0, After.JOB: 1, After.DATASET: 2}


def too_early(tasks: Sequence[Task], index: int, parent: int) -> bool:
    """Return whether task `index` waits for one that only comes after it: after its job, or after the dataset."""
    return RANKS[tasks[parent].after] > RANKS[tasks[index].after]


def waits(tasks: Sequence[Task], named: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return what each task waits for inside its job, from what it names: tasks after a job wait for all the others.

    Tasks after the dataset wait for each other only: that all jobs are complete, is known when they begin.
    """
    of_jobs = {index for index, task in enumerate(tasks) if task.after is After.PARENTS}
    found: list[tuple[int, ...]] = []
    for index, task in enumerate(tasks):
        parents = set(named[index])
        if task.after is After.JOB:
            parents |= of_jobs
        elif task.after is After.DATASET:
            parents = {parent for parent in parents if tasks[parent].after is After.DATASET}
        found.append(tuple(sorted(parents)))
    return found


def cycle(parents: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the tasks of one cycle in order, each waiting for the next; empty when there is none.  Linear."""
    state = [0] * len(parents)  # 0 unseen, 1 on the way, 2 done.
    for start in range(len(parents)):
        if state[start]:
            continue
        way = [start]
        left = [iter(parents[start])]
        state[start] = 1
        while way:
            parent = next(left[-1], None)
            if parent is None:
                state[way.pop()] = 2
                left.pop()
            elif state[parent] == 1:
                return tuple(way[way.index(parent) :])
            elif state[parent] == 0:
                state[parent] = 1
                way.append(parent)
                left.append(iter(parents[parent]))
    return ()


def topological(parents: Sequence[Sequence[int]]) -> list[int]:
    """Return the indices so that parents come first; tasks that may stay in place do.  Needs a graph without cycle."""
    order: list[int] = []
    done = [False] * len(parents)
    for start in range(len(parents)):
        stack = [(start, iter(parents[start]))]
        while stack:
            index, left = stack[-1]
            parent = next((candidate for candidate in left if not done[candidate]), None)
            if parent is not None:
                stack.append((parent, iter(parents[parent])))
                continue
            stack.pop()
            if not done[index]:
                done[index] = True
                order.append(index)
    return order
