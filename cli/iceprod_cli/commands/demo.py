"""`iceprod demo`: a real production on three sites of this machine, from founding to verified checksums."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import iceprod_p2p
from iceprod_cli.commands.cluster import print_status, status_document
from iceprod_cli.commands.dataset import (
    STATISTICS_COLUMNS,
    detail_document,
    detail_of,
    print_detail,
    statistics_rows,
)
from iceprod_cli.commands.file import file_rows, verified_rows
from iceprod_cli.commands.task import task_rows
from iceprod_cli.demo_cluster import GRACE_S, SITES_MAX, SITES_MIN, DemoCluster, slots_for
from iceprod_cli.output.progress import watch_dataset
from iceprod_cli.output.show import Column, Style, console, table
from iceprod_cli.output.units import number, size
from iceprod_cli.selectors import Selector
from iceprod_cli.session import Session
from iceprod_p2p.base.errors import IceProdError, NotFound

EXAMPLE = Path(iceprod_p2p.__file__).resolve().parents[1] / "examples" / "physics" / "physics.xml"
TIMEOUT_S = 900.0


@click.command()
@click.option(
    "--sites", type=click.IntRange(SITES_MIN, SITES_MAX), default=3, show_default=True, help="how many sites"
)
@click.option("--jobs", type=click.IntRange(1, 100_000), default=40, show_default=True, help="how many jobs")
@click.option(
    "--steering", type=click.Path(path_type=Path), default=None, help="another steering file to run"
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("demo-data"),
    show_default=True,
    help="where everything of it lies; it is emptied first",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=1311, show_default=True, help="of all random streams"
)
@click.option("--kill-leader", is_flag=True, help="kill the leading node in the middle of the production")
@click.option("--keep", is_flag=True, help="leave the cluster running afterwards")
@click.option(
    "--checksums", type=click.Path(path_type=Path), default=None, help="write file names and sums here"
)
def demo(
    sites: int,
    jobs: int,
    steering: Path | None,
    directory: Path,
    seed: int,
    kill_leader: bool,
    keep: bool,
    checksums: Path | None,
) -> None:
    """Run a real production on three sites of this machine.

    Founds a cluster of site nodes on loopback (mutual TLS, Raft, a local batch system each), submits the physics
    production of examples/, shows its progress, and ends with states, statistics, transfers and verified checksums.
    Exit code 0 only if every task completed and every file's checksum verifies.
    """
    out = console(Style())
    started_at = time.monotonic()

    def say(words: str) -> None:
        out.print(f"{time.monotonic() - started_at:6.1f} s  {words}", markup=False)

    document = steering or EXAMPLE
    if not document.is_file():
        raise NotFound(
            f"there is no steering file {document}", remedy="run this from a checkout, or give --steering"
        )
    say(
        f"starting {sites} sites on loopback in {directory} (a silent site loses its work after {GRACE_S} s here)"
    )
    cluster = DemoCluster(directory.resolve(), sites=sites, slots=slots_for(), say=say)
    finished = False
    try:
        cluster.found()
        say("submitting " + str(document))
        good = _produce(
            cluster, document, jobs, seed, kill_leader=kill_leader, out=out, say=say, checksums=checksums
        )
        finished = True
    finally:
        if keep and finished:
            say(
                f"the cluster runs on; try: {_program()} --context {cluster.context_directory}/ cluster status"
            )
            say(f"stop each site with: {_program()}-node stop --pilots --config {directory}/SITE/site.toml")
        else:
            cluster.stop()
            say("every node and pilot is stopped")
    if not good:
        raise click.exceptions.Exit(1)


def _program() -> str:
    """How this program was called: a newcomer has it in `.venv/bin`, not on the search path."""
    return sys.argv[0] if Path(sys.argv[0]).name == "iceprod" else "iceprod"


def _produce(
    cluster: DemoCluster,
    document: Path,
    jobs: int,
    seed: int,
    *,
    kill_leader: bool,
    out: Console,
    say: Any,
    checksums: Path | None,
) -> bool:
    from iceprod_p2p.client.submission import submit_file

    session = Session(context_name=f"{cluster.context_directory}/")
    try:
        reply = submit_file(session.connection, document, jobs=jobs, seed=seed, alias="demo")
        say(f"dataset {reply.dataset}: {jobs} jobs of {len(reply.task_names)} tasks, seed {seed}")
        name = str(reply.dataset)
        if kill_leader:
            _wait_for_share(session, name, 0.3)
            say(cluster.kill_leader())
        state = watch_dataset(session, name, interval_s=0.5, timeout_s=TIMEOUT_S)
        say(f"dataset {name} is {state}")
        return _closing_tables(session, name, state, out, say, checksums)
    finally:
        session.close()


def _wait_for_share(session: Session, dataset: str, share: float) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        counts = {count.state: count.count for count in detail_of(session, dataset).row.tasks}
        if counts.get("complete", 0) >= share * sum(counts.values()):
            return
        time.sleep(0.2)
    raise IceProdError(f"dataset {dataset} did not get on within {TIMEOUT_S:.0f} s")


def _closing_tables(
    session: Session, name: str, state: str, out: Console, say: Any, checksums: Path | None
) -> bool:
    document = detail_document(detail_of(session, name))
    out.print()
    print_detail(out, document)
    out.print("\nstatistics", style="bold")
    out.print(table(statistics_rows(session, name), STATISTICS_COLUMNS))
    selector = Selector(name)
    files = list(file_rows(session, selector, limit=10_000_000))
    tasks = list(task_rows(session, selector, limit=10_000_000))
    crossed = _transfers(document, files, tasks, out)
    verified = list(verified_rows(session, selector))
    bad = [row for row in verified if not row["good"]]
    total = sum(row["size_bytes"] for row in verified)
    out.print(
        f"\nchecksums: {len(verified)} stored copies of {len(files)} files ({size(total)}) read again, "
        f"{len(bad)} bad"
    )
    for row in bad[:20]:
        out.print(f"  {row['id']} at {row['site']}: {row['found'] or 'missing'}", markup=False)
    if checksums is not None:
        lines = sorted(f"{f['sha256']}  {f['job']}/{f['name']}\n" for f in files if f["kind"] != "log")
        checksums.write_text("".join(lines))
    out.print()
    status = status_document(session)
    print_status(out, status)
    jobs = document["jobs"]
    out.print(f"\n{crossed} of {jobs} jobs had a parent and a child at different sites")
    good = state == "complete" and not bad and document["tasks"].get("complete") == document["tasks_total"]
    say(
        "every task completed once and every checksum verifies"
        if good
        else "NOT everything is as it should be"
    )
    return good


def _transfers(
    document: dict[str, Any], files: list[dict[str, Any]], tasks: list[dict[str, Any]], out: Console
) -> int:
    """Print which sites fetched whose files; return how many jobs have a parent and a child at unlike sites."""
    flows: dict[tuple[str, str], list[int]] = {}
    for file in files:
        for receiver in file["sites"][1:]:
            flow = flows.setdefault((file["sites"][0], receiver), [0, 0])
            flow[0] += 1
            flow[1] += file["size_bytes"]
    rows = [
        {"from": source, "to": target, "files": count, "size": amount}
        for (source, target), (count, amount) in sorted(flows.items())
    ]
    out.print("\nfiles fetched from other sites", style="bold")
    out.print(
        table(
            rows,
            [
                Column("from", "written at"),
                Column("to", "fetched by"),
                Column("files", "files", number, right=True),
                Column("size", "size", size, right=True),
            ],
        )
    )
    where = {tuple(map(int, task["task"].split("."))): task["site"] for task in tasks}
    crossed = set()
    for (dataset, job, index), site in where.items():
        for parent in document["shapes"][index]["parents"]:
            if where.get((dataset, job, parent), site) != site:
                crossed.add(job)
    return len(crossed)
