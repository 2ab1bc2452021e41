"""Verbs for single jobs and tasks: suspend, resume, reset, abort.

A job above the watermark gets records for itself alone.  Resetting a task resets what was made from it: its
descendants wait again, and their results, files and statistics no longer count.
"""

from __future__ import annotations

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import ControlTasks, Verb
from iceprod_p2p.ledger.counting import shift_cell
from iceprod_p2p.ledger.limits import CONTROL_AT_ONCE
from iceprod_p2p.ledger.moves import NEXT, Place, move, read_job, read_task, remove_files
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, find_dataset, may_change
from iceprod_p2p.ledger.rules.closing import why_futile
from iceprod_p2p.ledger.rules.statistics import uncount_statistics
from iceprod_p2p.ledger.rules.sweeping import CONTROL, EXTREMES, add_sweep
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.model.states import TaskEvent

FILES_LOOK = 4_096  # Of one job.
_VERBS = (Verb.SUSPEND, Verb.RESUME, Verb.RESET, Verb.RESET_FAILED, Verb.ABORT)


def control_tasks(t: Tables, command: ControlTasks, asked: Asked) -> Outcome:
    """Apply a verb to a range of jobs, or to one task of each; a long range is carried out by later ticks."""
    ds = find_dataset(t, command.dataset)
    if isinstance(ds, Refused):
        return ds
    refusal = may_change(t, asked, ds.record)
    if refusal is not None:
        return refusal
    if ds.record.futile:
        return Refused(Refusal.WRONG_STATE, why_futile(t, ds))
    if ds.record.gated:
        return Refused(
            Refusal.WRONG_STATE, f"dataset {ds.number} waits until dataset {ds.record.follows} is complete"
        )
    if command.verb not in _VERBS:
        return Refused(Refusal.NOT_ALLOWED, f"{command.verb} is for whole datasets")
    first, last = command.first_job, command.last_job
    if not first <= last < ds.record.jobs:
        return Refused(
            Refusal.NOT_FOUND, f"dataset {ds.number} has no jobs {first} to {last}: it has {ds.record.jobs}"
        )
    if command.task >= len(ds.dag.shapes):
        return Refused(Refusal.NOT_FOUND, f"dataset {ds.number} has no task {command.task}")
    if command.verb is Verb.RESET and ds.record.untouched == r.ABORTED:
        return Refused(Refusal.WRONG_STATE, f"dataset {ds.number} is aborted: reset the dataset")
    tasks = (last - first + 1) * (1 if command.task >= 0 else len(ds.dag.shapes))
    if tasks > CONTROL_AT_ONCE and last > first:
        sweep = r.SweepRecord(
            CONTROL, ds.number, verb=command.verb, first_job=first, last_job=last, task=command.task
        )
        add_sweep(t, sweep)
        return Applied((f"{command.verb} of jobs {first} to {last} has begun",))
    changed = sum(control_job(t, ds, number, command.verb, command.task) for number in range(first, last + 1))
    return Applied((f"{changed} {'task' if changed == 1 else 'tasks'} changed",))


def control_job(t: Tables, ds: Dataset, number: int, verb: Verb, task: int = -1) -> int:
    """Apply a verb to a job, or to one of its tasks; returns how many tasks it changed."""
    everything = Place(ds, number, read_job(t, ds, number), 0)
    tasks = range(len(ds.dag.shapes)) if task < 0 else range(task, task + 1)
    if verb is Verb.RESET:
        return _reset(t, everything, tasks)
    changed = 0
    for index in tasks:
        place = everything.at(index)
        record = read_task(t, place)
        if verb is Verb.RESET_FAILED:
            if record.code != r.FAILED:
                continue
            move(t, place, record, TaskEvent.RESET, failures=0, losses=0)
        else:
            event = TaskEvent(verb.value)
            if NEXT[event][record.code] < 0:
                continue
            move(t, place, record, event)
        changed += 1
    return changed


def _reset(t: Tables, job: Place, tasks: range) -> int:
    """Reset tasks of one job, and their descendants, in the order of the DAG."""
    ds = job.ds
    asked = sum(1 << task for task in tasks)
    affected, made_again = _with_what_they_need(t, job, asked)
    asked |= made_again
    before = []
    for task in range(len(ds.dag.shapes)):
        if affected >> task & 1:
            place = job.at(task)
            before.append((place, read_task(t, place), place.parents_done()))
    changed = 0
    for place, record, was_done in before:
        if record.code == r.SUSPENDED and was_done and not place.parents_done():
            shift_cell(t, ds, place.task, record.requirements, r.SUSPENDED, -1)
            shift_cell(t, ds, place.task, record.requirements, r.SUSPENDED_WAITING, 1)
        if not asked >> place.task & 1 and record.code in (r.SUSPENDED, r.ABORTED):
            continue
        if _is_as_new(place, record):
            continue
        _reset_task(t, place, record)
        changed += 1
    return changed


def _with_what_they_need(t: Tables, job: Place, asked: int) -> tuple[int, int]:
    """Return all tasks that have to run again with the asked ones, and those of them whose files are gone.

    Descendants are made from new files; parents run again when no site has what they wrote any more.
    """
    dag = job.ds.dag
    gone = 0
    for key, record in t.files.under(keys.files_of(keys.FILE, job.ds.number, job.number), FILES_LOOK):
        copies = t.copies.get(keys.COPIES + key[1:])
        if copies is not None and not copies.copies and record.attempt >= job.ds.record.attempt_base:
            gone |= 1 << record.task
    affected, made_again, front = 0, 0, asked
    while front:
        affected |= front
        for task, below in enumerate(dag.descendants):
            if front >> task & 1:
                affected |= below
        parents = 0
        for task, above in enumerate(dag.parents):
            if affected >> task & 1:
                parents |= above
        front = parents & gone & ~affected
        made_again |= front
    return affected, made_again


def _is_as_new(place: Place, record: r.TaskRecord) -> bool:
    if record.code == r.READY:
        tried = record.failures or record.losses
        return record.changed_ms == r.NEVER or (place.parents_done() and not tried)
    return record.code == r.WAITING


def _reset_task(t: Tables, place: Place, record: r.TaskRecord) -> None:
    ds = place.ds
    if record.code == r.COMPLETE and uncount_statistics(t, place):
        add_sweep(t, r.SweepRecord(EXTREMES, ds.number, task=place.task))
    remove_files(t, place, record)
    t.faults.delete(keys.by_task(keys.FAULT, ds.number, place.number, place.task))
    after = move(
        t,
        place,
        record,
        TaskEvent.RESET,
        failures=0,
        losses=0,
        flags=0,
        done=None,
        requirements=ds.record.requirements[place.task],
    )
    if ds.record.untouched == r.SUSPENDED:
        move(t, place, after, TaskEvent.SUSPEND)
