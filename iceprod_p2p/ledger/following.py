"""How records follow mass events: pure functions, used by the rules (which store the result) and by queries.

A verb for a whole dataset changes its counters at once and is noted in the dataset's record with a new
*epoch*.  A task or job record of an older epoch follows when it is next read, or when a sweep comes by.
"""

from __future__ import annotations

import msgspec

from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import Verb
from iceprod_p2p.ledger.job import Job
from iceprod_p2p.ledger.transitions import TASK
from iceprod_p2p.model.states import TaskEvent

_EVENTS = {
    Verb.SUSPEND: TaskEvent.SUSPEND,
    Verb.RESUME: TaskEvent.RESUME,
    Verb.RESET_FAILED: TaskEvent.RESET,
    Verb.ABORT: TaskEvent.ABORT,
}
_HELD = (r.CLAIMED, r.QUEUED, r.PROCESSING, r.COPYING)


def after_verb(code: int, verb: Verb, *, parents_done: bool) -> int:
    """Return the state number that a verb for the whole dataset gives a task in state `code`.

    `reset` is not among them: it makes every older record void.
    """
    if verb is Verb.RESET_FAILED and code != r.FAILED:
        return code
    target = TASK.get((r.STATES[code], _EVENTS[verb]))
    if target is None:
        return code
    after = r.CODES[target]
    if after == r.WAITING and parents_done:
        after = r.CODES[TASK[target, TaskEvent.PARENTS_DONE]]
    return after


def follow_task(ds: r.DatasetRecord, record: r.TaskRecord, *, parents_done: bool) -> r.TaskRecord | None:
    """Return a task's record after the mass events since its epoch; itself if none changed it, None if it is void."""
    if record.epoch < ds.reset_epoch:
        return None
    code = record.code
    attempt, failures, losses = record.attempt, record.failures, record.losses
    for event in ds.events:
        if event.epoch <= record.epoch:
            continue
        after = after_verb(code, event.verb, parents_done=parents_done)
        if after != code and (code in _HELD or code == r.FAILED):
            attempt += 1
        if after != code and code == r.FAILED and event.verb is Verb.RESET_FAILED:
            failures = losses = 0
        code = after
    if code == record.code and attempt == record.attempt:
        return record
    return msgspec.structs.replace(
        record,
        code=code,
        attempt=attempt,
        epoch=ds.epoch,
        failures=failures,
        losses=losses,
        site=0,
        timer_ms=0,
        home=0,
        home_until_ms=0,
    )


def follow_job(ds: r.DatasetRecord, job: Job, everything: int) -> None:
    """Let a job's masks follow the mass events since its epoch, in place.

    Its epoch is not older than the last reset.
    """
    for event in ds.events:
        if event.epoch <= job.epoch:
            continue
        if event.verb is Verb.SUSPEND:
            job.suspended |= everything & ~(job.complete | job.failed | job.aborted)
        elif event.verb is Verb.RESUME:
            job.suspended = 0
        elif event.verb is Verb.RESET_FAILED:
            job.failed = 0
        elif event.verb is Verb.ABORT:
            job.aborted |= everything & ~job.complete
            job.failed = job.suspended = 0
    job.epoch = ds.epoch


def kinds_after_verb(kinds: int, verb: Verb) -> int:
    """Return a job's JOB_* bits after a verb for its whole dataset."""
    aborted, failed, suspended, active = kinds & 8, kinds & 4, kinds & 2, kinds & 1
    if verb is Verb.SUSPEND:
        return aborted | failed | (2 if suspended or active else 0)
    if verb is Verb.RESUME:
        return aborted | failed | (1 if suspended or active else 0)
    if verb is Verb.RESET_FAILED:
        return aborted | suspended | (1 if failed or active else 0)
    if verb is Verb.ABORT:
        return 8 if kinds else 0
    return kinds
