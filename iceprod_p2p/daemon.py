"""`iceprod-node`: founds or joins a cluster with one site, and runs its node.

Every failure is one sentence with its remedy on standard error, and an exit code: 1 failed, 2 wrong input or
configuration, 3 not found, 4 not allowed, 5 unavailable.
"""

from __future__ import annotations

import getpass
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

import iceprod_p2p
from iceprod_p2p.base import config as site_config
from iceprod_p2p.base import config_text
from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.base.command_help import CONTEXT_SETTINGS, CommandGroup, examples
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError, IceProdError, Unavailable
from iceprod_p2p.client.connection import Connection, request_id
from iceprod_p2p.client.contexts import NodeEntry, load_context, write_context
from iceprod_p2p.daemon_accounts import account
from iceprod_p2p.daemon_bundle import pilot_bundle
from iceprod_p2p.daemon_options import begun_with, config_option, said_once, site_options
from iceprod_p2p.daemon_recovery import backup, rejoin, restore
from iceprod_p2p.security.enrolment import parse_invitation
from iceprod_p2p.site import process, systemd
from iceprod_p2p.site.doctor import examine
from iceprod_p2p.site.findings import Verdict
from iceprod_p2p.site.founding import Founded, found_cluster
from iceprod_p2p.site.joining import join_cluster
from iceprod_p2p.site.keeper import end_pilots
from iceprod_p2p.site.node import make_grid
from iceprod_p2p.site.node_keys import PASSPHRASE_VARIABLE, read_passphrase
from iceprod_p2p.site.pilot_files import PilotKit
from iceprod_p2p.site.raft_timing import raft_settings
from iceprod_p2p.site.rejoining import ADMIN_DIRECTORY
from iceprod_p2p.wire.pb import control_pb2


@click.group(cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@click.version_option(iceprod_p2p.__version__, prog_name="iceprod-node")
def main() -> None:
    """Found or join a cluster with a site, and run its node."""


@main.command(
    epilog=examples(
        "iceprod-node init --site madison --cluster icecube --data-dir /var/lib/iceprod",
        "iceprod-node start",
        "iceprod context import /var/lib/iceprod/admin",
        "iceprod cluster status",
    )
)
@config_option
@site_options
@click.option(
    "--root-passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"encrypt the cluster's root key; {PASSPHRASE_VARIABLE} unlocks it when sites are admitted",
)
@said_once
def init(path: Path, root_passphrase_file: Path | None, **given: str | None) -> None:
    """Found a cluster whose first node this is.

    Writes the configuration from --site, --cluster and --data-dir unless there is one, makes the cluster's root, the
    site's authority and the node's keys, and the context of the first administrator in DATA-DIR/admin.
    """
    passphrase = read_passphrase(root_passphrase_file) if root_passphrase_file is not None else None
    with begun_with(path, given) as config:
        founded = _found(config, passphrase)
    node, directory = config.node, config.node.data_dir / ADMIN_DIRECTORY
    click.echo(f"Founded cluster {node.cluster} with site {node.site}, node {node.id}; configuration {path}.")
    click.echo(f"{founded.administrator} is its first administrator: iceprod context import {directory}")
    click.echo(f"Start the node: iceprod-node start --config {path}")


def _found(config: SiteConfig, passphrase: bytes | None) -> Founded:
    node = config.node

    def keep(founded: Founded) -> None:
        entry = NodeEntry(node.id, node.site, node.advertise, founded.keys.server_name, node.advertise_enrol)
        write_context(
            node.data_dir / ADMIN_DIRECTORY,
            cluster=node.cluster,
            person=founded.administrator,
            nodes=[entry],
            certificate_chain_pem=founded.chain_pem,
            private_key_pem=founded.key_pem,
            root_pem=founded.keys.root_pem,
        )

    return found_cluster(config, SystemClock(), hand_over=keep, root_passphrase=passphrase)


@main.command(
    epilog=examples(
        "iceprod-node join 'iceprod-invite-1/...' --data-dir /var/lib/iceprod",
        "iceprod-node start",
    )
)
@click.argument("invitation")
@config_option
@site_options
@said_once
def join(invitation: str, path: Path, **given: str | None) -> None:
    """Join a cluster with the line that `iceprod cluster invite SITE` printed.

    If its answer gets lost, the same line may be typed again.  The node follows until an administrator lets it vote.
    """
    invited = parse_invitation(invitation)
    if not path.exists():
        for name in ("site", "cluster"):
            given[name] = given[name] or getattr(invited, name)
    with begun_with(path, given) as config:
        joined = join_cluster(config, invited, SystemClock())
    click.echo(
        f"Joined cluster {joined.keys.cluster} as site {joined.keys.site}, node {joined.keys.node_id}."
    )
    click.echo(f"Start the node: iceprod-node start --config {path}")
    click.echo(f"An administrator lets it vote with: iceprod cluster promote {joined.keys.node_id}")


@main.command()
@config_option
@click.option("--foreground", is_flag=True, help="stay in this terminal and log to standard error")
@said_once
def start(path: Path, *, foreground: bool) -> None:
    """Start the node; returns when it serves, unless it stays in the foreground."""
    config = site_config.load(path)
    if foreground:
        sys.exit(process.run(config))
    pid = process.start_in_background(config)
    click.echo(f"Node {config.node.id} serves on {config.node.listen} (process {pid}).")


@main.command()
@config_option
@click.option("--pilots", is_flag=True, help="also end every pilot of the site; what they ran is done again")
@said_once
def stop(path: Path, *, pilots: bool) -> None:
    """Stop the node; its pilots run on and report when it is back, or to another node."""
    config = site_config.load(path)
    if not pilots or process.running_pid(config) is not None:
        pid = process.stop(config)
        click.echo(f"Node {config.node.id} has stopped (it was process {pid}).")
    if pilots:
        click.echo(
            f"{end_pilots(config, make_grid(config))} pilots of site {config.node.site} were told to end."
        )


@main.command()
@config_option
@said_once
def status(path: Path) -> None:
    """Say whether the node runs; exit code 0 when it does, 1 when not."""
    config = site_config.load(path)
    pid = process.running_pid(config)
    if pid is None:
        click.echo(f"Node {config.node.id} of site {config.node.site} does not run.")
        sys.exit(1)
    click.echo(
        f"Node {config.node.id} of site {config.node.site} runs on {config.node.listen} (process {pid})."
    )


@main.command()
@click.argument("site")
@click.option(
    "--minutes", type=click.IntRange(1, 10_080), default=15, show_default=True, help="how long it is good"
)
@config_option
@said_once
def invite(site: str, minutes: int, path: Path) -> None:
    """Print the line with which a new site joins (as the founder's administrator, through the running
    node).
    """
    config = site_config.load(path)
    context = load_context(f"{config.node.data_dir / ADMIN_DIRECTORY}/")
    request = control_pb2.InviteRequest(site=site, lifetime_s=minutes * 60, request_id=request_id())
    with Connection(context) as connection:
        click.echo(connection.call("Invite", request).line)


@main.command()
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    help="lines, or one document",
)
@click.option("--json", "as_json", is_flag=True, help="the same as -o json")
@config_option
@said_once
def doctor(path: Path, *, form: str, as_json: bool) -> None:
    """Say what is wrong with this node, or will be soon; exit code 1 when something is."""
    findings = examine(site_config.load(path), SystemClock())
    if as_json or form == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.verdict:4}  {finding.what}: {finding.words}")
            if finding.remedy:
                click.echo(f"      {finding.remedy}")
    sys.exit(any(finding.verdict is Verdict.BAD for finding in findings))


@main.command("systemd-unit")
@click.option("--user", default=None, help="who runs the node; the present user by default")
@config_option
@said_once
def systemd_unit(path: Path, user: str | None) -> None:
    """Print a hardened systemd unit for this node."""
    click.echo(systemd.unit(site_config.load(path), user=user or getpass.getuser()), nl=False)


main.add_command(account)
main.add_command(pilot_bundle)
for recovery in (rejoin, backup, restore):
    main.add_command(recovery)


@main.group("config")
def config_group() -> None:
    """Look at the configuration."""


@config_group.command("check")
@config_option
@said_once
def check(path: Path) -> None:
    """Name every fault of the configuration, with its line, and say whether the batch system answers.

    Exit code 0 when all is well, 2 when the file has faults, 5 when the batch system cannot be used now.
    """
    config = site_config.load(path)
    faults = raft_settings(config).faults()
    if faults:
        raise ConfigError(f"{path} has timings that contradict each other:", faults=tuple(faults))
    grid = make_grid(config)
    misfits = PilotKit(config, b"").misfits(grid)
    if misfits:
        raise ConfigError(f"{path} asks for what the batch system does not have:", faults=tuple(misfits))
    click.echo(f"{path} is sound.")
    try:
        click.echo(f"Batch system {config.queue.plugin}: {grid.check()}")
    except IceProdError as trouble:
        raise Unavailable(
            f"batch system {config.queue.plugin} cannot be used now: {trouble.message}", remedy=trouble.remedy
        ) from trouble


@config_group.command("show")
@config_option
@said_once
def show(path: Path) -> None:
    """Print the configuration as it is understood, defaults filled in, as JSON."""
    click.echo(json.dumps(config_text.shown(site_config.load(path)), indent=2))


if __name__ == "__main__":
    main()
