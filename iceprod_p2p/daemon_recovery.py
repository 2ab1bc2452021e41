"""`iceprod-node rejoin`, `backup` and `restore`: what there is when a disk, or most of a cluster, is lost."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from iceprod_p2p.base import config as site_config
from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.daemon_options import config_option, said_once, site_options, written_configuration
from iceprod_p2p.security.enrolment import parse_invitation
from iceprod_p2p.site import process
from iceprod_p2p.site.backups import backup_of_stopped
from iceprod_p2p.site.rejoining import rejoin as rejoin_cluster
from iceprod_p2p.site.restoring import check_backup
from iceprod_p2p.site.restoring import restore as restore_cluster
from iceprod_p2p.site.succession import pending


@click.command()
@click.argument("invitation", required=False)
@click.option("--replaces", default=None, metavar="NODE", help="the lost node; by default that of site.toml")
@click.option(
    "--through",
    multiple=True,
    metavar="HOST:PORT",
    help="enrolment port of another node, when none is known here",
)
@click.option("--yes", is_flag=True, help="do not ask")
@config_option
@site_options
@said_once
def rejoin(
    invitation: str | None,
    replaces: str | None,
    through: tuple[str, ...],
    yes: bool,
    path: Path,
    **given: str | None,
) -> None:
    """Come back under a new node id: after the data directory was lost, damaged, restored, copied or moved.

    A node that votes must have everything on its disk that it ever promised, and nobody can tell a directory
    that was moved from an old copy of it: so no copy votes again under its id.  The new node takes the place
    of the old one, which is removed; it gets the ledger from the others, and votes if the old one did.
    Nothing that was acknowledged is lost.  Blobs that are whole stay, and so does the site's authority; where
    its key is gone, type the line of `iceprod cluster invite SITE` behind `rejoin`.
    """
    node_id = given.pop("node_id", None) or ""
    invited = parse_invitation(invitation) if invitation else None
    if not path.exists():
        if replaces is None:
            raise ConfigError(
                f"there is no {path}, so the lost node must be named", remedy="give --replaces NODE"
            )
        given["node_id"] = node_id or None
        for name in ("site", "cluster"):
            given[name] = given[name] or (getattr(invited, name) if invited else None)
    config = written_configuration(path, given)
    node_id = node_id or (config.node.id if replaces not in (None, config.node.id) else "")
    begun = pending(config.node.data_dir) if config.node.data_dir.is_dir() else None
    old = begun.old if begun is not None else replaces or config.node.id
    _require_stopped(config)
    _confirm(
        f"Node {old} of site {config.node.site} will never come back; a new one takes its place.", yes=yes
    )
    done = rejoin_cluster(
        config,
        SystemClock(),
        replaces=old,
        node_id=begun.new if begun is not None and not node_id else node_id,
        invitation=invited,
        through=through,
    )
    click.echo(
        f"Node {done.succession.new} of site {config.node.site} takes the place of {done.succession.old}."
    )
    click.echo(f"Blobs: {done.blobs_kept} are whole, {done.blobs_damaged} were damaged and are fetched anew.")
    click.echo(f"Start the node: iceprod-node start --config {path}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@said_once
def backup(file: Path, path: Path) -> None:
    """Write a backup of what this stopped node has of the ledger, the rest of its log included.

    For the last node that is left of a cluster; while a majority lives, `iceprod cluster backup FILE` asks it.
    """
    config = site_config.load(path)
    _require_stopped(config)
    header = backup_of_stopped(config, file, SystemClock())
    click.echo(f"{file}: cluster {header.cluster}, epoch {header.epoch}, up to entry {header.index}.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--node-id", default="", help="the new node's name; one is made by default")
@click.option("--yes", is_flag=True, help="do not ask")
@config_option
@said_once
def restore(file: Path, node_id: str, yes: bool, path: Path) -> None:
    """Begin the cluster anew from a backup, on this node alone, when a majority is lost for good.

    What was acknowledged after the backup was made is gone.  The cluster has a new epoch, in which no node of
    before counts, whatever comes back; this node has a new id, and every other site rejoins:
    `iceprod-node rejoin`.  Stop what is left of the old nodes and their pilots first (`iceprod-node stop
    --pilots`): work that runs now is done again.
    """
    config = site_config.load(path)
    _require_stopped(config)
    header = check_backup(config, file)
    made = datetime.fromtimestamp(header.made_ms / 1_000, UTC).isoformat(" ", "seconds")
    click.echo(
        f"{file}: cluster {header.cluster}, epoch {header.epoch}, up to entry {header.index}, made {made}"
        f" by {header.made_by}; nodes: {', '.join(node.node_id for node in header.nodes)}."
    )
    _confirm(
        f"Cluster {header.cluster} begins anew on this node alone; its {len(header.nodes)} nodes of before are"
        " removed for ever, and whatever came after this backup is gone.",
        yes=yes,
    )
    done, _ = restore_cluster(config, file, SystemClock(), node_id=node_id)
    click.echo(f"Cluster {header.cluster} is restored, with node {done.new} in the place of {done.old}.")
    click.echo(f"Start it: iceprod-node start --config {path}")
    click.echo("At every other site: iceprod-node rejoin, then iceprod-node start")


def _require_stopped(config: site_config.SiteConfig) -> None:
    pid = process.running_pid(config)
    if pid is not None:
        raise ConfigError(
            f"node {config.node.id} runs (process {pid})", remedy="stop it first: iceprod-node stop"
        )


def _confirm(words: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{words} Nobody is here to confirm that", remedy="add --yes")
    click.confirm(f"{words} Go on?", abort=True)
