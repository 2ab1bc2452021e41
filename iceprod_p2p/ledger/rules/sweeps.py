"""Carrying out sweeps: each tick gives every sweep under way an equal part of one page."""

from __future__ import annotations

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import Verb
from iceprod_p2p.ledger.job import Job
from iceprod_p2p.ledger.limits import SWEEPS_AT_ONCE
from iceprod_p2p.ledger.moves import Place, fresh_task, read_job, read_task, remove_file, remove_task, store
from iceprod_p2p.ledger.rules.blobs import release_dataset_blobs
from iceprod_p2p.ledger.rules.jobs import control_job
from iceprod_p2p.ledger.rules.leases import is_silent, take_back_from_silent
from iceprod_p2p.ledger.rules.sweeping import (
    BAN,
    CONTROL,
    DELETE,
    EXTREMES,
    SETTLE,
    SILENCE,
    TRUNCATE,
    sweeps_of,
)
from iceprod_p2p.ledger.tables import Dataset, Tables

Step = tuple[
    r.SweepRecord | None, int
]  # What is left of a sweep (None: nothing), and what this part of it cost.


def advance_sweeps(t: Tables, budget: int) -> None:
    """Carry sweeps on by about `budget` records."""
    running = sweeps_of(t, SWEEPS_AT_ONCE)
    for index, (key, sweep) in enumerate(running):
        if t.sweeps.get(key) is None:
            continue  # An earlier one ended it.
        share = budget // (len(running) - index)
        left, cost = _STEPS[sweep.kind](t, sweep, share)
        budget -= min(cost, budget)
        if left is None:
            t.sweeps.delete(key)
        else:
            t.sweeps.put(key, left)


def _at(sweep: r.SweepRecord, cursor: bytes) -> r.SweepRecord:
    return msgspec.structs.replace(sweep, cursor=cursor)


def _page(t: Tables, prefix: bytes, cursor: bytes, limit: int) -> list[bytes]:
    """Return up to `limit` keys with this prefix, after the cursor if that has this prefix as well."""
    t.flush_records()
    after = cursor if cursor.startswith(prefix) else b""
    return [key for key, _ in t.scan_keys(prefix, limit, after=after)]


def _settle(t: Tables, sweep: r.SweepRecord, budget: int) -> Step:
    """Let a dataset's records follow its mass events; once all have, the events are forgotten."""
    ds = t.dataset(sweep.target)
    if ds is None:
        return None, 0
    tasks = keys.by_dataset(keys.TASK, ds.number)
    jobs = keys.by_dataset(keys.JOB, ds.number)
    if not sweep.cursor.startswith(jobs):
        page = _page(t, tasks, sweep.cursor, budget)
        for key in page:
            _, number, task = keys.task_of(key)
            read_task(t, Place(ds, number, read_job(t, ds, number), task))
        return _at(sweep, page[-1] if len(page) == budget else jobs), len(page)
    page = _page(t, jobs, sweep.cursor, budget)
    for key in page:
        read_job(t, ds, keys.number_of(key, 5, 4))
    if len(page) == budget:
        return _at(sweep, page[-1]), len(page)
    if ds.record.epoch == sweep.epoch:
        ds.replace(events=())
    return None, len(page)


_DATASET_TABLES = (
    keys.JOB,
    keys.FILE,
    keys.COPIES,
    keys.TALLY,
    keys.CELLS,
    keys.DATASET_SITE,
    keys.TRANSFER,
    keys.READY,
)


def _delete(t: Tables, sweep: r.SweepRecord, budget: int) -> Step:
    """Remove the records of a deleted dataset: its tasks with all that belongs to them, then the rest."""
    ds = t.dataset_even_deleted(sweep.target)
    if ds is None:
        return None, 0
    page = _page(t, keys.by_dataset(keys.TASK, ds.number), sweep.cursor, budget)
    for key in page:
        _, number, task = keys.task_of(key)
        record = t.tasks.get(key)
        assert record is not None
        remove_task(t, Place(ds, number, Job(0), task), record)
    cost = len(page)
    if cost == budget:
        return _at(sweep, page[-1]), cost
    for key, entry in t.files.under(keys.by_dataset(keys.FILE, ds.number), budget - cost):
        remove_file(t, key, entry)
        cost += 1
    t.flush_records()
    for table in _DATASET_TABLES:
        for key, _ in t.scan_keys(keys.by_dataset(table, ds.number), budget - cost):
            t.kv.delete(key)
            cost += 1
        if cost >= budget:
            return sweep, cost
    release_dataset_blobs(t, ds.number)
    for table in (keys.COUNTS, keys.SHAPES, keys.DATASET):
        t.kv.delete(keys.by_dataset(table, ds.number))
    t.forget_dataset(ds.number)
    return None, cost


def _control(t: Tables, sweep: r.SweepRecord, budget: int) -> Step:
    """Apply a verb to the next jobs of a range."""
    ds = t.dataset(sweep.target)
    assert sweep.verb is not None
    if ds is None or (sweep.verb is Verb.RESET and ds.record.untouched == r.ABORTED):
        return None, 0
    number, cost = sweep.first_job, 0
    last = min(sweep.last_job, ds.record.jobs - 1)
    while number <= last and cost < budget:
        cost += 1 + control_job(t, ds, number, sweep.verb, sweep.task)
        number += 1
    return (msgspec.structs.replace(sweep, first_job=number) if number <= last else None), cost


def _silence(t: Tables, sweep: r.SweepRecord, budget: int) -> Step:
    """Take back what a silent or banned site holds."""
    name = t.site_name(sweep.target)
    site = t.site(name)
    if site is None or not is_silent(t, site):
        return None, 0  # It was heard of again: what it still holds stays with it.
    page = _page(t, keys.by_number(keys.HELD, sweep.target), sweep.cursor, budget)
    why = f"site {name} was banned" if sweep.kind == BAN else f"site {name} went silent"
    for key in page:
        take_back_from_silent(t, *keys.task_of_tail(key), sweep.target, why=why)
    return (_at(sweep, page[-1]) if len(page) == budget else None), len(page)


def _truncate(t: Tables, sweep: r.SweepRecord, budget: int) -> Step:
    """Abort jobs beyond a truncation that have records but never started; let started ones finish."""
    ds = t.dataset(sweep.target)
    if ds is None or ds.record.truncated_at < 0:
        return None, 0
    start = keys.by_job(keys.JOB, ds.number, ds.record.truncated_at)
    t.flush_records()
    prefix = keys.by_dataset(keys.JOB, ds.number)
    page = t.scan_range(max(start, sweep.cursor + b"\x00"), keys.prefix_stop(prefix), max(budget // 4, 1))
    cost = 0
    for key, _ in page:
        cost += 1 + _truncate_job(t, ds, keys.number_of(key, 5, 4))
    return (_at(sweep, page[-1][0]) if len(page) == max(budget // 4, 1) else None), cost


def _truncate_job(t: Tables, ds: Dataset, number: int) -> int:
    first = Place(ds, number, read_job(t, ds, number), 0)
    if not first.job.touched:
        return 0
    records = [(first.at(task), read_task(t, first.at(task))) for task in range(len(ds.dag.shapes))]
    if not any(_has_started(record) for _, record in records):
        return control_job(t, ds, number, Verb.ABORT)
    changed = 0
    for place, record in records:
        if record.code == r.READY and record.changed_ms == r.NEVER:
            # The watermark stops at the truncation, so this task must stand in the ready index.
            store(t, place, record, msgspec.structs.replace(fresh_task(place), changed_ms=t.now_ms))
            changed += 1
    return changed


def _has_started(record: r.TaskRecord) -> bool:
    idle = (r.WAITING, r.READY, r.SUSPENDED, r.ABORTED)
    return record.code not in idle or bool(record.failures or record.losses)


def _extremes(t: Tables, sweep: r.SweepRecord, budget: int) -> Step:
    """Find minimum and maximum of a task's statistics anew, from the results that are left."""
    ds = t.dataset(sweep.target)
    if ds is None:
        return None, 0
    key = keys.by_dataset_part(keys.TALLY, ds.number, sweep.task)
    tallies = t.tallies.get(key)
    if tallies is None:
        return None, 0
    if not sweep.cursor:
        for tally in tallies.values():
            tally.forget_extremes()
    prefix = keys.by_dataset(keys.STATISTICS, ds.number)
    page = _page(t, prefix, sweep.cursor, budget)
    for found in page:
        record = t.tasks.get(keys.TASK + found[1:])
        stands = record is not None and record.epoch >= ds.record.reset_epoch
        if stands and keys.task_of(found)[2] == sweep.task:
            for name, value in sorted((t.statistics.get(found) or {}).items()):
                tallies[name].widen(value)
    t.tallies.put(key, tallies)
    return (_at(sweep, page[-1]) if len(page) == budget else None), len(page)


_STEPS = {
    SETTLE: _settle,
    DELETE: _delete,
    CONTROL: _control,
    SILENCE: _silence,
    BAN: _silence,
    TRUNCATE: _truncate,
    EXTREMES: _extremes,
}
