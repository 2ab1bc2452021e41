"""The shape of every job of a dataset, prepared for quick questions: who waits for whom, as bit masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

from iceprod_p2p.model.dataset import TaskShape

_decoder: Final = msgspec.msgpack.Decoder(tuple[TaskShape, ...])
_encoder: Final = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Dag:
    """Bit `i` of a mask stands for task `i`; `slots` numbers the root tasks for the watermarks."""

    shapes: tuple[TaskShape, ...]
    parents: tuple[int, ...]  # One mask per task.
    children: tuple[tuple[int, ...], ...]
    descendants: tuple[int, ...]  # One mask per task, without itself.
    slots: dict[int, int]
    everything: int
    names: dict[str, int]


def encode_shapes(shapes: tuple[TaskShape, ...]) -> bytes:
    """Return the stored form of a dataset's shapes."""
    return _encoder.encode(shapes)


@lru_cache(maxsize=512)
def dag_of(shapes: bytes) -> Dag:
    """Return the DAG of stored shapes. The same bytes give the same object: nothing in it may be changed."""
    tasks = _decoder.decode(shapes)
    parents = tuple(sum(1 << parent for parent in shape.parents) for shape in tasks)
    children = tuple(
        tuple(child for child in range(task + 1, len(tasks)) if parents[child] >> task & 1)
        for task in range(len(tasks))
    )
    descendants = [0] * len(tasks)
    for task in range(len(tasks) - 1, -1, -1):
        for child in children[task]:
            descendants[task] |= 1 << child | descendants[child]
    roots = [task for task in range(len(tasks)) if not parents[task]]
    return Dag(
        shapes=tasks,
        parents=parents,
        children=children,
        descendants=tuple(descendants),
        slots={task: slot for slot, task in enumerate(roots)},
        everything=(1 << len(tasks)) - 1,
        names={shape.name: task for task, shape in enumerate(tasks)},
    )
