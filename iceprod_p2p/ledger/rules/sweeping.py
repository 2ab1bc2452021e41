"""Sweeps: mass changes that later ticks carry out in pages, so that no entry touches more than a page of records.

A sweep is a record with a cursor.  What it has still to do is already right in every count and every answer:
tasks follow their dataset's mass events when they are read, and a silent site's tasks can be neither finished
twice nor claimed.
"""

from __future__ import annotations

from typing import Final

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.tables import Tables

SETTLE: Final = 1  # A dataset's records follow its mass events.
DELETE: Final = 2  # A deleted dataset's records go.
CONTROL: Final = 3  # A verb for a range of jobs.
SILENCE: Final = 4  # A silent site's tasks are taken back.
BAN: Final = 5  # A banned site's tasks are taken back.
TRUNCATE: Final = 6  # Jobs touched but never started follow a truncation.
EXTREMES: Final = 7  # Minimum and maximum of a task's statistics are found anew.


def add_sweep(t: Tables, sweep: r.SweepRecord) -> None:
    """Begin a sweep; an equal kind for the same target starts over instead of running twice."""
    for key, running in sweeps_of(t):
        same = (running.kind, running.target, running.task) == (sweep.kind, sweep.target, sweep.task)
        if same and sweep.kind != CONTROL:
            t.sweeps.put(key, sweep)
            return
    cluster = t.cluster
    assert cluster is not None
    cluster.sweeps += 1
    t.save_cluster(cluster)
    t.sweeps.put(keys.by_index(keys.SWEEP, cluster.sweeps), sweep)


def sweeps_of(t: Tables, limit: int = 4_096) -> list[tuple[bytes, r.SweepRecord]]:
    """Return the sweeps under way, oldest first."""
    return t.sweeps.under(keys.SWEEP, limit)


def drop_sweeps(t: Tables, dataset: int, kinds: tuple[int, ...]) -> None:
    """End sweeps of a dataset that have become pointless."""
    for key, sweep in sweeps_of(t):
        if sweep.target == dataset and sweep.kind in kinds:
            t.sweeps.delete(key)
