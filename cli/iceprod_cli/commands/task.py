"""`iceprod task`: list, show, explain, read the logs of, and control tasks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
from rich.console import Console

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, coloured, safe, say, show_object, show_rows, table
from iceprod_cli.output.units import duration, number, size
from iceprod_cli.selectors import Selector, parse_selector
from iceprod_cli.session import Session, confirm, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup, examples
from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.client.connection import request_id
from iceprod_p2p.wire.pb import control_pb2

PAGE = 500


@click.group(cls=CommandGroup)
def task() -> None:
    """List, show, explain and control tasks."""


def task_columns() -> list[Column]:
    """Return the columns of a table of tasks."""
    return [
        Column("task", "task"),
        Column("name", "name"),
        Column("state", "state"),
        Column("attempt", "attempt", right=True),
        Column("site", "site"),
        Column("host", "host", wide=True),
        Column("pilot", "pilot", wide=True),
        Column("wall_ms", "wall time", lambda ms: duration(ms) if ms else "-", right=True),
        Column("memory_peak_mib", "memory", lambda mib: f"{mib} MiB" if mib else "-", right=True),
        Column("reason", "reason"),
        Column("message", "message", lambda text: str(text).strip().rpartition("\n")[2], wide=True),
    ]


@task.command(
    "list",
    epilog=examples(
        "iceprod task list 12 --state failed -o wide     # with host, pilot and the last words of each",
        "iceprod task list 12.0-99 --name merge",
        "iceprod task list winter-2026 --site madison -o csv > tasks.csv",
        "iceprod task list 12 --state failed --query '[].[task, host, message]'",
    ),
)
@click.argument("selector")
@click.option("--state", default="", help="only those, such as ready, processing, complete, error, failed")
@click.option("--site", default="", help="only tasks held or finished by this site")
@click.option("--name", default="", help="only tasks of this name")
@click.option(
    "--limit", type=click.IntRange(1, 100_000_000), default=1_000, show_default=True, help="at the most"
)
@output_options
@pass_session
def list_(session: Session, selector: str, state: str, site: str, name: str, limit: int) -> None:
    """List tasks of a dataset or of some of its jobs, such as 12, 12.0-99 or 12.*.merge."""
    chosen = parse_selector(selector)
    rows = task_rows(session, chosen, state=state, site=site, name=name or chosen.task, limit=limit)
    show_rows(session.style, rows, task_columns(), name="task")


def task_rows(
    session: Session, selector: Selector, *, state: str = "", site: str = "", name: str = "", limit: int
) -> Iterator[dict[str, Any]]:
    """Yield the selected tasks as plain rows, page by page."""
    given = 0
    for first, last in selector.ranges or ((0, 0),):
        after_job, after_task = -1, -1
        while given < limit:
            request = control_pb2.ListTasksRequest(
                read=session.read(),
                dataset=selector.dataset,
                after_job=after_job,
                after_task=after_task,
                limit=min(PAGE, limit - given),
                state=state,
                site=site,
                name=name,
                first_job=first,
                last_job=last,
                bounded=bool(selector.ranges),
            )
            reply = session.call("ListTasks", request)
            for row in reply.tasks:
                yield task_row(row)
            given += len(reply.tasks)
            after_job, after_task = reply.next_after_job, reply.next_after_task
            if after_job < 0:
                break


def task_row(row: control_pb2.TaskRow) -> dict[str, Any]:
    """Return one task as a plain row."""
    result = plain(row, without=("dataset", "job", "task", "usage", "info"))
    return {"task": f"{row.dataset}.{row.job}.{row.task}", **result, **plain(row.usage)}


def fetch_task(session: Session, text: str) -> control_pb2.TaskRow:
    """Fetch the one task that a selector such as 12.5.merge or 12.5.3 names."""
    chosen = parse_selector(text)
    if chosen.one_job is not None and not chosen.task:
        chosen = replace(chosen, task=_only_task(session, chosen))
    if chosen.one_job is None or not chosen.task:
        raise BadInput(f"{text!r} does not name one task", remedy="write it as 12.5.merge or 12.5.3")
    return _fetched(session, chosen)


def _fetched(session: Session, chosen: Selector) -> control_pb2.TaskRow:
    request = control_pb2.GetTaskRequest(
        read=session.read(), dataset=chosen.dataset, job=chosen.one_job, task=chosen.task
    )
    row: control_pb2.TaskRow = session.call("GetTask", request)
    return row


@task.command()
@click.argument("selector")
@output_options
@pass_session
def show(session: Session, selector: str) -> None:
    """Show one task, such as 12.5.merge: where it ran, what it used, what it wrote, why it failed."""
    row = fetch_task(session, selector)
    document = task_row(row)
    document["files"] = [plain(file) for file in row.files]
    show_object(session.style, document, people=lambda out: _print_task(out, document), name="task")


def _print_task(out: Console, document: dict[str, Any]) -> None:
    out.print(f"task {document['task']} ({document['name']}): ", coloured(document["state"]), sep="")
    if document.get("progress") or document.get("progress_note"):
        out.print(f"  {document['progress']:.0%} done {safe(document['progress_note'])}".rstrip())
    places = [f"{key} {document[key]}" for key in ("site", "host") if document[key]]
    out.print("  " + ", ".join((f"attempt {document['attempt']}", *places)))
    if document["wall_ms"]:
        out.print(
            f"  used {duration(document['wall_ms'])} of wall time, {duration(document['cpu_ms'])} of CPU time,"
            f" {document['memory_peak_mib']} MiB of memory"
        )
    if document["explanation"]:
        out.print(f"  {safe(document['explanation'])}")
    if document["remedy"]:
        out.print(f"  next: {safe(document['remedy'])}")
    if document["message"]:
        out.print(safe(document["message"]), markup=False)
    if document["statistics"]:
        rows = [{"name": key, "value": value} for key, value in document["statistics"].items()]
        out.print(table(rows, [Column("name", "statistic"), Column("value", "value", number, right=True)]))
    if document["files"]:
        columns = [
            Column("name", "file"),
            Column("size_bytes", "size", size, right=True),
            Column("sha256", "sha256", lambda digest: str(digest)[:16]),
            Column("sites", "sites", lambda sites: ", ".join(sites)),
        ]
        out.print(table(document["files"], columns))


@task.command()
@click.argument("selector")
@pass_session
def explain(session: Session, selector: str) -> None:
    """Say in one sentence why a task does not run or failed, and what to type next."""
    row = fetch_task(session, selector)
    where = f"{row.dataset}.{row.job}.{row.task} ({row.name})"
    say(safe(row.explanation or f"Task {where} is {row.state}."))
    if row.remedy:
        say(f"  next: {safe(row.remedy)}")


@task.command(
    epilog=examples(
        "iceprod task logs 12.5.merge",
        "iceprod task logs 12.5.merge --attempt 0   # of an earlier attempt, when it is still there",
        "for task in $(iceprod task list 12 --state failed -o name); do iceprod task logs $task; done",
    )
)
@click.argument("selector")
@click.option("--attempt", type=click.IntRange(0), help="of this attempt; the last one that ended by default")
@pass_session
def logs(session: Session, selector: str, attempt: int | None) -> None:
    """Print the log of a task's last attempt that ended: what its modules wrote to standard output and error."""
    row = fetch_task(session, selector)
    logs_there = [file for file in row.files if file.kind == "log"]
    if attempt is None:
        attempt = max((file.attempt for file in logs_there), default=0)
    found = [file for file in logs_there if file.attempt == attempt]
    if logs_there and not found:
        raise NotFound(
            f"task {row.dataset}.{row.job}.{row.task} has no log of attempt {attempt}",
            remedy=f"there are those of {', '.join(sorted({str(file.attempt) for file in logs_there}))}",
        )
    if not found:
        raise NotFound(
            f"task {row.dataset}.{row.job}.{row.task} has no log yet: it is {row.state}",
            remedy="a log is kept when an attempt ends",
        )
    for file in found:
        text = b"".join(session.connection.get_blob(file.sha256)).decode("utf-8", "replace")
        click.echo(safe(text) if sys.stdout.isatty() else text, nl=not text.endswith("\n"))


def _only_task(session: Session, chosen: Selector) -> str:
    """Return the name of the task when the dataset's jobs have but one; BadInput names them otherwise."""
    from iceprod_cli.commands.dataset import detail_of

    names = [shape.name for shape in detail_of(session, chosen.dataset).shapes]
    if len(names) == 1:
        return names[0]
    job = f"{chosen.dataset}.{chosen.one_job}"
    raise BadInput(
        f"job {job} has several tasks: {', '.join(names)}", remedy=f"name one, such as {job}.{names[0]}"
    )


def control_tasks(session: Session, selector: Selector, verb: str) -> None:
    """Send one control verb for each range of jobs in the selector."""
    index = -1
    if selector.task:
        index = _task_index(session, selector)
    if not selector.ranges:
        raise BadInput(
            "this would touch every job of the dataset",
            remedy=f"use `iceprod dataset {verb} {selector.dataset}`, or name the jobs, such as 12.0-99",
        )
    for first, last in selector.ranges:
        request = control_pb2.ControlTasksRequest(
            dataset=selector.dataset,
            verb=verb,
            first_job=first,
            last_job=last,
            task=index,
            request_id=request_id(),
        )
        reply = session.call("ControlTasks", request)
        where = f"{selector.dataset}.{first}" + (f"-{last}" if last != first else "")
        say(f"{where}{'.' + selector.task if selector.task else ''}: {'; '.join(reply.notes) or verb}")


def _task_index(session: Session, selector: Selector) -> int:
    if selector.task.isdigit():
        return int(selector.task)
    from iceprod_cli.commands.dataset import detail_of

    names = [shape.name for shape in detail_of(session, selector.dataset).shapes]
    if selector.task not in names:
        raise NotFound(
            f"dataset {selector.dataset} has no task {selector.task!r}",
            remedy=f"its tasks are {', '.join(names)}",
        )
    return names.index(selector.task)


def _control(verb: str, words: str) -> None:
    @task.command(verb, help=words)
    @click.argument("selectors", nargs=-1, required=True)
    @click.option("--yes", is_flag=True, help="do not ask")
    @pass_session
    def command(session: Session, selectors: tuple[str, ...], yes: bool) -> None:
        if verb in ("reset", "abort"):
            confirm(f"{verb} tasks {', '.join(selectors)}?", yes=yes)
        for text in selectors:
            selector = parse_selector(text)
            if not selector.task:
                raise BadInput(
                    f"{text!r} names no task", remedy=f"write 12.5.merge, or use `iceprod job {verb}`"
                )
            control_tasks(session, selector, verb)


for _verb, _words in {
    "suspend": "Keep these tasks from starting.",
    "resume": "Let suspended tasks go on.",
    "reset": "Start these tasks, and what depends on them, anew.",
    "abort": "End these tasks now, and for good.",
}.items():
    _control(_verb, _words)
