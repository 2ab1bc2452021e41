"""What every command is given: the context chosen, the connection, the style of output; and how errors end a run."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from iceprod_cli.output.show import FORMATS, Style, safe, say
from iceprod_p2p.base.errors import IceProdError, Refused

if TYPE_CHECKING:
    from iceprod_p2p.client.connection import Connection

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Session:
    """One run of the command; the connection is opened when a command first needs it."""

    context_name: str = ""
    node: str = ""
    style: Style = field(default_factory=Style)
    stale: bool = False
    _connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The way to the cluster; raises `base.errors` when no context is there."""
        if self._connection is None:
            from iceprod_p2p.client.connection import Connection
            from iceprod_p2p.client.contexts import load_context

            self._connection = Connection(load_context(self.context_name), node=self.node)
        return self._connection

    def call(self, method: str, request: Any, **options: Any) -> Any:
        """Call the control service."""
        return self.connection.call(method, request, **options)

    def read(self) -> Any:
        """Return the `Read` part of a reading request: linearizable unless --stale was given."""
        from iceprod_p2p.wire.pb import control_pb2

        return control_pb2.Read(stale=self.stale)

    def close(self) -> None:
        """Close what was opened."""
        if self._connection is not None:
            self._connection.close()


pass_session = click.make_pass_decorator(Session, ensure=True)

interval_option = click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="seconds between two looks",
)


def output_options(function: Callable[P, R]) -> Callable[P, R]:
    """Add ``-o``, ``--query``, ``--color`` and ``--stale`` to a command and put them into its session."""

    @click.option(
        "-o", "--output", "form", type=click.Choice(FORMATS), help="a table by default; wide: more columns"
    )
    @click.option("--query", metavar="JMESPATH", help="print only this part, as JSON")
    @click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="auto: on a terminal, unless NO_COLOR is set",
    )
    @click.option(
        "--stale", is_flag=True, help="answer from the node's own tables, without asking the leader"
    )
    @click.pass_context
    @functools.wraps(function)
    def wrapped(click_context: click.Context, /, *args: Any, **options: Any) -> R:
        session = click_context.ensure_object(Session)
        colour = {"always": True, "never": False, "auto": False if os.environ.get("NO_COLOR") else None}
        form, query = options.pop("form"), options.pop("query")
        session.style = Style(form or "table", query or "", colour[options.pop("color")])
        session.stale = options.pop("stale")
        return click_context.invoke(function, *args, **options)

    return wrapped


def report_error(error: IceProdError) -> int:
    """Print what happened and what to do on stderr, and return the exit code."""
    say(f"error: {safe(error.message)}", err=True)
    if error.remedy:
        say(f"  try: {safe(error.remedy)}", err=True)
    if isinstance(error, Refused):
        say(f"  code: {safe(error.code)}", err=True)
    return error.exit_code


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone, unless --yes was given; no terminal means no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Give --yes to do it without a terminal.")
    click.confirm(question, abort=True)
