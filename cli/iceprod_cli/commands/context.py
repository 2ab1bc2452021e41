"""`iceprod context` and `iceprod whoami`: which cluster, as whom."""

from __future__ import annotations

from pathlib import Path

import click

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, say, show_object, show_rows
from iceprod_cli.session import Session, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup
from iceprod_p2p.client import contexts
from iceprod_p2p.wire.pb import control_pb2


@click.group(cls=CommandGroup)
def context() -> None:
    """Choose which cluster to speak to."""


@context.command("list")
@output_options
@pass_session
def list_(session: Session) -> None:
    """List the contexts of this machine."""
    current = contexts.current_name()
    rows = []
    for name in contexts.context_names():
        entry = contexts.load_context(name)
        rows.append(
            {
                "name": name,
                "current": name == current,
                "cluster": entry.cluster,
                "person": entry.person,
                "nodes": [node.address for node in entry.nodes],
            }
        )
    columns = [
        Column("current", "", lambda yes: "*" if yes else ""),
        Column("name", "name"),
        Column("cluster", "cluster"),
        Column("person", "person"),
        Column("nodes", "nodes", ", ".join),
    ]
    show_rows(session.style, rows, columns, name="name")


@context.command()
@click.argument("name")
def use(name: str) -> None:
    """Use this context from now on."""
    contexts.use_context(name)
    say(f"using context {name}")


@context.command("import")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("name", required=False, default="")
def import_(directory: Path, name: str) -> None:
    """Copy the context in DIRECTORY, such as the one `iceprod-node init` wrote, under NAME.

    Without a NAME it is called as its cluster.
    """
    name = contexts.import_context(directory, name)
    say(f"imported {directory} as {name}")


@context.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a context and its key."""
    contexts.remove_context(name)
    say(f"removed context {name}")


@click.command()
@output_options
@pass_session
def whoami(session: Session) -> None:
    """Say who the cluster thinks you are, and what you may do."""
    document = plain(session.call("WhoAmI", control_pb2.WhoAmIRequest()))
    sentence = "{kind} {name}, role {role}, on cluster {cluster} (answered by {node_id})".format(**document)
    show_object(session.style, document, people=lambda out: say(sentence), name="name")
