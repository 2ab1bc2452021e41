"""`iceprod site`: list, drain, resume and ban sites."""

from __future__ import annotations

from typing import Any

import click

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, show_object, show_rows, table
from iceprod_cli.output.units import duration, number
from iceprod_cli.session import Session, confirm, output_options, pass_session
from iceprod_p2p.base.errors import NotFound
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


@click.group()
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
        click.echo(f"site {name}: {'; '.join(session.call('ControlSite', request).notes) or verb}")


for _verb, _words in {
    "drain": "Let a site finish what it holds and claim nothing more.",
    "resume": "Let a drained or banned site claim again.",
    "ban": "Take back everything a site holds and refuse its claims and reports.",
}.items():
    _control(_verb, _words)
