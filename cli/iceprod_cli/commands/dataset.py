"""`iceprod dataset`: list, show, watch and control datasets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, coloured, say, show_object, show_rows, table
from iceprod_cli.output.units import duration, number, share
from iceprod_cli.session import Session, confirm, interval_option, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup, examples
from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.client.connection import request_id
from iceprod_p2p.wire.pb import control_pb2

PAGE = 500
DESTRUCTIVE = {
    "reset": "Everything that this dataset has computed starts anew.",
    "abort": "It ends for good.",
    "truncate": "Jobs that have not started never will.",
    "delete": "It is forgotten, with its records.",
}


@click.group(cls=CommandGroup)
def dataset() -> None:
    """List, show, watch and control datasets."""


@dataset.command(
    "list",
    epilog=examples(
        "iceprod dataset list --state errors -o wide",
        "iceprod dataset list --owner ada --query '[?failed > `0`].[dataset, alias, failed]'",
    ),
)
@click.option("--owner", default="", help="only this person's")
@click.option(
    "--state", default="", help="only those: processing, suspended, errors, complete, truncated or aborted"
)
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=1_000, show_default=True, help="at the most"
)
@output_options
@pass_session
def list_(session: Session, owner: str, state: str, limit: int) -> None:
    """List datasets, newest last."""
    columns = [
        Column("dataset", "dataset", right=True),
        Column("alias", "alias"),
        Column("state", "state"),
        Column("owner", "owner"),
        Column("jobs", "jobs", number, right=True),
        Column("done", "done", right=True),
        Column("failed", "failed", number, right=True),
        Column("priority", "priority", share, right=True, wide=True),
        Column("category", "category", wide=True),
        Column("steering_sha256", "steering", lambda digest: str(digest)[:12], wide=True),
        Column("description", "description"),
    ]
    show_rows(session.style, _datasets(session, owner, state, limit), columns, name="dataset")


def _datasets(session: Session, owner: str, state: str, limit: int) -> Iterator[dict[str, Any]]:
    after, given = 0, 0
    while given < limit:
        request = control_pb2.ListDatasetsRequest(
            read=session.read(), after=after, limit=min(PAGE, limit - given), owner=owner, state=state
        )
        rows = session.call("ListDatasets", request).datasets
        for row in rows:
            yield dataset_row(row)
        given += len(rows)
        if not rows:
            return
        after = rows[-1].dataset


def dataset_row(row: control_pb2.DatasetRow) -> dict[str, Any]:
    """Return a dataset as a plain row, with `done` (per cent of its tasks) and `failed` worked out."""
    result = plain(row)
    counts = {count.state: count.count for count in row.tasks}
    total = sum(counts.values())
    result["tasks"] = counts
    result["job_states"] = {count.state: count.count for count in row.job_states}
    result["tasks_total"] = total
    result["done"] = f"{100 * counts.get('complete', 0) / total:.1f} %" if total else "-"
    result["failed"] = counts.get("failed", 0)
    return result


def detail_of(session: Session, selector: str) -> control_pb2.DatasetDetail:
    """Fetch one dataset by number or alias."""
    request = control_pb2.GetDatasetRequest(read=session.read(), dataset=selector)
    detail: control_pb2.DatasetDetail = session.call("GetDataset", request)
    return detail


def detail_document(detail: control_pb2.DatasetDetail) -> dict[str, Any]:
    """Return the documented JSON form of one dataset."""
    result = dataset_row(detail.row)
    result["task_names"] = [
        {"name": t.name, "task": t.task, "counts": {c.state: c.count for c in t.counts}}
        for t in detail.task_names
    ]
    result["sites"] = [plain(site) for site in detail.sites]
    result["shapes"] = [plain(shape) for shape in detail.shapes]
    result["sites_allowed"] = list(detail.sites_allowed)
    result["sites_excluded"] = list(detail.sites_excluded)
    result["attempts_max"] = detail.attempts_max
    return result


@dataset.command()
@click.argument("dataset")
@output_options
@pass_session
def show(session: Session, dataset: str) -> None:
    """Show one dataset: its tasks by name and state, and which site did what."""
    detail = detail_of(session, dataset)
    document = detail_document(detail)
    show_object(session.style, document, people=lambda out: print_detail(out, document), name="dataset")


def print_detail(out: Console, document: dict[str, Any]) -> None:
    """Print one dataset for people."""
    alias = f" ({document['alias']})" if document["alias"] else ""
    out.print(f"dataset {document['dataset']}{alias}: ", coloured(document["state"]), sep="")
    facts = [
        f"{number(document['jobs'])} job{'s' * (document['jobs'] != 1)}",
        f"{number(document['tasks_total'])} task{'s' * (document['tasks_total'] != 1)}",
        f"{document['done']} done",
        f"owner {document['owner']}",
        f"priority {share(document['priority'])}",
    ]
    if document["finished_ms"]:
        facts.append(f"took {duration(document['finished_ms'] - document['submitted_ms'])}")
    out.print("  " + ", ".join(facts))
    if document["closing"]:
        out.print(f"  dataset {document['closing']} comes after all its jobs")
    if document["follows"]:
        out.print(f"  comes after all jobs of dataset {document['follows']}")
        if document["state"] == "aborted":
            out.print(f"  `iceprod task explain {document['dataset']}.0.0` says why it does not run")
    states = [
        state for state in document["tasks"] if any(t["counts"].get(state) for t in document["task_names"])
    ]
    rows = [{"name": t["name"], **t["counts"]} for t in document["task_names"]]
    columns = [Column("name", "task"), *(Column(s, s, number, right=True) for s in states)]
    out.print(table(rows, columns))
    if document["sites"]:
        out.print()
        columns = [
            Column("site", "site"),
            *(Column(k, k, number, right=True) for k in ("complete", "held", "failures")),
        ]
        out.print(table(document["sites"], columns))


@dataset.command(
    epilog=examples("iceprod dataset stats winter-2026", "iceprod dataset stats 12 -o csv > statistics.csv")
)
@click.argument("dataset")
@output_options
@pass_session
def stats(session: Session, dataset: str) -> None:
    """Show the statistics that tasks reported: count, sum, average, standard deviation, minimum, maximum."""
    rows = statistics_rows(session, dataset)
    show_rows(session.style, rows, STATISTICS_COLUMNS, name="name")


STATISTICS_COLUMNS = [
    Column("task", "task"),
    Column("name", "statistic"),
    Column("count", "count", number, right=True),
    Column("sum", "sum", number, right=True),
    Column("average", "average", number, right=True),
    Column("standard_deviation", "std. dev.", number, right=True),
    Column("minimum", "min", number, right=True),
    Column("maximum", "max", number, right=True),
]


def statistics_rows(session: Session, dataset: str) -> list[dict[str, Any]]:
    """Return one row for each task name and statistic."""
    request = control_pb2.GetDatasetRequest(read=session.read(), dataset=dataset)
    reply = session.call("GetStatistics", request)
    return [{"task": task.task_name, **plain(tally)} for task in reply.tasks for tally in task.tallies]


@dataset.command(
    epilog=examples(
        "iceprod dataset watch winter-2026",
        "iceprod dataset watch 12 --timeout 3600 && iceprod file get 12 --to results",
    )
)
@click.argument("dataset")
@interval_option
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1), default=None, help="give up after so many seconds"
)
@pass_session
def watch(session: Session, dataset: str, interval_s: float, timeout_s: float | None) -> None:
    """Watch a dataset until it ends: bars for each task name, rate and expected end.

    Exit code 0 when it is complete, 6 when it ended otherwise or the time-out passed.
    """
    from iceprod_cli.output.progress import say_what_next, watch_dataset

    final = watch_dataset(session, dataset, interval_s=interval_s, timeout_s=timeout_s)
    say(f"dataset {dataset}: {final}")
    say_what_next(dataset, final)
    if final != "complete":
        raise click.exceptions.Exit(6)


_EXAMPLES = {
    "reset": examples(
        "iceprod dataset reset 12 --failed   # only tasks that failed, and what depends on them",
        "iceprod dataset reset 12 --yes      # everything, from the beginning",
    ),
    "suspend": examples("iceprod dataset suspend 12 winter-2026", "iceprod dataset resume 12 winter-2026"),
}


def _control(verb: str, words: str) -> None:
    @dataset.command(verb, help=words, epilog=_EXAMPLES.get(verb))
    @click.argument("datasets", nargs=-1, required=True)
    @click.option("--yes", is_flag=True, help="do not ask")
    @click.option("--failed", is_flag=True, hidden=verb != "reset", help="reset only what failed")
    @pass_session
    def command(session: Session, datasets: tuple[str, ...], yes: bool, failed: bool) -> None:
        if failed and verb != "reset":
            raise click.UsageError(f"--failed belongs to reset, not to {verb}")
        word = "reset_failed" if failed else verb
        if word in DESTRUCTIVE:
            confirm(f"{verb} dataset {', '.join(datasets)}? {DESTRUCTIVE[word]}", yes=yes)
        for name in datasets:
            if "." in name:
                raise BadInput(
                    f"{name!r} names jobs, not a dataset", remedy=f"use `iceprod job {verb} {name}`"
                )
            request = control_pb2.ControlDatasetRequest(dataset=name, verb=word, request_id=request_id())
            reply = session.call("ControlDataset", request)
            say(f"dataset {name}: {'; '.join(reply.notes) or verb}")


for _verb, _words in {
    "suspend": "Let no further task of these datasets start; what runs may end.",
    "resume": "Let suspended datasets go on.",
    "reset": "Start these datasets anew, or with --failed only what failed.",
    "truncate": "Never start the jobs that have not started.",
    "abort": "End these datasets now, and for good.",
    "delete": "Forget finished or aborted datasets.",
}.items():
    _control(_verb, _words)


@dataset.command(
    "set",
    epilog=examples(
        "iceprod dataset set 12 --priority 0.9",
        "iceprod dataset set 12 --sites madison,zeuthen",
        "iceprod dataset set 12 --owner ada --group simprod",
    ),
)
@click.argument("dataset")
@click.option("--priority", type=click.FloatRange(0, 1), help="0 to 1; higher goes first")
@click.option("--alias", help="the name by which it can be called")
@click.option("--description", help="for lists of datasets")
@click.option("--attempts", type=click.IntRange(1, 1000), help="how often a payload may fail")
@click.option("--sites", help="only these sites, with commas; empty for every site")
@click.option("--exclude", help="not these sites, with commas")
@click.option("--owner", help="give it to this person")
@click.option("--group", help="let it belong to this group; empty for none")
@pass_session
def set_(
    session: Session,
    dataset: str,
    priority: float | None,
    alias: str | None,
    description: str | None,
    attempts: int | None,
    sites: str | None,
    exclude: str | None,
    owner: str | None,
    group: str | None,
) -> None:
    """Change what may change after submission."""
    if all(one is None for one in (priority, alias, description, attempts, sites, exclude, owner, group)):
        raise click.UsageError("there is nothing to change: give at least one of the options")
    request = control_pb2.SetDatasetRequest(dataset=dataset, request_id=request_id())
    if priority is not None:
        request.priority = round(priority * 1000)
    if alias is not None:
        request.alias = alias
    if description is not None:
        request.description = description
    if attempts is not None:
        request.attempts_max = attempts
    if owner is not None:
        request.owner = owner
    if group is not None:
        request.group = group
    if sites is not None or exclude is not None:
        detail = detail_of(session, dataset)
        request.sites_given = True
        request.sites_allowed[:] = _names(sites) if sites is not None else detail.sites_allowed
        request.sites_excluded[:] = _names(exclude) if exclude is not None else detail.sites_excluded
    reply = session.call("SetDataset", request)
    say(f"dataset {dataset}: {'; '.join(reply.notes) or 'set'}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
