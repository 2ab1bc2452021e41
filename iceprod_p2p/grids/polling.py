"""Polling a grid with patience: a grid job that is missing once has not vanished.

Batch systems forget a finished job and do not yet list a young one, so an absent id means nothing by itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from iceprod_p2p.grids.base import Grid, GridState, History, Vanished


@dataclass(frozen=True, slots=True)
class Poll:
    """One look at the queue: states that are known, ends with their history, and ids to doubt at the next
    poll.
    """

    states: dict[str, GridState]
    ended: dict[str, History]
    missing: frozenset[str]


def poll(grid: Grid, grid_job_ids: Collection[str], *, missing_before: Collection[str] = ()) -> Poll:
    """Ask `grid` for the states of `grid_job_ids`; an id missing now and in `missing_before` has vanished,
    unless the history knows its end.  Raises as `Grid.status` does; then the earlier poll still stands.
    """
    states = dict(grid.status(grid_job_ids))
    absent = sorted(set(grid_job_ids) - set(states))
    ended = grid.history(absent) if absent else {}
    states |= {grid_job_id: end.state for grid_job_id, end in ended.items()}
    missing = frozenset(absent) - set(ended)
    doubted = frozenset(missing_before)
    states |= {grid_job_id: Vanished() for grid_job_id in sorted(missing & doubted)}
    return Poll(states, ended, missing - doubted)
