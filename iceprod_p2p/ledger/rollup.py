"""The states of jobs and datasets, rolled up from what is below them."""

from __future__ import annotations

from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.transitions import JOB
from iceprod_p2p.model.states import DatasetState, JobState


def job_counts(counts: r.DatasetCounts) -> dict[JobState, int]:
    """Return how many jobs are in each state; the values sum to the dataset's jobs."""
    found = dict.fromkeys(JobState, 0)
    for kinds, count in enumerate(counts.job_kinds):
        found[JOB[kinds]] += count
    return found


def dataset_state(record: r.DatasetRecord, counts: r.DatasetCounts) -> DatasetState:
    """Return a dataset's state: what still goes on comes first, then what stopped it."""
    if record.gated:
        return DatasetState.ABORTED if record.futile else DatasetState.WAITING
    if record.untouched == r.ABORTED:
        return DatasetState.ABORTED
    jobs = job_counts(counts)
    if jobs[JobState.PROCESSING]:
        return DatasetState.PROCESSING
    if jobs[JobState.SUSPENDED] or (record.jobs == 0 and record.untouched == r.SUSPENDED):
        return DatasetState.SUSPENDED
    if jobs[JobState.ERRORS]:
        return DatasetState.ERRORS
    if record.truncated_at >= 0:
        return DatasetState.TRUNCATED
    if record.jobs and jobs[JobState.ABORTED] == record.jobs:
        return DatasetState.ABORTED
    return DatasetState.COMPLETE if record.jobs else DatasetState.PROCESSING
