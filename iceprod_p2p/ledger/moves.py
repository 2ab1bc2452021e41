"""How a task's record, its indexes and every counter move together.

`read_task` gives a task as it is now, whether it has a record or not, and after every mass event that its
record has not followed yet.  `move` applies one event by the transition table.  The index entries that a
record owns follow from the record alone (`_reindex`), so they cannot drift from it.  Callers look first and
move once nothing can be refused any more.
"""

from __future__ import annotations

from typing import Final

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.counting import HELD_FIELDS, shift_cell, shift_share, shift_site
from iceprod_p2p.ledger.following import follow_job, follow_task
from iceprod_p2p.ledger.job import Job, group
from iceprod_p2p.ledger.limits import LOCALITY_MS
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.ledger.transitions import TASK
from iceprod_p2p.model.states import TaskEvent

replace = msgspec.structs.replace
_encode: Final = msgspec.msgpack.Encoder().encode

HELD: Final = frozenset((r.CLAIMED, r.QUEUED, r.PROCESSING, r.COPYING))
STARTED: Final = frozenset((r.PROCESSING, r.COPYING))
NEXT: Final = {
    event: tuple(r.CODES[TASK[state, event]] if (state, event) in TASK else -1 for state in r.STATES)
    for event in TaskEvent
}


class Place:
    """One task of one job (of this `number`), with its dataset and job in hand; `tail` ends the keys of its records."""

    __slots__ = ("ds", "job", "number", "tail", "task")

    def __init__(self, ds: Dataset, number: int, job: Job, task: int) -> None:
        self.ds = ds
        self.number = number
        self.job = job
        self.task = task
        self.tail = keys.tail(ds.number, number, task)

    @property
    def key(self) -> bytes:
        """The key of its record."""
        return keys.TASK + self.tail

    def at(self, task: int) -> Place:
        """Another task of the same job."""
        return Place(self.ds, self.number, self.job, task)

    def parents_done(self) -> bool:
        """Whether every parent is complete."""
        return not self.ds.dag.parents[self.task] & ~self.job.complete


def read_job(t: Tables, ds: Dataset, number: int) -> Job:
    """Return a job as it is now. It must exist (0 <= number < jobs)."""
    key = keys.by_job(keys.JOB, ds.number, number)
    job = t.jobs.get(key)
    record = ds.record
    if job is not None:
        if job.epoch >= record.reset_epoch:
            if job.epoch != record.epoch:
                follow_job(record, job, ds.dag.everything)
                t.jobs.put(key, job)
            return job
        t.jobs.delete(key)
    first = t.tasks.get(keys.by_task(keys.TASK, ds.number, number, 0))
    if first is not None and first.epoch >= record.reset_epoch:
        return Job(record.epoch, complete=ds.dag.everything)
    return untouched_job(ds, number)


def untouched_job(ds: Dataset, number: int) -> Job:
    """Return what a job is that nothing ever happened to."""
    record, everything = ds.record, ds.dag.everything
    code = r.ABORTED if 0 <= record.truncated_at <= number else record.untouched
    return Job(
        record.epoch,
        suspended=everything if code == r.SUSPENDED else 0,
        aborted=everything if code == r.ABORTED else 0,
        touched=False,
    )


def read_task(t: Tables, place: Place) -> r.TaskRecord:
    """Return a task as it is now; one without a record has `changed_ms` NEVER."""
    return _read_task(t, place, parents_done=place.parents_done())


def _read_task(t: Tables, place: Place, *, parents_done: bool) -> r.TaskRecord:
    record = t.tasks.get(place.key)
    if record is None:
        return fresh_task(place)
    ds = place.ds.record
    if record.epoch == ds.epoch or (not ds.events and record.epoch >= ds.reset_epoch):
        return record
    return settle(t, place, record, parents_done=parents_done)


def fresh_task(place: Place) -> r.TaskRecord:
    """Return what a task is that nothing ever happened to."""
    ds, job, bit = place.ds, place.job, 1 << place.task
    if job.suspended & bit:
        code = r.SUSPENDED
    elif job.aborted & bit:
        code = r.ABORTED
    else:
        code = r.WAITING if ds.dag.parents[place.task] else r.READY
    return r.TaskRecord(
        code, ds.record.attempt_base, ds.record.epoch, ds.record.requirements[place.task], changed_ms=r.NEVER
    )


def settle(t: Tables, place: Place, record: r.TaskRecord, *, parents_done: bool) -> r.TaskRecord:
    """Let a record follow the mass events since its epoch: its indexes change, the counters did so at once.

    `parents_done` is as it was at those events.
    """
    ds = place.ds
    followed = follow_task(ds.record, record, parents_done=parents_done)
    if followed is record:
        return record
    if followed is None:
        remove_task(t, place, record)
        return fresh_task(place)
    if record.code in STARTED:
        t.runs.delete(keys.RUN + place.tail)
    _reindex(t, place, record, followed)
    t.tasks.put(place.key, followed)
    return followed


def remove_task(t: Tables, place: Place, record: r.TaskRecord) -> None:
    """Remove a task's record and all that belongs to it, without counting: it was counted out before."""
    _unindex(t, place, record)
    t.runs.delete(keys.RUN + place.tail)
    t.faults.delete(keys.FAULT + place.tail)
    t.statistics.delete(keys.STATISTICS + place.tail)
    remove_files(t, place, record)
    t.tasks.delete(place.key)


def remove_files(t: Tables, place: Place, record: r.TaskRecord) -> None:
    """Remove the records of what a task wrote: its outputs and its logs."""
    number, job, task = place.ds.number, place.number, place.task
    for key, _ in t.logs.under(keys.by_task(keys.LOG, number, job, task), 4_096):
        t.logs.delete(key)
    if record.done is None:
        return
    for key, entry in t.files.under(keys.files_of(keys.FILE, number, job), 1 << 20):
        if entry.task == task:
            remove_file(t, key, entry)
    for name in record.done.shared:
        key = keys.file(keys.FILE, number, -1, name)
        entry_or_none = t.files.get(key)
        if entry_or_none is not None and (entry_or_none.job, entry_or_none.task) == (job, task):
            remove_file(t, key, entry_or_none)


def remove_file(t: Tables, key: bytes, entry: r.FileRecord) -> None:
    """Remove one file record and what points to it."""
    t.files.delete(key)
    t.copies.delete(keys.COPIES + key[1:])
    t.kv.delete(keys.CONTENT + entry.sha256[:16] + key[1:])


def move(
    t: Tables, place: Place, old: r.TaskRecord, event: TaskEvent, **changes: int | r.Done | None
) -> r.TaskRecord:
    """Apply one event that the table allows; returns the new record. `changes` are further fields.

    Leaving a site's hands raises the attempt, so the passkey of the old one is worthless; a task that becomes
    complete lets its children go.
    """
    code = NEXT[event][old.code]
    assert code >= 0, f"{event} while {old.state}"
    if code == r.WAITING and place.parents_done():
        code = NEXT[TaskEvent.PARENTS_DONE][code]
    fields: dict[str, int | r.Done | None] = {
        "code": code,
        "changed_ms": t.progress.time_ms,
        "epoch": place.ds.record.epoch,
        "home": 0,
        "home_until_ms": 0,
    }
    if code not in HELD:
        fields["timer_ms"] = 0
        if code != r.COMPLETE:
            fields["site"] = 0
            if old.code in HELD or event is TaskEvent.RESET:
                fields["attempt"] = _raise_attempt(place.ds, old.attempt)
    if old.code in STARTED and code not in STARTED:
        t.runs.delete(keys.RUN + place.tail)
    new = replace(old, **fields | changes)
    store(t, place, old, new)
    if code == r.COMPLETE:
        release_children(t, place, new)
    return new


def _raise_attempt(ds: Dataset, attempt: int) -> int:
    attempt += 1
    if attempt > ds.counts.attempt_max:
        ds.counts.attempt_max = attempt
        ds.save_counts()
    return attempt


def store(t: Tables, place: Place, old: r.TaskRecord, new: r.TaskRecord) -> None:
    """Replace a task's record; indexes and counters follow."""
    ds, job, task = place.ds, place.job, place.task
    was, now = old.code, new.code
    if was != now or old.requirements != new.requirements:
        shift_cell(t, ds, task, old.requirements, _cell(place, was), -1)
        shift_cell(t, ds, task, new.requirements, _cell(place, now), 1)
        if not job.touched or group(was) != group(now):
            _move_job(t, place, now)
    elif not job.touched:
        _move_job(t, place, now)
    if was != now or old.site != new.site:
        _move_site(t, ds, old, new)
    _reindex(t, place, old, new)
    t.tasks.put(place.key, new)


def _cell(place: Place, code: int) -> int:
    return r.SUSPENDED_WAITING if code == r.SUSPENDED and not place.parents_done() else code


def _move_job(t: Tables, place: Place, code: int) -> None:
    ds, job, kinds = place.ds, place.job, place.ds.counts.job_kinds
    before = job.kinds(ds.dag.everything)
    if not job.touched:
        job.touched = True
        ds.counts.touched += 1
    job.set(1 << place.task, code)
    after = job.kinds(ds.dag.everything)
    key = keys.by_job(keys.JOB, ds.number, place.number)
    if after:
        t.jobs.put(key, job)
    else:
        t.jobs.delete(key)
    if before != after:
        kinds[before] -= 1
        kinds[after] += 1
        note_finish(t, ds)
    ds.save_counts()


def note_finish(t: Tables, ds: Dataset) -> None:
    """Keep the time at which nothing was left to do in a dataset; note that it moved, if another follows it."""
    if ds.record.closing:
        t.followed.add(ds.number)
    kinds = ds.counts.job_kinds
    unfinished = sum(kinds[1:8])
    if unfinished or not ds.record.jobs:
        ds.counts.finished_ms = 0
    elif not ds.counts.finished_ms:
        ds.counts.finished_ms = max(t.now_ms, 1)


def _move_site(t: Tables, ds: Dataset, old: r.TaskRecord, new: r.TaskRecord) -> None:
    was, now = HELD_FIELDS.get(old.code, ""), HELD_FIELDS.get(new.code, "")
    if was and now and old.site == new.site:
        shift_site(t, ds, new.site, less=was, more=now)
    else:
        if was:
            shift_site(t, ds, old.site, less=was)
        if now:
            shift_site(t, ds, new.site, more=now)
    held_before, held_after = old.code in HELD, new.code in HELD
    if held_before != held_after:
        cpus = t.requirements_of(new.requirements if held_after else old.requirements).cpus
        shift_share(t, ds, held_cpus=cpus if held_after else -cpus)


def release_children(t: Tables, place: Place, parent: r.TaskRecord) -> None:
    """Tell the children of a complete task; those with no other unfinished parent become ready."""
    for child in place.ds.dag.children[place.task]:
        below = place.at(child)
        if not below.parents_done():
            continue
        record = _read_task(t, below, parents_done=False)  # As it was until now.
        if record.code == r.WAITING:
            if _can_run(t, parent.site, record.requirements):
                until_ms = t.now_ms + LOCALITY_MS
                move(t, below, record, TaskEvent.PARENTS_DONE, home=parent.site, home_until_ms=until_ms)
            else:
                move(t, below, record, TaskEvent.PARENTS_DONE)
        elif record.code == r.SUSPENDED:
            # It stays suspended, but resuming will make it ready: counted apart, and by a record of its own.
            ds, requirements = place.ds, record.requirements
            shift_cell(t, ds, child, requirements, r.SUSPENDED_WAITING, -1)
            shift_cell(t, ds, child, requirements, r.SUSPENDED, 1)
            if record.changed_ms == r.NEVER:
                t.tasks.put(below.key, replace(record, changed_ms=t.now_ms))


def _can_run(t: Tables, site: int, requirements: int) -> bool:
    """Return whether a site has ever offered what such a task needs; if not, nothing is kept for it."""
    record = t.site(t.site_name(site))
    needs = t.requirements_of(requirements)
    return record is not None and any(offer.fits(needs) for offer in record.offers.values())


def _reindex(t: Tables, place: Place, old: r.TaskRecord, new: r.TaskRecord) -> None:
    """Replace the index entries that `old` owned by those that `new` owns."""
    kv, tail = t.kv, place.tail
    was_ready = old.code == r.READY and old.changed_ms != r.NEVER
    if was_ready or new.code == r.READY:
        _reindex_ready(t, place, old if was_ready else None, new)
    was = keys.held_head(old.site, old.code in STARTED) if old.code in HELD else b""
    now = keys.held_head(new.site, new.code in STARTED) if new.code in HELD else b""
    if was != now:
        if was:
            kv.delete(was + tail)
        if now:
            kv.put(now + tail, b"")
    if old.timer_ms != new.timer_ms:
        if old.timer_ms:
            kv.delete(keys.task_timer_head(old.timer_ms) + tail)
        if new.timer_ms:
            kv.put(keys.task_timer_head(new.timer_ms) + tail, b"")


def _reindex_ready(t: Tables, place: Place, old: r.TaskRecord | None, new: r.TaskRecord) -> None:
    number, job, task = place.ds.number, place.number, place.task
    if old is not None and (new.code != r.READY or old.requirements != new.requirements):
        t.kv.delete(keys.ready(number, old.requirements, job, task))
    if new.code == r.READY:
        value = _encode((new.home, new.home_until_ms)) if new.home else b""
        t.kv.put(keys.ready(number, new.requirements, job, task), value)


def _unindex(t: Tables, place: Place, record: r.TaskRecord) -> None:
    _reindex(t, place, record, replace(record, code=r.ABORTED, timer_ms=0))
