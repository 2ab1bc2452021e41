"""Reading tasks and jobs as they are now, without writing: what queries build on.

The rules let a record follow its dataset's mass events and store it; here the same pure functions answer on a snapshot.
"""

from __future__ import annotations

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.following import follow_job, follow_task
from iceprod_p2p.ledger.job import Job
from iceprod_p2p.ledger.moves import Place, fresh_task, untouched_job
from iceprod_p2p.ledger.tables import Dataset, Tables


def see_job(t: Tables, ds: Dataset, number: int) -> Job:
    """Return a job as it is now; it must not be changed."""
    record = ds.record
    job = t.jobs.get(keys.by_job(keys.JOB, ds.number, number))
    if job is not None and job.epoch >= record.reset_epoch:
        if job.epoch == record.epoch:
            return job
        seen = Job(job.epoch, job.complete, job.failed, job.suspended, job.aborted)
        follow_job(record, seen, ds.dag.everything)
        return seen
    first = t.tasks.get(keys.by_task(keys.TASK, ds.number, number, 0))
    if first is not None and first.epoch >= record.reset_epoch:
        return Job(record.epoch, complete=ds.dag.everything)
    return untouched_job(ds, number)


def see_task(t: Tables, place: Place) -> r.TaskRecord:
    """Return a task as it is now; one without a record has `changed_ms` NEVER."""
    record = t.tasks.get(place.key)
    return see_record(place, record) if record is not None else fresh_task(place)


def see_record(place: Place, record: r.TaskRecord) -> r.TaskRecord:
    """Return what a stored record says now."""
    seen = follow_task(place.ds.record, record, parents_done=place.parents_done())
    return fresh_task(place) if seen is None else seen


def see_place(t: Tables, ds: Dataset, number: int, task: int = 0) -> Place:
    """Return the place of a task that exists."""
    return Place(ds, number, see_job(t, ds, number), task)
