"""Counters kept by the rules, so that no view and no claim ever has to count.

A *cell* counts the jobs whose task (one vertex of the DAG) is in one state at one requirement class; every
count shown is a sum of cells.  From the cells of `ready` follow the index of datasets with ready tasks of a
class (`ACTIVE`) and how many tasks of a class are ready anywhere.  Sites have tallies, per dataset and in
all; groups and owners have shares.
"""

from __future__ import annotations

from typing import Final

from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.limits import SHARE_PERIOD_MS
from iceprod_p2p.ledger.tables import Dataset, Tables

HELD_WEIGHT_S: Final = 3_600  # A cpu held now counts like one that was used for this long.
HELD_FIELDS = {
    r.CLAIMED: "claimed",
    r.QUEUED: "queued",
    r.PROCESSING: "processing",
    r.COPYING: "copying",
    r.COMPLETE: "complete",
}


def shift_cell(t: Tables, ds: Dataset, task: int, requirements: int, cell: int, delta: int) -> None:
    """Add `delta` jobs to one cell, and to what follows from it."""
    cells = ds.cells(task)
    row = cells.get(requirements)
    if row is None:
        row = cells[requirements] = [0] * r.CELL_STATES
    count = row[cell] = row[cell] + delta
    if not count and not any(row):
        del cells[requirements]
    ds.save_cells(task)
    if cell == r.READY:
        shift_ready(t, ds, requirements, delta)


def shift_ready(t: Tables, ds: Dataset, requirements: int, delta: int) -> None:
    """Note that `delta` more tasks of a class are ready in a dataset."""
    ready = ds.counts.ready
    before = ready.get(requirements, 0)
    after = before + delta
    if after:
        ready[requirements] = after
    else:
        ready.pop(requirements, None)
    ds.save_counts()
    if (before == 0) is not (after == 0):
        t.set_active(requirements, ds.record.priority, ds.number, active=after != 0)
    t.shift_ready_class(requirements, delta)


def retract_ready(t: Tables, ds: Dataset) -> dict[int, int]:
    """Take a dataset's ready tasks out of the indexes of classes, and return what was there."""
    was = dict(ds.counts.ready)
    for requirements, count in sorted(was.items()):
        shift_ready(t, ds, requirements, -count)
    return was


def publish_ready(t: Tables, ds: Dataset, ready: dict[int, int]) -> None:
    """Put ready tasks of a dataset into the indexes of classes."""
    for requirements, count in sorted(ready.items()):
        if count:
            shift_ready(t, ds, requirements, count)


def ready_of_cells(ds: Dataset) -> dict[int, int]:
    """Sum the ready tasks of each class over the dataset's cells."""
    ready: dict[int, int] = {}
    for task in range(len(ds.dag.shapes)):
        for requirements, row in ds.cells(task).items():
            ready[requirements] = ready.get(requirements, 0) + row[r.READY]
    return ready


def shift_site(t: Tables, ds: Dataset, site: int, *, less: str = "", more: str = "") -> None:
    """Count one task less, and one more, of a site: in all, and for this dataset."""
    table = t.site_tallies
    for key in ds.site_keys(site):
        tally = table.get(key)
        if tally is None:
            tally = r.SiteTally()
        if less:
            setattr(tally, less, getattr(tally, less) - 1)
        if more:
            setattr(tally, more, getattr(tally, more) + 1)
        table.put(key, tally)


def shift_share(t: Tables, ds: Dataset, *, held_cpus: int = 0, used_cpu_s: int = 0) -> None:
    """Note what the dataset's group and owner hold more or less now, and what they used."""
    table, period = t.shares, t.now_ms // SHARE_PERIOD_MS
    for key in ds.share_keys:
        share = table.get(key)
        if share is None:
            share = r.ShareRecord(period=period)
        elif share.period != period:
            share.used_cpu_s >>= min(period - share.period, 63)
            share.period = period
        share.held_cpus += held_cpus
        share.used_cpu_s += used_cpu_s
        table.put(key, share)
    if held_cpus:
        ds.counts.held_cpus += held_cpus
        ds.save_counts()


def load(t: Tables, key: bytes) -> int:
    """Return what a group or owner holds and used lately, in cpu seconds: past use counts half after each period."""
    share = t.shares.get(key)
    if share is None:
        return 0
    periods = t.now_ms // SHARE_PERIOD_MS - share.period
    return share.held_cpus * HELD_WEIGHT_S + (share.used_cpu_s >> min(periods, 63))
