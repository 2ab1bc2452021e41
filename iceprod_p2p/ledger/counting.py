"""Counters kept by the rules, so that no view and no claim ever has to count.

A *cell* counts the jobs whose task (one vertex of the DAG) is in one state at one requirement class; every
count shown is a sum of cells.  From the cells of `ready` follow the index of datasets with ready tasks of a
class (`ACTIVE`) and how many tasks of a class are ready anywhere.  Sites have tallies, per dataset and in
all; groups and owners have shares.
"""

from __future__ import annotations

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.limits import SHARE_PERIOD_MS
from iceprod_p2p.ledger.tables import Dataset, Tables

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
    row[cell] += delta
    if row[cell] == 0 and not any(row):
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
    if not before or not after:
        key = keys.active(requirements, ds.record.priority, ds.number)
        if after:
            t.kv.put(key, b"")
        elif before:
            t.kv.delete(key)
    total_key = keys.by_number(keys.REQUIREMENTS_READY, requirements)
    total = (t.numbers.get(total_key) or 0) + delta
    if total:
        t.numbers.put(total_key, total)
    else:
        t.numbers.delete(total_key)


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


def shift_site(t: Tables, ds: Dataset, site: int, field: str, delta: int) -> None:
    """Add `delta` to one count of a site: in all, and for this dataset."""
    for table_key in (
        keys.by_number(keys.SITE_TALLY, site),
        keys.by_dataset_part(keys.DATASET_SITE, ds.number, site),
    ):
        tally = t.site_tallies.get(table_key)
        if tally is None:
            tally = r.SiteTally()
        setattr(tally, field, getattr(tally, field) + delta)
        t.site_tallies.put(table_key, tally)


def shift_share(t: Tables, ds: Dataset, *, held_cpus: int = 0, used_cpu_s: int = 0) -> None:
    """Note what the dataset's group and owner hold more or less now, and what they used."""
    for key in share_keys(ds.record):
        share = current_share(t, key)
        t.shares.put(
            key,
            r.ShareRecord(share.held_cpus + held_cpus, share.used_cpu_s + used_cpu_s, share.period),
        )
    if held_cpus:
        ds.counts.held_cpus += held_cpus
        ds.save_counts()


def share_keys(record: r.DatasetRecord) -> tuple[bytes, bytes]:
    """The keys of the shares that a dataset counts for: its group's and its owner's."""
    return keys.by_name(keys.SHARE, "g" + record.group), keys.by_name(keys.SHARE, "o" + record.owner)


def current_share(t: Tables, key: bytes) -> r.ShareRecord:
    """Return a share with its past use halved once for each period that has gone by."""
    share = t.shares.get(key) or r.ShareRecord()
    period = t.now_ms // SHARE_PERIOD_MS
    if share.period == period:
        return share
    return msgspec.structs.replace(
        share, used_cpu_s=share.used_cpu_s >> min(period - share.period, 63), period=period
    )
