"""Verbs for whole datasets: one entry, whatever the number of jobs.

Counters change at once, cell by cell, by the same table that moves single tasks.  Records follow when they
are read, or when the sweep that is begun here comes by.
"""

from __future__ import annotations

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import Verb
from iceprod_p2p.ledger.counting import publish_ready, ready_of_cells, retract_ready, shift_share
from iceprod_p2p.ledger.following import after_verb, kinds_after_verb
from iceprod_p2p.ledger.limits import SITES_MAX
from iceprod_p2p.ledger.moves import note_finish
from iceprod_p2p.ledger.rules.sweeping import (
    CONTROL,
    DELETE,
    EXTREMES,
    SETTLE,
    TRUNCATE,
    add_sweep,
    drop_sweeps,
)
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.ledger.transitions import JOB_ABORTED, JOB_ACTIVE, JOB_SUSPENDED

UNTOUCHED_KINDS = {r.READY: JOB_ACTIVE, r.SUSPENDED: JOB_SUSPENDED, r.ABORTED: JOB_ABORTED}


def untouched_cell(untouched: int, *, is_root: bool) -> int:
    """Return the cell of a task that nothing ever happened to, by the dataset's `untouched`."""
    if untouched == r.READY:
        return r.READY if is_root else r.WAITING
    if untouched == r.SUSPENDED:
        return r.SUSPENDED if is_root else r.SUSPENDED_WAITING
    return r.ABORTED


def change_all(t: Tables, ds: Dataset, verb: Verb) -> None:
    """Suspend, resume, abort, or reset what failed of a whole dataset."""
    retract_ready(t, ds)
    _release_sites(t, ds, released=verb in (Verb.SUSPEND, Verb.ABORT), counted_out=False)
    for task in range(len(ds.dag.shapes)):
        for row in ds.cells(task).values():
            _change_cells(row, verb)
        ds.save_cells(task)
    kinds = ds.counts.job_kinds
    changed = [0] * len(kinds)
    for kind, count in enumerate(kinds):
        changed[kinds_after_verb(kind, verb)] += count
    ds.counts.job_kinds = changed
    ds.counts.attempt_max += 1
    epoch = ds.record.epoch + 1
    untouched = after_verb(ds.record.untouched, verb, parents_done=True)
    ds.replace(epoch=epoch, events=(*ds.record.events, r.MassEvent(epoch, verb)), untouched=untouched)
    publish_ready(t, ds, ready_of_cells(ds))
    note_finish(t, ds)
    ds.save_counts()
    add_sweep(t, r.SweepRecord(SETTLE, ds.number, epoch=epoch))


def _change_cells(row: list[int], verb: Verb) -> None:
    after = [0] * r.CELL_STATES
    for cell, count in enumerate(row):
        if not count:
            continue
        waiting = cell in (r.WAITING, r.SUSPENDED_WAITING)
        code = after_verb(
            r.SUSPENDED if cell == r.SUSPENDED_WAITING else cell, verb, parents_done=not waiting
        )
        after[r.SUSPENDED_WAITING if code == r.SUSPENDED and waiting else code] += count
    row[:] = after


def _release_sites(t: Tables, ds: Dataset, *, released: bool, counted_out: bool) -> None:
    """Take what sites hold of a dataset out of their tallies; with `counted_out`, what they completed as well."""
    if not (released or counted_out):
        return
    prefix = keys.by_dataset(keys.DATASET_SITE, ds.number)
    for key, mine in t.site_tallies.under(prefix, SITES_MAX + 1):
        all_key = keys.by_number(keys.SITE_TALLY, keys.number_of(key, 5, 2))
        total = t.site_tallies.get(all_key)
        assert total is not None
        for field in ("claimed", "queued", "processing", "copying", *(("complete",) if counted_out else ())):
            setattr(total, field, getattr(total, field) - getattr(mine, field))
            setattr(mine, field, 0)
        t.site_tallies.put(all_key, total)
        if counted_out:
            t.site_tallies.delete(key)
        else:
            t.site_tallies.put(key, mine)
    if ds.counts.held_cpus:
        shift_share(t, ds, held_cpus=-ds.counts.held_cpus)


def reset_all(t: Tables, ds: Dataset) -> None:
    """Start a dataset anew: every record, result, statistic and file of it is void from now on."""
    _forget_counts(t, ds)
    epoch = ds.record.epoch + 1
    ds.replace(
        epoch=epoch,
        reset_epoch=epoch,
        events=(),
        untouched=r.READY,
        truncated_at=-1,
        attempt_base=ds.counts.attempt_max + 1,
    )
    counts = ds.counts
    counts.attempt_max = ds.record.attempt_base
    counts.touched = 0
    counts.watermarks = [0] * len(counts.watermarks)
    counts.job_kinds = [0] * 16
    count_untouched(t, ds, ds.record.jobs)
    add_sweep(t, r.SweepRecord(SETTLE, ds.number, epoch=epoch))


def delete_all(t: Tables, ds: Dataset) -> None:
    """Forget a dataset: it is gone from every view at once, its records go in pages."""
    _forget_counts(t, ds)
    if ds.record.alias:
        t.numbers.delete(keys.by_name(keys.ALIAS, ds.record.alias))
    drop_sweeps(t, ds.number, (SETTLE,))
    ds.replace(deleted=True)
    t.forget_dataset(ds.number)
    add_sweep(t, r.SweepRecord(DELETE, ds.number))


def _forget_counts(t: Tables, ds: Dataset) -> None:
    """Take everything a dataset counts for out of all counters and tallies."""
    drop_sweeps(t, ds.number, (CONTROL, TRUNCATE, EXTREMES))
    retract_ready(t, ds)
    _release_sites(t, ds, released=True, counted_out=True)
    for task in range(len(ds.dag.shapes)):
        ds.cells(task).clear()
        ds.save_cells(task)
        t.tallies.delete(keys.by_dataset_part(keys.TALLY, ds.number, task))


def count_untouched(t: Tables, ds: Dataset, jobs: int) -> None:
    """Count `jobs` further jobs in that nothing has happened to yet."""
    record = ds.record
    if jobs:
        ready: dict[int, int] = {}
        for task, requirements in enumerate(record.requirements):
            cell = untouched_cell(record.untouched, is_root=not ds.dag.parents[task])
            row = ds.cells(task).setdefault(requirements, [0] * r.CELL_STATES)
            row[cell] += jobs
            ds.save_cells(task)
            if cell == r.READY:
                ready[requirements] = ready.get(requirements, 0) + jobs
        publish_ready(t, ds, ready)
        ds.counts.job_kinds[UNTOUCHED_KINDS[record.untouched]] += jobs
    note_finish(t, ds)
    ds.save_counts()


def truncate_all(t: Tables, ds: Dataset) -> int:
    """Let jobs that have not started never start; returns how many had no record."""
    record, counts = ds.record, ds.counts
    untouched = record.jobs - counts.touched
    retract_ready(t, ds)
    for task, requirements in enumerate(record.requirements):
        cell = untouched_cell(record.untouched, is_root=not ds.dag.parents[task])
        row = ds.cells(task).setdefault(requirements, [0] * r.CELL_STATES)
        row[cell] -= untouched
        row[r.ABORTED] += untouched
        ds.save_cells(task)
    counts.job_kinds[UNTOUCHED_KINDS[record.untouched]] -= untouched
    counts.job_kinds[JOB_ABORTED] += untouched
    ds.replace(truncated_at=max(counts.watermarks, default=0))
    publish_ready(t, ds, ready_of_cells(ds))
    note_finish(t, ds)
    ds.save_counts()
    add_sweep(t, r.SweepRecord(TRUNCATE, ds.number))
    return untouched
