"""`iceprod job`: list, show and control jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from iceprod_cli.commands.task import control_tasks, task_columns, task_rows
from iceprod_cli.output.show import Column, coloured, show_object, show_rows, table
from iceprod_cli.selectors import Selector, parse_selector
from iceprod_cli.session import Session, confirm, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup, examples
from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.wire.pb import control_pb2

PAGE = 500


@click.group(cls=CommandGroup)
def job() -> None:
    """List, show and control jobs."""


@job.command(
    "list",
    epilog=examples("iceprod job list winter-2026 --state errors", "iceprod job list 12.0-99 -o jsonl"),
)
@click.argument("selector")
@click.option("--state", default="", help="only those: processing, suspended, errors, complete or aborted")
@click.option(
    "--limit", type=click.IntRange(1, 10_000_000), default=1_000, show_default=True, help="at the most"
)
@output_options
@pass_session
def list_(session: Session, selector: str, state: str, limit: int) -> None:
    """List the jobs of a dataset, such as 12 or 12.0-99."""
    columns = [
        Column("job", "job"),
        Column("state", "state"),
        Column("tasks", "tasks", lambda counts: ", ".join(f"{n} {s}" for s, n in counts.items() if n)),
    ]
    show_rows(session.style, job_rows(session, parse_selector(selector), state, limit), columns, name="job")


def job_rows(session: Session, selector: Selector, state: str, limit: int) -> Iterator[dict[str, Any]]:
    """Yield the selected jobs as plain rows, page by page."""
    given = 0
    for first, last in selector.ranges or ((0, 0),):
        after = -1
        while given < limit:
            request = control_pb2.ListJobsRequest(
                read=session.read(),
                dataset=selector.dataset,
                after=after,
                limit=min(PAGE, limit - given),
                state=state,
                first_job=first,
                last_job=last,
                bounded=bool(selector.ranges),
            )
            reply = session.call("ListJobs", request)
            for row in reply.jobs:
                counts = {count.state: count.count for count in row.tasks}
                yield {"job": f"{row.dataset}.{row.job}", "state": row.state, "tasks": counts}
            given += len(reply.jobs)
            after = reply.next_after
            if after < 0:
                break


@job.command()
@click.argument("selector")
@output_options
@pass_session
def show(session: Session, selector: str) -> None:
    """Show one job, such as 12.5: its tasks, states and hosts."""
    chosen = parse_selector(selector)
    if chosen.one_job is None:
        raise BadInput(f"{selector!r} does not name one job", remedy="write it as 12.5")
    found = list(job_rows(session, chosen, "", 1))
    if not found:
        raise NotFound(
            f"there is no job {selector}", remedy=f"`iceprod job list {chosen.dataset}` lists them"
        )
    document = {**found[0], "task_rows": list(task_rows(session, chosen, limit=10_000))}

    def people(out: Any) -> None:
        out.print(f"job {document['job']}: ", coloured(str(document["state"])), sep="")
        out.print(table(document["task_rows"], task_columns()))

    show_object(session.style, document, people=people, name="job")


def _control(verb: str, words: str) -> None:
    @job.command(verb, help=words)
    @click.argument("selectors", nargs=-1, required=True)
    @click.option("--yes", is_flag=True, help="do not ask")
    @pass_session
    def command(session: Session, selectors: tuple[str, ...], yes: bool) -> None:
        if verb in ("reset", "abort"):
            confirm(f"{verb} jobs {', '.join(selectors)}?", yes=yes)
        for text in selectors:
            selector = parse_selector(text)
            if selector.task:
                raise BadInput(f"{text!r} names a task", remedy=f"use `iceprod task {verb} {text}`")
            control_tasks(session, selector, verb)


for _verb, _words in {
    "suspend": "Let no further task of these jobs start.",
    "resume": "Let suspended jobs go on.",
    "reset": "Start these jobs anew.",
    "abort": "End these jobs now, and for good.",
}.items():
    _control(_verb, _words)
