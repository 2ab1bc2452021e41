"""`iceprod site`: list, drain, resume and ban sites; their grid jobs and pilots; a test of their batch systems."""

from __future__ import annotations

from typing import Any, Final

import click

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, console, safe, say, show_object, show_rows, table
from iceprod_cli.output.units import duration, number
from iceprod_cli.session import Session, confirm, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup
from iceprod_p2p.base.errors import NotFound, Unavailable
from iceprod_p2p.client.connection import request_id
from iceprod_p2p.wire.pb import control_pb2

COLUMNS = [
    Column("site", "site"),
    Column("state", "state"),
    Column("grid", "grid"),
    Column("slots", "slots", number, right=True),
    Column("slots_busy", "busy", number, right=True),
    Column("pilots_running", "pilots", number, right=True),
    Column("pilots_queued", "queued", number, right=True),
    Column("claimed", "claimed", number, right=True),
    Column("processing", "processing", number, right=True),
    Column("complete", "complete", number, right=True),
    Column("failures", "failures", number, right=True),
    Column("heartbeat_age_ms", "heard", lambda ms: duration(ms) + " ago", right=True),
    Column("attributes", "attributes", lambda words: ", ".join(words), wide=True),
    Column("nodes", "nodes", lambda names: ", ".join(names), wide=True),
    Column("version", "version", wide=True),
]

QUEUE_COLUMNS = [
    Column("grid_job", "grid job"),
    Column("site", "site"),
    Column("state", "state"),
    Column("resource_class", "class"),
    Column("age_ms", "age", duration, right=True),
    Column("ended_age_ms", "ended", lambda ms: duration(ms) + " ago" if ms else "-", right=True, wide=True),
    Column("slots", "slots", number, right=True, wide=True),
    Column("tasks", "tasks", number, right=True),
    Column("host", "host"),
    Column("pilot", "pilot"),
    Column("enrolled", "called", lambda yes: "yes" if yes else "no", wide=True),
    Column("node_id", "node", wide=True),
    Column("reason", "reason"),
]
PILOT_COLUMNS = [
    Column("pilot", "pilot"),
    Column("site", "site"),
    Column("state", "state"),
    Column("resource_class", "class"),
    Column("host", "host"),
    Column("tasks", "tasks", lambda names: number(len(names)), right=True),
    Column("slots_free", "free", number, right=True),
    Column("heard_ms", "heard", lambda ms: duration(ms) + " ago", right=True),
    Column("node_id", "calls"),
    Column("tasks", "which", lambda names: ", ".join(names), wide=True),
]
TEST_COLUMNS = [
    Column("name", "step"),
    Column("result", "result"),
    Column("took_ms", "took", duration, right=True),
    Column("text", "text"),
    Column("remedy", "try"),
]
LATE_CODE: Final = 6  # As everywhere: what was waited for has not come.


@click.group(cls=CommandGroup)
def site() -> None:
    """List and control sites."""


def site_rows(session: Session) -> list[dict[str, Any]]:
    """Fetch all sites as plain rows."""
    reply = session.call("ListSites", control_pb2.ListSitesRequest(read=session.read()))
    return [plain(row) for row in reply.sites]


@site.command("list")
@output_options
@pass_session
def list_(session: Session) -> None:
    """List the sites of the cluster with their slots, pilots and tasks."""
    show_rows(session.style, site_rows(session), COLUMNS, name="site")


@site.command()
@click.argument("name")
@output_options
@pass_session
def show(session: Session, name: str) -> None:
    """Show one site."""
    found = [row for row in site_rows(session) if row["site"] == name]
    if not found:
        raise NotFound(f"there is no site {name!r}", remedy="`iceprod site list` lists those there are")
    rows = [{"what": column.heading, "value": column.show(found[0][column.key])} for column in COLUMNS]
    rows += [{"what": "trouble", "value": trouble} for trouble in _troubles(session, name, found[0])]
    columns = [Column("what", "what"), Column("value", "value")]
    show_object(session.style, found[0], people=lambda out: out.print(table(rows, columns)), name="site")


def _troubles(session: Session, name: str, row: dict[str, Any]) -> list[str]:
    """Return what the site's nodes say is wrong, and put it into the row."""
    reply = session.call("ClusterStatus", control_pb2.ClusterStatusRequest(read=session.read()))
    found = []
    for member in reply.members:
        if member.site == name:
            found += [f"{member.node_id}: {text}" for text in member.troubles]
            found += [] if member.reachable else [f"{member.node_id} does not answer"]
    row["troubles"] = found
    return found


def _control(verb: str, words: str) -> None:
    @site.command(verb, help=words)
    @click.argument("name")
    @click.option("--reason", default="", help="kept in the audit")
    @click.option("--yes", is_flag=True, help="do not ask")
    @pass_session
    def command(session: Session, name: str, reason: str, yes: bool) -> None:
        if verb == "ban":
            confirm(f"Ban site {name}? Everything it holds is taken back.", yes=yes)
        request = control_pb2.ControlSiteRequest(site=name, verb=verb, reason=reason, request_id=request_id())
        say(f"site {name}: {'; '.join(session.call('ControlSite', request).notes) or verb}")


for _verb, _words in {
    "drain": "Let a site finish what it holds and claim nothing more.",
    "resume": "Let a drained or banned site claim again.",
    "ban": "Take back everything a site holds and refuse its claims and reports.",
}.items():
    _control(_verb, _words)


@site.command()
@click.argument("name", default="")
@click.option("--ended", is_flag=True, help="also those that ended and are still noted")
@click.option("--limit", type=click.IntRange(1, 5_000), default=1_000, show_default=True, help="of each node")
@output_options
@pass_session
def queue(session: Session, name: str, ended: bool, limit: int) -> None:
    """List the grid jobs of a site, or of all sites: what its nodes have in the batch system.

    It is what the nodes saw at their last look ([queue] interval_s); the batch system is not asked.
    """
    request = control_pb2.ListGridJobsRequest(site=name, ended=ended, limit=limit)
    reply = session.call("ListGridJobs", request)
    show_rows(session.style, [plain(row) for row in reply.grid_jobs], QUEUE_COLUMNS, name="grid_job")
    for node_queue in reply.queues:
        if session.style.for_people:
            _say_of_queue(node_queue)
    _fail_without_an_answer([q.node_id for q in reply.queues if not q.reachable], len(reply.queues), name)


def _say_of_queue(queue: Any) -> None:
    """Print a line about one node's queue, and what is wrong with it."""
    if queue.reachable:
        counts = ", ".join(f"{count.count} {count.state}" for count in queue.counts) or "nothing noted"
        say(f"{queue.node_id}: {queue.grid}, {counts}; at most {queue.grid_jobs_max} at once")
    if queue.left_out:
        say(f"{queue.node_id}: {queue.left_out} more are not shown; see --limit")
    for trouble in queue.troubles:
        say(f"{queue.node_id}: {safe(trouble)}", err=True)


def _fail_without_an_answer(silent: list[str], asked: int, name: str) -> None:
    if silent and len(silent) == asked:
        raise Unavailable(
            f"no node of {'site ' + name if name else 'any site'} answers: {', '.join(silent)}",
            remedy="`iceprod cluster status` tells more",
        )
    if silent:
        say(f"not answered: {', '.join(silent)}", err=True)


@site.command()
@click.argument("name", default="")
@click.option("--limit", type=click.IntRange(1, 5_000), default=1_000, show_default=True, help="of each node")
@output_options
@pass_session
def pilots(session: Session, name: str, limit: int) -> None:
    """List the pilots of a site, or of all sites: where they run, what they run, when they called last.

    A pilot whose own node is silent calls another one; `calls` names it.
    """
    reply = session.call("ListPilots", control_pb2.ListPilotsRequest(site=name, limit=limit))
    show_rows(session.style, [plain(row) for row in reply.pilots], PILOT_COLUMNS, name="pilot")
    if reply.left_out and session.style.for_people:
        say(f"{reply.left_out} more are not shown; see --limit")
    if reply.silent_nodes:
        say(f"not answered: {', '.join(reply.silent_nodes)}", err=True)


@site.command()
@click.argument("name")
@click.option("--class", "resource_class", default="", help="resource class; the first by default")
@click.option(
    "--wait",
    type=click.IntRange(1, 86_400),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="how long the batch system may take to start and end it",
)
@click.option("--at", "node_id", default="", metavar="NODE", help="which node of a site that has several")
@output_options
@pass_session
def test(session: Session, name: str, resource_class: str, wait: int, node_id: str) -> None:
    """Send one probe through a site's batch system to a worker node, and tell how each step went.

    The probe asks for what a pilot of the class asks for, looks at its worker node (Python, directories, GPUs, the way
    to the nodes), runs no task and ends.  Exit code 1 when a step failed, 6 when the probe did not start or end within
    --wait.
    Its grid job is removed in any case, also after Ctrl-C.
    """
    request = control_pb2.TestSiteRequest(
        site=name, resource_class=resource_class, wait_s=wait, node_id=node_id
    )
    rows: list[dict[str, Any]] = []
    for step in session.connection.stream("TestSite", request, timeout_s=wait + 180.0):
        rows.append(plain(step))
        if session.style.for_people:
            _say_step(session, rows[-1])
    if not session.style.for_people:
        show_rows(session.style, rows, TEST_COLUMNS, name="name")
    results = {row["result"] for row in rows}
    if "failed" in results or not rows:
        raise click.exceptions.Exit(1)
    if "late" in results:
        raise click.exceptions.Exit(LATE_CODE)
    if session.style.for_people:
        say(f"pilots of this class can work at site {name}")


def _say_step(session: Session, row: dict[str, Any]) -> None:
    colour = {"ok": "green", "warning": "yellow", "skipped": "bright_black"}.get(row["result"], "red")
    out = console(session.style)
    out.print(f"[{colour}]{row['result']:8}[/] ", end="")
    out.print(safe(f"{row['name']}: {row['text']}"), markup=False, end="")
    out.print(f" ({duration(row['took_ms'])})" if row["took_ms"] >= 1_000 else "", markup=False)
    if row["remedy"]:
        out.print(safe(f"         try: {row['remedy']}"), markup=False)
