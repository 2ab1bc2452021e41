"""What the commands of `iceprod-node` share: how errors are said, and where the configuration is."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from iceprod_p2p.base.errors import IceProdError

CONFIG_VARIABLE: Final = "ICEPROD_NODE_CONFIG"

Command = Callable[..., Any]


def said_once(command: Command) -> Command:
    """Print an `IceProdError` as one sentence with its remedy and end with its exit code."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except IceProdError as error:
            click.echo(f"iceprod-node: {error.message}", err=True)
            if error.remedy:
                click.echo(f"  {error.remedy}", err=True)
            sys.exit(error.exit_code)

    return wrapped


def config_option(command: Command) -> Command:
    """Add `--config`."""
    return click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=CONFIG_VARIABLE,
        default=Path("site.toml"),
        show_default=True,
        help="the site's configuration",
    )(command)
