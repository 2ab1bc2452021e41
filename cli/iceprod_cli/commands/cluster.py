"""`iceprod cluster`: status, members, invitations, consistency."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from iceprod_cli.commands.site import COLUMNS as SITE_COLUMNS
from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, coloured, console, safe, say, show_object, show_rows, table
from iceprod_cli.output.units import number, size
from iceprod_cli.session import Session, confirm, interval_option, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup
from iceprod_p2p.client.connection import request_id
from iceprod_p2p.model.trust import Renewal
from iceprod_p2p.store.backup_file import new_backup, open_backup
from iceprod_p2p.wire.pb import control_pb2

EXIT_CODES = {"healthy": 0, "degraded": 1, "no_quorum": 2}
MEMBER_COLUMNS = [
    Column("node_id", "node"),
    Column("site", "site"),
    Column("role", "role"),
    Column("standing", "standing"),
    Column("address", "address"),
    Column("applied_index", "applied", number, right=True),
    Column("lag", "lag", number, right=True),
    Column("digest", "digest", lambda digest: str(digest)[:8]),
    Column("round_trip_ms", "round trip", lambda ms: f"{ms:.1f} ms" if ms else "-", right=True, wide=True),
    Column("days_left", "days left", right=True),
    Column("certificate_days", "cert. days", right=True, wide=True),
    Column("authority_days", "site days", right=True, wide=True),
    Column("root_days", "root days", right=True, wide=True),
    Column("people_days", "people days", lambda days: "-" if days < 0 else str(days), right=True, wide=True),
    Column("roots", "roots", right=True, wide=True),
    Column("disk_free_bytes", "disk free", size, right=True),
    Column("version", "version", wide=True),
    Column("versions", "ledger", wide=True),
    Column("failed", "failed", wide=True),
]

AUTHORITY_COLUMNS = [
    Column("scope", "scope"),
    Column("authority", "authority", lambda digest: str(digest)[:16]),
    Column("standing", "standing"),
    Column("node_ids", "nodes", lambda nodes: ", ".join(nodes) or "-"),
    Column("days", "days", lambda days: "?" if days < 0 else str(days), right=True),
    Column("listed_by", "listed by", lambda node: node or "-", wide=True),
]


@click.group(cls=CommandGroup)
def cluster() -> None:
    """Status, members, invitations."""


def status_document(session: Session) -> dict[str, Any]:
    """Fetch the cluster's status as a plain document, and let the context remember its nodes."""
    request = control_pb2.ClusterStatusRequest(read=control_pb2.Read(stale=True))
    reply = session.call("ClusterStatus", request)
    session.connection.remember_nodes(reply)
    document = plain(reply)
    for member in document["members"]:
        least, most = member["version_least"], member["version_most"]
        member["versions"] = f"{least}-{most}" if most > least else str(most)
        days = (member[key] for key in ("certificate_days", "authority_days", "root_days", "people_days"))
        member["days_left"] = min((left for left in days if left >= 0), default=None)
        member["standing"] = "leader" if member["leader"] else "up" if member["reachable"] else "SILENT"
    return document


@cluster.command()
@output_options
@pass_session
def status(session: Session) -> None:
    """Show term, leader, members and sites; exit code 0 healthy, 1 degraded, 2 no quorum.

    DAYS LEFT is what the certificate or authority of a node that ends first still has; `-o wide` shows each.
    """
    document = status_document(session)
    is_wide = session.style.form == "wide"

    def people(out: Console) -> None:
        print_status(out, document, wide=is_wide)

    show_object(session.style, document, people=people, name="cluster")
    code = EXIT_CODES[document["health"]]
    if code:
        raise click.exceptions.Exit(code)


def print_status(out: Console, document: dict[str, Any], *, wide: bool = False) -> None:
    """Print the cluster's status for people."""
    out.print(f"cluster {document['cluster']}: ", coloured(document["health"]), sep="", end="")
    out.print(f", leader {document['leader'] or 'none'}, term {document['term']}", end="")
    out.print(f", epoch {document['epoch']}, digests", end=" ")
    out.print("equal" if document["digests_equal"] else "DIFFERENT")
    out.print(table(document["members"], MEMBER_COLUMNS, wide=wide))
    out.print(version_line(document))
    if document["sites"]:
        out.print()
        out.print(table(document["sites"], SITE_COLUMNS, wide=wide))
    for member in document["members"]:
        if member["failed"]:
            out.print(f"{member['node_id']} has failed: {safe(member['failed'])}", style="red", markup=False)
    for problem in document["problems"]:
        out.print(f"problem: {safe(problem)}", style="yellow", markup=False)


def version_line(document: dict[str, Any]) -> str:
    """Return the ledger's version in words, and how far an upgrade has come."""
    version, possible = document["ledger_version"], document["ledger_version_possible"]
    if possible > version:
        end = "`iceprod cluster raise-version` ends the upgrade"
        return f"ledger version {version}; every node reads {possible}: {end}"
    behind = [member["node_id"] for member in document["members"] if member["version_most"] <= version]
    if 0 < len(behind) < len(document["members"]):
        return f"ledger version {version}; an upgrade is under way, not yet at {', '.join(behind)}"
    return f"ledger version {version}"


@cluster.command()
@interval_option
@pass_session
def watch(session: Session, interval_s: float) -> None:
    """Redraw the status until interrupted."""
    from rich.console import Group
    from rich.live import Live

    with Live(console=console(session.style), auto_refresh=False) as live:
        while True:
            document = status_document(session)
            head = f"{document['cluster']}: {document['health']}, leader {document['leader']}, term {document['term']}"
            members = table(document["members"], MEMBER_COLUMNS, title=head)
            live.update(Group(members, table(document["sites"], SITE_COLUMNS)), refresh=True)
            time.sleep(interval_s)


@cluster.command()
@output_options
@pass_session
def members(session: Session) -> None:
    """List the nodes of the cluster."""
    show_rows(session.style, status_document(session)["members"], MEMBER_COLUMNS, name="node_id")


@cluster.command()
@click.argument("site")
@click.option(
    "--minutes", type=click.IntRange(1, 10_080), default=15, show_default=True, help="how long it is good"
)
@output_options
@pass_session
def invite(session: Session, site: str, minutes: int) -> None:
    """Make a one-time invitation for a new site and print the line its operator types."""
    request = control_pb2.InviteRequest(site=site, lifetime_s=minutes * 60, request_id=request_id())
    reply = session.call("Invite", request)
    document = {"site": site, "line": reply.line, "expires_s": reply.expires_s}
    show_object(session.style, document, people=lambda out: say(reply.line), name="line")


@cluster.command()
@click.argument("node_id")
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(0, 600),
    default=10,
    show_default=True,
    help="seconds for it to catch up",
)
@pass_session
def promote(session: Session, node_id: str, wait_s: int) -> None:
    """Make an observer a voter, once it has caught up.

    Refused, with how far it is behind, when it does not catch up in time: a voter that lags would hold up every
    write.  To replace a voter: let the new node join, promote it, then remove the old one.
    """
    request = control_pb2.ControlMemberRequest(
        node_id=node_id, verb="promote", request_id=request_id(), wait_s=wait_s
    )
    _print_notes(session.call("ControlMember", request, timeout_s=wait_s + 20))


@cluster.command()
@click.argument("node_id")
@click.option("--yes", is_flag=True, help="do not ask")
@pass_session
def remove(session: Session, node_id: str, yes: bool) -> None:
    """Remove a node from the cluster for good.

    Refused when the voters that remain could not write any more, because too many of them are silent.
    """
    confirm(f"Remove node {node_id} for good? Its id never returns.", yes=yes)
    request = control_pb2.ControlMemberRequest(node_id=node_id, verb="remove", request_id=request_id())
    _print_notes(session.call("ControlMember", request))


@cluster.command("transfer-leader")
@click.argument("node_id", default="")
@pass_session
def transfer_leader(session: Session, node_id: str) -> None:
    """Let another voter lead, before a planned stop; without NODE_ID the one that knows most."""
    request = control_pb2.ControlMemberRequest(
        node_id=node_id, verb="transfer_leader", request_id=request_id()
    )
    _print_notes(session.call("ControlMember", request))


def _print_notes(reply: control_pb2.ControlReply) -> None:
    for note in reply.notes:
        say(note)


@cluster.command()
@click.argument("what", type=click.Choice([str(kind) for kind in Renewal]))
@click.argument("name", default="")
@click.option("--yes", is_flag=True, help="do not ask")
@pass_session
def rotate(session: Session, what: str, name: str, yes: bool) -> None:
    """Make keys and certificates anew now, while calls go on; by itself this happens at half of their life.

    WHAT is `node` (a node's own certificate), `site` (the authority of a site), `people` (the authorities that
    vouch for people), or `root`.  NAME is a node or a site; without it `people` means every node that vouches.  The
    old ones stand until all that they vouched for has ended: pilots' certificates within an hour, people's within a
    day.  `cluster status` shows the days that are left.
    """
    if what == Renewal.ROOT:
        confirm("Make a new root? Every authority below it is made anew too.", yes=yes)
    request = control_pb2.RotateRequest(what=what, name=name, request_id=request_id())
    _print_notes(session.call("Rotate", request))


@cluster.command()
@click.argument("scope", default="")
@output_options
@pass_session
def authorities(session: Session, scope: str) -> None:
    """List the authorities by which sites, and people, have certificates; SCOPE is a site or `people`.

    `used` by the nodes named; `never used` by a node that was lost before it signed anything; `left` when its nodes
    sign with others by now, and end it by themselves when what it signed has ended; `not told` while a node of the
    site runs an older release, or never came.
    """
    rows: list[dict[str, Any]] = []
    after = ""
    while True:
        request = control_pb2.ListAuthoritiesRequest(scope=scope, after=after)
        reply = session.call("ListAuthorities", request)
        rows += plain(reply)["rows"]
        after = reply.next_after
        if not after:
            break
    show_rows(session.style, rows, AUTHORITY_COLUMNS, name="authority")


@cluster.command("end-authority")
@click.argument("scope")
@click.argument("authority")
@click.option("--reason", default="", help="goes into the audit")
@click.option("--yes", is_flag=True, help="do not ask")
@pass_session
def end_authority(session: Session, scope: str, authority: str, reason: str, yes: bool) -> None:
    """End an authority that a lost node left behind, now: what it vouched for is refused from then on.

    SCOPE is a site or `people`; AUTHORITY the first eight digits, or more, as `cluster authorities` shows them.
    Refused while a node signs with it (rotate that one first, or remove the node if it is lost), for the last that a
    site's nodes or people need, and for the one that vouched for you.
    """
    confirm(f"End authority {authority} of {scope}? What it vouched for must enrol or log in anew.", yes=yes)
    request = control_pb2.EndAuthorityRequest(
        scope=scope, authority=authority, reason=reason, request_id=request_id()
    )
    _print_notes(session.call("EndAuthority", request))


@cluster.command("raise-version")
@click.option("--to", type=click.IntRange(1, 65_534), help="this version; the newest possible by default")
@click.option("--yes", is_flag=True, help="do not ask")
@pass_session
def raise_version(session: Session, to: int | None, yes: bool) -> None:
    """End an upgrade: let all nodes use what their release brings to the ledger.

    Refused, with the node's name, while one node's release cannot read it.  Before, each node may still go back to
    the release it had; afterwards none may.
    """
    confirm("Raise the ledger's version? No node can go back to an older release then.", yes=yes)
    request = control_pb2.RaiseVersionRequest(to=to or 0, request_id=request_id())
    say("; ".join(session.call("RaiseVersion", request).notes))


@cluster.command()
@output_options
@pass_session
def check(session: Session) -> None:
    """Check the ledger's invariants by a full scan on the node asked; exit code 1 if one does not hold."""
    reply = session.call("CheckCluster", control_pb2.CheckClusterRequest(), timeout_s=600)
    document = plain(reply)

    def people(out: Console) -> None:
        for violation in document["violations"]:
            out.print(safe(violation), style="red", markup=False)
        out.print(f"{len(document['violations'])} violations at index {document['info']['applied_index']}")

    show_object(session.style, document, people=people, name="violations")
    if document["violations"]:
        raise click.exceptions.Exit(1)


@cluster.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@output_options
@pass_session
def backup(session: Session, file: Path) -> None:
    """Write everything that the cluster knows, as of now, into FILE; no private key is in it.

    FILE appears when it is whole and was read again.  `iceprod-node restore FILE` begins the cluster anew from it.
    """
    with new_backup(file) as target:
        for chunk in session.connection.stream("Backup", control_pb2.BackupRequest()):
            target.write(chunk.body)
    with open_backup(file) as reader:
        header = reader.check()
    document = {
        "file": str(file),
        "cluster": header.cluster,
        "epoch": header.epoch,
        "index": header.index,
        "pairs": reader.tally.count,
        "size_bytes": file.stat().st_size,
        "sha256": reader.tally.digest.hex(),
    }
    words = (
        f"{file}: cluster {header.cluster}, up to entry {header.index}, {size(file.stat().st_size)},"
        f" {reader.tally.count} records with SHA-256 {document['sha256']}"
    )
    show_object(session.style, document, people=lambda out: say(words), name="file")
