"""Answers of the control service from one snapshot of the ledger: pages of rows, as messages.

Functions of a snapshot alone, run on any thread.  A page holds at most `PAGE_MAX` rows; lists say where to go
on.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeVar

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.model.files import WHOLE_DATASET
from iceprod_p2p.model.states import DatasetState, JobState, TaskState
from iceprod_p2p.site import row_messages as messages
from iceprod_p2p.wire.pb import control_pb2
from iceprod_p2p.wire.translate import text

PAGE_MAX: Final = 1_000
PAGE: Final = 100
EVERY_JOB: Final = -2
JOB_MAX: Final = 2**32 - 2
INDEX_MAX: Final = 2**63
State = TypeVar("State", bound=StrEnum)


def list_datasets(kv: KeyValue, request: control_pb2.ListDatasetsRequest) -> control_pb2.ListDatasetsReply:
    """A page of datasets by number.

    The wire has no mark for "go on": a page that is empty before the end is filled from the next ones.
    """
    state, limit = _state(DatasetState, request.state), _limit(request.limit)
    after, found = request.after, []
    while True:
        page = queries.datasets(kv, after=after, limit=limit, owner=request.owner, state=state)
        found = [messages.dataset_message(row) for row in page.rows]
        if found or page.next_after is None:
            return control_pb2.ListDatasetsReply(datasets=found)
        after = page.next_after


def get_dataset(kv: KeyValue, number: int) -> control_pb2.DatasetDetail:
    """One dataset; NotFound when it was deleted meanwhile."""
    detail = queries.dataset(kv, number)
    if detail is None:
        raise NotFound(f"there is no dataset {number}", remedy="`iceprod dataset list` shows those there are")
    return messages.detail_message(detail)


def get_statistics(kv: KeyValue, number: int) -> control_pb2.StatisticsReply:
    """What the tasks of a dataset reported, summed by task name."""
    return control_pb2.StatisticsReply(
        tasks=[
            control_pb2.TaskStatistics(
                task_name=name,
                tallies=[messages.tally_message(word, tally) for word, tally in tallies.items()],
            )
            for name, tallies in queries.statistics(kv, number).items()
        ]
    )


def list_jobs(kv: KeyValue, number: int, request: control_pb2.ListJobsRequest) -> control_pb2.ListJobsReply:
    """A page of jobs."""
    page = queries.jobs(
        kv,
        number,
        after=max(-1, request.after),
        limit=_limit(request.limit),
        state=_state(JobState, request.state),
        first=request.first_job if request.bounded else 0,
        last=request.last_job if request.bounded else None,
    )
    return control_pb2.ListJobsReply(
        jobs=[messages.job_message(row) for row in page.rows],
        next_after=-1 if page.next_after is None else page.next_after,
    )


def list_tasks(
    kv: KeyValue, number: int, request: control_pb2.ListTasksRequest
) -> control_pb2.ListTasksReply:
    """A page of tasks."""
    page = queries.tasks(
        kv,
        number,
        after=(max(-1, request.after_job), max(-1, request.after_task)),
        limit=_limit(request.limit),
        state=_state(TaskState, request.state),
        site=request.site,
        name=request.name,
        first=request.first_job if request.bounded else 0,
        last=request.last_job if request.bounded else None,
    )
    job, task = page.next_after if page.next_after is not None else (-1, -1)
    return control_pb2.ListTasksReply(
        tasks=[messages.task_message(row) for row in page.rows], next_after_job=job, next_after_task=task
    )


def get_task(kv: KeyValue, number: int, request: control_pb2.GetTaskRequest) -> control_pb2.TaskRow:
    """One task by its index or name; NotFound when there is none."""
    detail = queries.task(kv, number, request.job, request.task)
    if detail is None:
        raise NotFound(
            f"dataset {number} has no task {request.task[:80]!r} in job {request.job}",
            remedy=f"`iceprod job list {number}` and `iceprod dataset show {number}` show what there is",
        )
    return messages.task_detail_message(detail)


def list_files(
    kv: KeyValue, number: int, request: control_pb2.ListFilesRequest
) -> control_pb2.ListFilesReply:
    """A page of recorded files: of every job (-2), of the dataset itself (-1), or of one job."""
    if not EVERY_JOB <= request.job < JOB_MAX:
        raise BadInput(f"job {request.job} is none; -2 means every job, -1 the dataset itself")
    job = None if request.job == EVERY_JOB else int(request.job)
    page = queries.files(kv, number, job, after=_file_mark(request.after), limit=_limit(request.limit))
    after = "" if page.next_after is None else f"{page.next_after[0]}/{page.next_after[1]}"
    return control_pb2.ListFilesReply(
        files=[messages.file_message(row) for row in page.rows], next_after=after
    )


def site_rows(kv: KeyValue) -> list[control_pb2.SiteRow]:
    """Every site."""
    return [messages.site_message(row) for row in queries.sites(kv)]


def list_audit(kv: KeyValue, request: control_pb2.ListAuditRequest) -> control_pb2.ListAuditReply:
    """A page of the audit, oldest first."""
    page = queries.audit(kv, after=min(request.after, INDEX_MAX), limit=_limit(request.limit))
    return control_pb2.ListAuditReply(rows=[messages.audit_message(row) for row in page.rows])


def list_people(kv: KeyValue, request: control_pb2.ListPeopleRequest) -> control_pb2.ListPeopleReply:
    """A page of people, by name."""
    page = queries.people(kv, after=text(request.after, "a person", 63), limit=_limit(request.limit))
    people = [
        control_pb2.PersonRow(name=row.name, role=str(row.role), groups=row.groups) for row in page.rows
    ]
    return control_pb2.ListPeopleReply(people=people, next_after=page.next_after or "")


def _limit(asked: int) -> int:
    return min(asked or PAGE, PAGE_MAX)


def _state(kind: type[State], word: str) -> State | None:
    if not word:
        return None
    try:
        return kind(word)
    except ValueError:
        raise BadInput(f"{word[:40]!r} is no state", remedy=f"one of: {', '.join(kind)}") from None


def _file_mark(after: str) -> tuple[int, str] | None:
    if not after:
        return None
    job, slash, name = after.partition("/")
    number = job.removeprefix("-")
    if not slash or not (number.isascii() and number.isdigit() and len(number) < 11):
        raise BadInput(
            f"{after[:80]!r} is no place in a list of files", remedy="use next_after of the page before"
        )
    mark = int(job)
    if not WHOLE_DATASET <= mark < JOB_MAX or not name or len(name.encode("utf-8", "replace")) > 255:
        raise BadInput(
            f"{after[:80]!r} is no place in a list of files", remedy="use next_after of the page before"
        )
    return mark, name
