"""Queries about datasets and jobs: counts come from counters, pages from a bounded look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt
from typing import Final

from iceprod_p2p.ledger import keys, limits, rows
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.job import Job
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.moves import fresh_task, untouched_job
from iceprod_p2p.ledger.reading import see_place, see_task
from iceprod_p2p.ledger.rollup import dataset_state, job_counts
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.ledger.tally import Tally
from iceprod_p2p.ledger.transitions import JOB
from iceprod_p2p.model.states import DatasetState, JobState, TaskState

PAGE_MAX: Final = 1_000
WIDE_TASKS: Final = 16  # Of a job: rather than past the records of more, a walk goes to the next job at once.
TRANSFERS_MAX: Final = 20_000  # Pairs of sites.
LOOK_MAX: Final = 10_000  # Records that one page may cost when a filter lets few through.


def dataset_number(kv: KeyValue, text: str) -> int | None:
    """Return the number that a number or an alias stands for; None when there is no such dataset."""
    t = Tables(kv)
    if text.isascii() and text.isdigit() and len(text) <= 10:
        number: int | None = int(text)
    else:
        number = t.numbers.get(keys.by_name(keys.ALIAS, text)[: keys.NAME_BYTES_MAX])
    return number if number is not None and number < 2**32 and t.dataset(number) is not None else None


def datasets(
    kv: KeyValue,
    *,
    after: int = 0,
    limit: int = 100,
    owner: str = "",
    state: DatasetState | None = None,
) -> rows.Page[rows.DatasetRow, int]:
    """Return datasets by number, beyond `after`; deleted ones are gone."""
    t = Tables(kv)
    limit = min(limit, PAGE_MAX)
    last = t.cluster.datasets if t.cluster is not None else 0
    found: list[rows.DatasetRow] = []
    number = after
    for number in range(after + 1, min(last, after + LOOK_MAX // 2) + 1):
        ds = t.dataset(number)
        if ds is None or (owner and ds.record.owner != owner):
            continue
        if state is None or dataset_state(ds.record, ds.counts) is state:
            found.append(_dataset_row(ds))
            if len(found) >= limit:
                break
    return rows.Page(tuple(found), number if number < last else None)


def dataset(kv: KeyValue, which: int | str) -> rows.DatasetDetail | None:
    """Return everything of a dataset that is not per job, by number or alias."""
    number = dataset_number(kv, which) if isinstance(which, str) else which
    t = Tables(kv)
    ds = t.dataset(number) if number is not None and 0 <= number < 2**32 else None
    if ds is None:
        return None
    return rows.DatasetDetail(
        row=_dataset_row(ds),
        shapes=ds.dag.shapes,
        task_names=tuple(
            rows.TaskNameCounts(task, shape.name, task_counts(ds, task))
            for task, shape in enumerate(ds.dag.shapes)
        ),
        sites=_dataset_sites(t, ds),
        transfers=_transfers(t, ds),
        sites_allowed=ds.record.sites_allowed,
        sites_excluded=ds.record.sites_excluded,
        attempts_max=ds.record.attempts_max,
        retry_pause_ms=ds.record.retry_pause_ms,
    )


def _dataset_row(ds: Dataset) -> rows.DatasetRow:
    record = ds.record
    total = dict.fromkeys(TaskState, 0)
    for task in range(len(ds.dag.shapes)):
        for state, count in task_counts(ds, task).items():
            total[state] += count
    return rows.DatasetRow(
        dataset=record.number,
        alias=record.alias,
        owner=record.owner,
        group=record.group,
        description=record.description,
        category=record.category,
        state=dataset_state(record, ds.counts),
        priority=record.priority,
        jobs=record.jobs,
        tasks=total,
        job_states=job_counts(ds.counts),
        submitted_ms=record.submitted_ms,
        finished_ms=ds.counts.finished_ms,
        steering_sha256=record.steering_sha256,
        seed=record.seed,
        follows=record.follows,
        closing=record.closing,
    )


def task_counts(ds: Dataset, task: int) -> dict[TaskState, int]:
    """Return how many jobs have this task in each state: a sum of cells."""
    found = dict.fromkeys(TaskState, 0)
    for row in ds.cells(task).values():
        for code, state in enumerate(r.STATES):
            found[state] += row[code]
        found[TaskState.SUSPENDED] += row[r.SUSPENDED_WAITING]
    return found


def _dataset_sites(t: Tables, ds: Dataset) -> tuple[rows.SiteTaskCounts, ...]:
    found = t.site_tallies.under(keys.by_dataset(keys.DATASET_SITE, ds.number), limits.SITES_MAX)
    counted = (
        rows.SiteTaskCounts(
            t.site_name(keys.number_of(key, 5, 2)), tally.held, tally.complete, tally.failures, tally.losses
        )
        for key, tally in found
    )
    return tuple(sorted(counted, key=lambda row: row.site))


def _transfers(t: Tables, ds: Dataset) -> tuple[rows.TransferRow, ...]:
    found = t.transfers.under(keys.by_dataset(keys.TRANSFER, ds.number), TRANSFERS_MAX)
    return tuple(
        rows.TransferRow(
            t.site_name(keys.number_of(key, 5, 2)),
            t.site_name(keys.number_of(key, 7, 2)),
            transfer.files,
            transfer.size_bytes,
        )
        for key, transfer in found
    )


def statistics(kv: KeyValue, number: int) -> dict[str, dict[str, rows.Tally]]:
    """Return the tallies of a dataset: task name -> statistic -> tally; empty when there is no such dataset."""
    t = Tables(kv)
    ds = t.dataset(number)
    if ds is None:
        return {}
    found: dict[str, dict[str, rows.Tally]] = {}
    for task, shape in enumerate(ds.dag.shapes):
        tallies = t.tallies.get(keys.by_dataset_part(keys.TALLY, number, task)) or {}
        found[shape.name] = {name: shown(tally) for name, tally in sorted(tallies.items())}
    return found


def shown(tally: Tally) -> rows.Tally:
    """Round a tally for display. While extremes are being found anew, those not seen yet show the average."""
    total, squares, count = tally.total.fraction(), tally.squares.fraction(), max(tally.count, 1)
    mean = total / count
    variance = max(squares / count - mean * mean, 0)
    average = _as_float(mean)
    return rows.Tally(
        count=tally.count,
        sum=_as_float(total),
        average=average,
        standard_deviation=_root(variance),
        minimum=average if tally.minimum == float("inf") else tally.minimum,
        maximum=average if tally.maximum == float("-inf") else tally.maximum,
    )


def _as_float(number: object) -> float:
    try:
        return float(number)  # type: ignore[arg-type]
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")  # type: ignore[operator]


def _root(variance: object) -> float:
    """Return the square root, also of a fraction whose value is beyond what a float holds."""
    value = _as_float(variance)
    if value != float("inf"):
        return sqrt(value)
    return _as_float(_as_float(variance / 2**1024) ** 0.5 * 2.0**512)  # type: ignore[operator]


def jobs(
    kv: KeyValue,
    number: int,
    *,
    after: int = -1,
    limit: int = 100,
    state: JobState | None = None,
    first: int = 0,
    last: int | None = None,
) -> rows.Page[rows.JobRow, int]:
    """Return jobs of a dataset in order, beyond `after` and within `first`..`last`."""
    t = Tables(kv)
    ds = t.dataset(number)
    if ds is None:
        return rows.Page((), None)
    limit = min(limit, PAGE_MAX)
    end = ds.record.jobs - 1 if last is None else min(last, ds.record.jobs - 1)
    if state is not None and not job_counts(ds.counts)[state]:
        return rows.Page((), None)
    found: list[rows.JobRow] = []
    looked, everything = 0, ds.dag.everything
    walk = jobs_to_see(
        t,
        ds,
        max(after + 1, first),
        end,
        lambda untouched: state is None or JOB[untouched.kinds(everything)] is state,
        complete=state is JobState.COMPLETE,
    )
    for job in walk:
        if len(found) >= limit or looked >= LOOK_MAX:
            return rows.Page(tuple(found), job - 1)
        row = _job_row(t, ds, job, state)
        looked += 1 if row is None else len(ds.dag.shapes)
        if row is not None:
            found.append(row)
    return rows.Page(tuple(found), None)


def _job_row(t: Tables, ds: Dataset, number: int, wanted: JobState | None) -> rows.JobRow | None:
    place = see_place(t, ds, number)
    state = JOB[place.job.kinds(ds.dag.everything)]
    if wanted is not None and state is not wanted:
        return None
    counts = dict.fromkeys(TaskState, 0)
    for task in range(len(ds.dag.shapes)):
        at = place.at(task)
        record = see_task(t, at) if place.job.touched else fresh_task(at)
        counts[record.state] += 1
    return rows.JobRow(ds.number, number, state, counts)


def jobs_to_see(
    t: Tables,
    ds: Dataset,
    first: int,
    end: int,
    untouched_may_match: Callable[[Job], bool],
    *,
    complete: bool,
) -> Iterator[int]:
    """Walk the jobs from `first` to `end` that a filter may let through, given what it says to an untouched job.

    `complete` is whether complete jobs may be among them.
    """
    cut = ds.record.truncated_at if first < ds.record.truncated_at <= end else end + 1
    for low, high in ((first, cut - 1), (cut, end)):
        if low <= high and untouched_may_match(untouched_job(ds, low)):
            yield from range(low, high + 1)
        elif low <= high:
            yield from _touched(t, ds, low, high, complete=complete)


def _touched(t: Tables, ds: Dataset, first: int, end: int, *, complete: bool) -> Iterator[int]:
    """Walk the jobs from `first` to `end` that have records: of tasks if they may be complete, else of their own.

    One walk over one table, and the records that it passes stay in hand.  Only where a job has many tasks it is
    left for the next one at its first record.
    """
    table = keys.TASK if complete else keys.JOB
    stop = keys.by_job(table, ds.number, end) + b"\xff\xff\xff"
    wide = complete and len(ds.dag.shapes) > WIDE_TASKS
    before = first - 1
    while before < end:
        start, known = keys.by_job(table, ds.number, before + 1), before
        for key in t.tasks.walk(start, stop) if complete else t.jobs.walk(start, stop):
            job = keys.number_of(key, 5, 4)
            if job != before:
                before = job
                yield job
                if wide:
                    break
        if not wide or before == known:
            return
