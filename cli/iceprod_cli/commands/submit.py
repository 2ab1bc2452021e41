"""`iceprod submit`: a steering file becomes a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import safe, say, show_object
from iceprod_cli.output.units import counted
from iceprod_cli.session import Session, output_options, pass_session
from iceprod_p2p.base.command_help import examples


@click.command(
    epilog=examples(
        "iceprod submit chain.yaml --jobs 1 --dry-run               # check everything first",
        "iceprod submit chain.yaml --jobs 1000 --name winter-2026   # called by number or by this name",
        "iceprod submit chain.yaml --jobs 20 --sites madison --priority 0.9 --wait",
        "iceprod submit chain.yaml --jobs 20 --unmonitored --grid slurm --dir jobs",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--jobs", type=click.IntRange(1, 1_000_000_000), required=True, help="how many jobs")
@click.option("--name", "alias", default="", help="an alias by which the dataset can be called")
@click.option("--description", default="", help="for lists of datasets; that of FILE by default")
@click.option("--priority", type=click.FloatRange(0, 1), help="0 to 1, 0.5 by default; higher goes first")
@click.option("--sites", default="", help="only these sites, with commas")
@click.option("--exclude", default="", help="not these sites, with commas")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help="of all random streams; drawn and recorded if absent"
)
@click.option("--attempts", type=click.IntRange(1, 1000), default=None, help="how often a payload may fail")
@click.option("--group", default="", help="the group that owns the dataset with you")
@click.option("--dry-run", is_flag=True, help="check everything, submit nothing")
@click.option("--unmonitored", is_flag=True, help="without a cluster: each job is one grid job, see --grid")
@click.option("--grid", default="", help="for --unmonitored: the grid plugin, such as slurm")
@click.option("--grid-option", multiple=True, metavar="NAME=VALUE", help="of the grid plugin")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="for unmonitored jobs' files")
@click.option(
    "--external",
    type=click.Path(path_type=Path),
    metavar="SITE.TOML",
    help="for --unmonitored: whose [external] says from where modules are fetched",
)
@click.option("--wait", is_flag=True, help="show progress until it ends; exit code 6 unless it is complete")
@output_options
@pass_session
def submit(
    session: Session,
    file: Path,
    jobs: int,
    alias: str,
    description: str,
    priority: float | None,
    sites: str,
    exclude: str,
    seed: int | None,
    attempts: int | None,
    group: str,
    dry_run: bool,
    unmonitored: bool,
    grid: str,
    grid_option: tuple[str, ...],
    directory: Path | None,
    external: Path | None,
    wait: bool,
) -> None:
    """Submit the steering FILE (XML, YAML or JSON) as a dataset.

    Module sources that FILE names are looked for beside it and travel with the submission.
    """
    if unmonitored:
        if not grid or directory is None:
            raise click.UsageError("--unmonitored needs --grid and --dir")
        more = {"jobs": jobs, "seed": seed or 0, "external": external}
        return _submit_unmonitored(file, directory, grid, grid_option, more)
    from iceprod_p2p.client.submission import submit_file

    reply = submit_file(
        session.connection,
        file,
        jobs=jobs,
        seed=seed,
        alias=alias,
        description=description,
        priority=priority,
        sites=_names(sites),
        exclude=_names(exclude),
        attempts_max=attempts or 0,
        group=group,
        dry_run=dry_run,
    )
    for warning in reply.warnings:
        say(f"warning: {safe(warning)}", err=True)

    for sentence in reply.pinned:
        say(f"fetched {safe(sentence)}", err=True)

    def people(_: object) -> None:
        each = counted(len(reply.task_names), "task")
        tasks = f"{counted(reply.jobs, 'job')} of {each} ({', '.join(reply.task_names)})"
        if dry_run:
            say(f"{file} can be submitted: {tasks}")
        else:
            say(
                f"dataset {reply.dataset}: {tasks}; its document is held by {counted(reply.blob_copies, 'node')}"
            )

    show_object(session.style, plain(reply), people=people, name="dataset")
    if wait and not dry_run:
        from iceprod_cli.output.progress import say_what_next, watch_dataset

        final = watch_dataset(session, str(reply.dataset))
        say(f"dataset {reply.dataset}: {final}", err=True)
        say_what_next(str(reply.dataset), final)
        if final != "complete":
            raise click.exceptions.Exit(6)


def _submit_unmonitored(
    file: Path, directory: Path, grid: str, options: tuple[str, ...], more: dict[str, Any]
) -> None:
    from iceprod_cli.unmonitored import options_of, submit

    rows = submit(file, directory, plugin=grid, options=options_of(options), **more)
    refused = [row for row in rows if row["error"]]
    for row in refused:
        say(f"job {row['job']} was not taken: {safe(row['error'])}", err=True)
    say(f"{len(rows) - len(refused)} grid jobs submitted; see: iceprod unmonitored {directory}")
    if refused:
        raise click.exceptions.Exit(1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
