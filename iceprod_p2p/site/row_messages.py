"""Rows of the ledger's queries as messages of the control service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iceprod_p2p.ledger import rows
from iceprod_p2p.wire.pb import control_pb2
from iceprod_p2p.wire.translate import requirements_to, usage_to


def state_counts(counts: Mapping[Any, int]) -> list[control_pb2.StateCount]:
    """Counts by state, every state named, so that they sum to the total."""
    return [control_pb2.StateCount(state=str(state), count=count) for state, count in counts.items()]


def dataset_message(row: rows.DatasetRow) -> control_pb2.DatasetRow:
    """A dataset in a list."""
    return control_pb2.DatasetRow(
        dataset=row.dataset,
        alias=row.alias,
        owner=row.owner,
        group=row.group,
        description=row.description,
        state=str(row.state),
        priority=row.priority,
        jobs=row.jobs,
        tasks=state_counts(row.tasks),
        job_states=state_counts(row.job_states),
        submitted_ms=row.submitted_ms,
        finished_ms=row.finished_ms,
        steering_sha256=row.steering_sha256,
        seed=row.seed,
        follows=row.follows,
        closing=row.closing,
        category=row.category,
    )


def detail_message(detail: rows.DatasetDetail) -> control_pb2.DatasetDetail:
    """Everything of a dataset that is not per job."""
    return control_pb2.DatasetDetail(
        row=dataset_message(detail.row),
        task_names=[
            control_pb2.TaskNameCounts(name=entry.name, task=entry.task, counts=state_counts(entry.counts))
            for entry in detail.task_names
        ],
        sites=[
            control_pb2.SiteTaskCount(
                site=entry.site,
                complete=entry.complete,
                held=entry.held,
                failures=entry.failures + entry.losses,
            )
            for entry in detail.sites
        ],
        shapes=[
            control_pb2.TaskShape(
                name=shape.name, parents=shape.parents, requirements=requirements_to(shape.requirements)
            )
            for shape in detail.shapes
        ],
        sites_allowed=detail.sites_allowed,
        sites_excluded=detail.sites_excluded,
        attempts_max=detail.attempts_max,
        transfers=[
            control_pb2.Transfer(
                from_site=entry.from_site,
                to_site=entry.to_site,
                files=entry.files,
                size_bytes=entry.size_bytes,
            )
            for entry in detail.transfers
        ],
    )


def tally_message(name: str, tally: rows.Tally) -> control_pb2.Tally:
    """One statistic, summed."""
    return control_pb2.Tally(
        name=name,
        count=tally.count,
        sum=tally.sum,
        average=tally.average,
        standard_deviation=tally.standard_deviation,
        minimum=tally.minimum,
        maximum=tally.maximum,
    )


def job_message(row: rows.JobRow) -> control_pb2.JobRow:
    """A job in a list."""
    return control_pb2.JobRow(
        dataset=row.dataset, job=row.job, state=str(row.state), tasks=state_counts(row.tasks)
    )


def task_message(row: rows.TaskRow) -> control_pb2.TaskRow:
    """A task in a list."""
    return control_pb2.TaskRow(
        dataset=row.dataset,
        job=row.job,
        task=row.task,
        name=row.name,
        state=str(row.state),
        attempt=row.attempt,
        failures=row.failures,
        site=row.site,
        pilot=row.pilot,
        host=row.host,
        changed_ms=row.changed_ms,
        reason=str(row.reason or ""),
        message=row.message,
        usage=usage_to(row.usage),
        requirements=requirements_to(row.requirements),
    )


def task_detail_message(detail: rows.TaskDetail) -> control_pb2.TaskRow:
    """Everything of one task; its logs stand among its files."""
    message = task_message(detail.row)
    for name, value in detail.statistics.items():
        message.statistics[name] = value
    message.files.extend(file_message(entry) for entry in detail.files)
    message.files.extend(_log_message(detail.row, entry) for entry in detail.logs)
    message.explanation = detail.explanation
    message.remedy = detail.remedy
    return message


def file_message(row: rows.FileRow) -> control_pb2.FileRow:
    """A recorded file."""
    return control_pb2.FileRow(
        dataset=row.dataset,
        job=row.job,
        name=row.name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        kind=row.kind,
        task=row.task,
        attempt=row.attempt,
        sites=row.sites,
        checksums=dict(row.checksums),
        urls=row.urls,
        url_copies=[
            control_pb2.UrlCopy(
                url=copy.url,
                site=copy.site,
                verified_ms=copy.verified_ms,
                good=copy.good,
                found_sha256=copy.found_sha256,
            )
            for copy in row.url_copies
        ],
    )


def _log_message(task: rows.TaskRow, entry: rows.LogRow) -> control_pb2.FileRow:
    return control_pb2.FileRow(
        dataset=task.dataset,
        job=task.job,
        name=entry.file.name,
        size_bytes=entry.file.size_bytes,
        sha256=entry.file.sha256,
        kind=entry.file.kind,
        task=entry.task,
        attempt=entry.attempt,
    )


def site_message(row: rows.SiteRow) -> control_pb2.SiteRow:
    """A site in a list."""
    return control_pb2.SiteRow(
        site=row.site,
        state=str(row.state),
        grid=row.counts.grid,
        slots=row.counts.slots,
        slots_busy=row.counts.slots_busy,
        pilots_queued=row.counts.pilots_queued,
        pilots_running=row.counts.pilots_running,
        attributes=row.counts.attributes,
        heartbeat_age_ms=max(0, row.heartbeat_age_ms),
        claimed=row.claimed + row.queued,
        processing=row.processing + row.copying,
        complete=row.complete,
        failures=row.failures + row.losses,
        version=row.counts.version,
        nodes=row.nodes,
    )


def audit_message(row: rows.AuditRow) -> control_pb2.AuditRow:
    """One line of the audit."""
    return control_pb2.AuditRow(
        index=row.index, at_ms=row.at_ms, actor=row.actor, what=row.what, outcome=row.outcome
    )
