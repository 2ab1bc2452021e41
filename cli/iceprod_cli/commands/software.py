"""`iceprod software`: builds of software for platforms, which tasks name and pilots unpack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, say, show_rows
from iceprod_cli.output.units import size
from iceprod_cli.session import Session, confirm, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup
from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.base.machine import this_machine
from iceprod_p2p.client.connection import request_id
from iceprod_p2p.wire.pb import control_pb2

PAGE = 500
COLUMNS = [
    Column("name", "name"),
    Column("version", "version"),
    Column("platform", "platform"),
    Column("kind", "kind", wide=True),
    Column("size_bytes", "size", size, right=True),
    Column("sha256", "sha256", lambda digest: str(digest)[:16]),
    Column("owner", "owner"),
    Column("retired", "", lambda retired: "retired" if retired else ""),
    Column("description", "description", wide=True),
]


@click.group(cls=CommandGroup)
def software() -> None:
    """Publish, list and retire software: named versions with a tarball for each platform."""


@software.command()
@click.argument("name")
@click.argument("version")
@click.argument("tarball", type=click.Path(path_type=Path))
@click.option(
    "--platform",
    default="",
    help="linux-x86_64-glibc2.28-py3.11, fewer parts, or any; this machine's by default",
)
@click.option("--container", is_flag=True, help="the tarball is a root file system, in which modules run")
@click.option(
    "--env", "variables", multiple=True, metavar="NAME=VALUE", help="set for modules; {root} is where it lies"
)
@click.option("--description", default="", help="for people who choose among builds")
@pass_session
def publish(
    session: Session,
    name: str,
    version: str,
    tarball: Path,
    platform: str,
    container: bool,
    variables: tuple[str, ...],
    description: str,
) -> None:
    """Register TARBALL (tar, gzip, bzip2 or xz) as the build of VERSION of NAME for one platform.

    What a version is for a platform never changes; publish another version instead.  Directories bin, lib, lib64,
    python and lib/pythonX.Y/site-packages of the tarball go into PATH, LD_LIBRARY_PATH and PYTHONPATH by themselves.
    """
    from iceprod_p2p.client.software import publish_file

    reply = publish_file(
        session.connection,
        tarball,
        name=name,
        version=version,
        platform=platform or _this_platform(container=container),
        container=container,
        variables=dict(map(_variable, variables)),
        description=description,
    )
    say("; ".join(reply.notes))


@software.command("list")
@click.argument("name", default="")
@output_options
@pass_session
def list_(session: Session, name: str) -> None:
    """List builds: of all software, or of NAME."""
    show_rows(session.style, _rows(session, name), COLUMNS, name="name")


@software.command()
@click.argument("name")
@click.argument("version")
@output_options
@pass_session
def show(session: Session, name: str, version: str) -> None:
    """Show every build of one version, with the variables it sets."""
    rows = list(_rows(session, name, version))
    if not rows:
        raise NotFound(
            f"there is no software {name} {version}",
            remedy=f"`iceprod software list {name}` shows what there is",
        )
    columns = [
        *COLUMNS[:4],
        Column("sha256", "sha256"),
        Column("variables", "variables", _variables),
        *COLUMNS[6:],
    ]
    show_rows(session.style, rows, columns, name="platform")


@software.command()
@click.argument("name")
@click.argument("version")
@click.option("--platform", default="", help="only this one; every platform by default")
@click.option("--forget", is_flag=True, help="remove the record too, so that the tarball may go (operators)")
@click.option("--yes", is_flag=True, help="do not ask")
@pass_session
def retire(session: Session, name: str, version: str, platform: str, forget: bool, yes: bool) -> None:
    """Let no new dataset use VERSION of NAME; datasets that were submitted with it go on."""
    if forget:  # Retiring alone is undone by publishing the same tarball again.
        confirm(f"Forget {name} {version}?", yes=yes)
    request = control_pb2.RetireSoftwareRequest(
        name=name, version=version, platform=platform, forget=forget, request_id=request_id()
    )
    say("; ".join(session.call("RetireSoftware", request).notes))


def _rows(session: Session, name: str, version: str = "") -> Iterator[dict[str, Any]]:
    after = ""
    while True:
        request = control_pb2.ListSoftwareRequest(
            read=session.read(), name=name, version=version, after=after, limit=PAGE
        )
        reply = session.call("ListSoftware", request)
        yield from (plain(row) for row in reply.builds)
        after = reply.next_after
        if not after:
            return


def _variables(values: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items()))


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"{text!r} sets no variable", remedy="write it as NAME=VALUE")
    return name, value


def _this_platform(*, container: bool) -> str:
    """Return what a build made here runs on: everywhere with this architecture, C library and Python or newer."""
    here = this_machine()
    if container:
        return f"linux-{here.arch}"
    return "-".join(part for part in ("linux", here.arch, here.libc, f"py{here.python}") if part)
