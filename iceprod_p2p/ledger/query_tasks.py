"""Queries about tasks: lists, one with everything, what a site holds, who has an attempt, why it stands still."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from iceprod_p2p.ledger import keys, rows
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.ledger.explain import explain_place
from iceprod_p2p.ledger.job import Job
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.moves import HELD, STARTED, Place
from iceprod_p2p.ledger.query_datasets import LOOK_MAX, PAGE_MAX, WIDE_TASKS, jobs_to_see, task_counts
from iceprod_p2p.ledger.query_files import files_of_task, logs_of_task
from iceprod_p2p.ledger.reading import see_place, see_task
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.resources import Usage
from iceprod_p2p.model.states import HELD_STATES, TaskState

TASK_LOOKS: Final = 2  # A task's record costs as much as two steps of a walk over jobs,
LEAP_LOOKS: Final = 4  # and a leap from one job to the next as much as four.


def tasks(
    kv: KeyValue,
    number: int,
    *,
    after: tuple[int, int] = (-1, -1),
    limit: int = 100,
    state: TaskState | None = None,
    site: str = "",
    name: str = "",
    first: int = 0,
    last: int | None = None,
) -> rows.Page[rows.TaskRow, tuple[int, int]]:
    """Return tasks of a dataset in order of (job, task), beyond `after`, within jobs `first`..`last`."""
    t = Tables(kv)
    ds = t.dataset(number)
    if ds is None or (name and name not in ds.dag.names):
        return rows.Page((), None)
    limit = min(limit, PAGE_MAX)
    end = ds.record.jobs - 1 if last is None else min(last, ds.record.jobs - 1)
    wanted = (ds.dag.names[name],) if name else tuple(range(len(ds.dag.shapes)))
    holder = t.site(site) if site else None
    if site and holder is None:
        return rows.Page((), None)
    if state is not None and not any(task_counts(ds, task)[state] for task in wanted):
        return rows.Page((), None)
    found: list[rows.TaskRow] = []
    looked, begin = 0, max(after[0], first, 0)
    complete = state in (None, TaskState.COMPLETE)
    walk = jobs_to_see(
        t, ds, begin, end, lambda job: not site and _has(job, ds.dag.everything, state), complete=complete
    )
    for job in walk:
        if looked >= LOOK_MAX:
            return rows.Page(tuple(found), (job - 1, len(ds.dag.shapes)))
        looked += LEAP_LOOKS if complete and len(ds.dag.shapes) > WIDE_TASKS else 1
        place = see_place(t, ds, job)
        mask = _mask(place.job, ds.dag.everything, state)
        for task in wanted:
            if not mask >> task & 1 or (job == after[0] and task <= after[1]):
                continue
            looked += TASK_LOOKS
            at = place.at(task)
            stored = t.tasks.get(at.key) if holder is not None else None
            if holder is not None and (stored is None or stored.site != holder.number):
                continue  # What happened to it since can only have taken it out of a site's hands.
            record = see_task(t, at)
            if (state is None or record.state is state) and (holder is None or record.site == holder.number):
                found.append(task_row(t, at, record))
                if len(found) >= limit:
                    ended = job == end and task == wanted[-1]
                    return rows.Page(tuple(found), None if ended else (job, task))
    return rows.Page(tuple(found), None)


def _mask(job: Job, everything: int, state: TaskState | None) -> int:
    """Return which tasks of a job, as bits, can be in a state: the four that a job knows itself, exactly."""
    match state:
        case None:
            return everything
        case TaskState.COMPLETE:
            return job.complete
        case TaskState.FAILED:
            return job.failed
        case TaskState.SUSPENDED:
            return job.suspended
        case TaskState.ABORTED:
            return job.aborted
        case _:
            return everything & ~(job.complete | job.failed | job.suspended | job.aborted)


def _has(untouched: Job, everything: int, state: TaskState | None) -> bool:
    """Whether tasks without records, of such a job, can be in a state."""
    if state in (None, TaskState.READY, TaskState.WAITING, TaskState.SUSPENDED, TaskState.ABORTED):
        return _mask(untouched, everything, state) != 0
    return False


def task_row(t: Tables, place: Place, record: r.TaskRecord) -> rows.TaskRow:
    """Return the row of one task."""
    ds, number, job, task = place.ds, place.ds.number, place.number, place.task
    run = t.runs.get(keys.by_task(keys.RUN, number, job, task)) if record.code in STARTED else None
    fault = (
        t.faults.get(keys.by_task(keys.FAULT, number, job, task))
        if record.failures or record.losses
        else None
    )
    if record.code == r.COMPLETE:
        fault = None
    done = record.done if record.code == r.COMPLETE else None
    host = ""
    if run is not None:
        host = run.host
    elif done is not None:
        host = (t.kv.get(keys.by_index(keys.HOST_NAME, done.host)) or b"").decode("utf-8", "replace")
    elif fault is not None:
        host = fault.host
    return rows.TaskRow(
        dataset=number,
        job=job,
        task=task,
        name=ds.dag.shapes[task].name,
        state=record.state,
        attempt=record.attempt,
        failures=record.failures,
        losses=record.losses,
        site=t.site_name(record.site) if record.site else "",
        pilot=run.pilot if run is not None else "",
        host=host,
        changed_ms=max(record.changed_ms, 0),
        started_ms=run.started_ms if run is not None else done.started_ms if done is not None else 0,
        due_ms=record.timer_ms,
        requirements=t.requirements_of(record.requirements),
        usage=done.usage if done is not None else fault.usage if fault is not None else Usage(),
        reason=fault.reason if fault is not None else None,
        message=fault.message if fault is not None else "",
        exit_code=fault.exit_code if fault is not None else 0,
    )


def find_task(kv: KeyValue, number: int, job: int, task: int | str) -> TaskRef | None:
    """Return the present attempt of a task, by its index or name; None when there is no such task."""
    t = Tables(kv)
    place = _find(t, number, job, task)
    if place is None:
        return None
    return TaskRef(number, job, place.task, see_task(t, place).attempt)


def _find(t: Tables, number: int, job: int, task: int | str) -> Place | None:
    ds = t.dataset(number) if 0 <= number < 2**32 else None
    if ds is None or not 0 <= job < ds.record.jobs:
        return None
    if isinstance(task, str):
        index = (
            int(task) if task.isascii() and task.isdigit() and len(task) < 6 else ds.dag.names.get(task, -1)
        )
    else:
        index = task
    return see_place(t, ds, job, index) if 0 <= index < len(ds.dag.shapes) else None


def task(kv: KeyValue, number: int, job: int, task: int | str) -> rows.TaskDetail | None:
    """Return everything of one task, by its index or name; None when there is no such task."""
    t = Tables(kv)
    place = _find(t, number, job, task)
    if place is None:
        return None
    record = see_task(t, place)
    why = explain_place(t, place, record)
    stands = record.code == r.COMPLETE
    counted = t.statistics.get(keys.by_task(keys.STATISTICS, number, job, place.task)) if stands else None
    return rows.TaskDetail(
        row=task_row(t, place, record),
        statistics=counted or {},
        files=files_of_task(t, place, record) if stands else (),
        logs=logs_of_task(t, place),
        explanation=why.sentence,
        remedy=why.remedy,
    )


def explain(kv: KeyValue, number: int, job: int, task: int | str) -> rows.Explanation | None:
    """Return why a task stands where it stands; None when there is no such task."""
    t = Tables(kv)
    place = _find(t, number, job, task)
    return None if place is None else explain_place(t, place, see_task(t, place))


def held_by(
    kv: KeyValue,
    site: str,
    states: Collection[TaskState] = HELD_STATES,
    *,
    after: TaskRef | None = None,
    limit: int = 1_000,
) -> rows.Page[rows.HeldTask, TaskRef]:
    """Return tasks that a site holds in these states: those not started first, each part in order of their ids.

    `after` is the last row's `ref` of the page before.  At most `limit` claims are looked at, so a page may
    have fewer rows than that, or none, before the end.
    """
    t = Tables(kv)
    record = t.site(site)
    if record is None:
        return rows.Page((), None)
    codes = {r.CODES[state] for state in states} & HELD
    stages = [stage for stage in (0, 1) if codes & (STARTED if stage else HELD - STARTED)]
    found: list[rows.HeldTask] = []
    if not stages:
        return rows.Page((), None)
    start = keys.held(record.number, stages[0], 0, 0, 0)
    if after is not None:
        at = see_task_of(t, after)
        stage = 1 if at is not None and at.code in STARTED else 0
        start = (
            keys.held(record.number, max(stage, stages[0]), after.dataset, after.job, after.task) + b"\x00"
        )
    stop = keys.held(record.number, stages[-1] + 1, 0, 0, 0)
    page = t.scan_range(start, stop, min(limit, PAGE_MAX))
    last: TaskRef | None = None
    for key, _ in page:
        dataset, job, index = keys.task_of_tail(key)
        ds = t.dataset(dataset)
        if ds is None:
            continue
        place = see_place(t, ds, job, index)
        held = see_task(t, place)
        last = TaskRef(dataset, job, index, held.attempt)
        if held.code in codes and held.site == record.number:
            found.append(_held_row(t, place, held))
    return rows.Page(tuple(found), last if len(page) == min(limit, PAGE_MAX) else None)


def see_task_of(t: Tables, ref: TaskRef) -> r.TaskRecord | None:
    """Return the task of an attempt as it is now, whatever its attempt is; None when there is no such task."""
    place = _find(t, ref.dataset, ref.job, ref.task)
    return None if place is None else see_task(t, place)


def _held_row(t: Tables, place: Place, held: r.TaskRecord) -> rows.HeldTask:
    number, job, task = place.ds.number, place.number, place.task
    run = t.runs.get(keys.by_task(keys.RUN, number, job, task)) if held.code in STARTED else None
    return rows.HeldTask(
        ref=TaskRef(number, job, task, held.attempt),
        state=held.state,
        name=place.ds.dag.shapes[task].name,
        requirements=t.requirements_of(held.requirements),
        changed_ms=held.changed_ms,
        due_ms=held.timer_ms,
        pilot=run.pilot if run is not None else "",
        host=run.host if run is not None else "",
    )


def start_record(kv: KeyValue, ref: TaskRef) -> rows.StartRecord | None:
    """Return who has an attempt and by which passkey; None when this attempt is nobody's (any more)."""
    t = Tables(kv)
    record = see_task_of(t, ref)
    if record is None or record.attempt != ref.attempt or record.code not in STARTED:
        return None
    run = t.runs.get(keys.by_task(keys.RUN, ref.dataset, ref.job, ref.task))
    if run is None:
        return None
    return rows.StartRecord(
        ref,
        record.state,
        t.site_name(record.site),
        run.passkey_id,
        run.key_id,
        run.holder,
        run.pilot,
        run.host,
        run.expires_ms,
        run.started_ms,
    )
