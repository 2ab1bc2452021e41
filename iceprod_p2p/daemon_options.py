"""What the commands of `iceprod-node` share: how errors are said, and where the configuration is."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import click

from iceprod_p2p.base import config as site_config
from iceprod_p2p.base import config_text
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError, IceProdError, Unavailable
from iceprod_p2p.security.keyfiles import write_secret
from iceprod_p2p.security.random import new_node_id

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


def site_options(command: Command) -> Command:
    """Add what a new `site.toml` is written from."""
    for name, words in (
        ("--enrol-listen", "HOST:PORT for enrolment"),
        ("--listen", "HOST:PORT for nodes, pilots and people"),
        ("--data-dir", "the node's one directory"),
        ("--node-id", "this node's name; one is made by default"),
        ("--cluster", "the cluster's name"),
        ("--site", "the site's name"),
    ):
        command = click.option(name, default=None, help=words)(command)
    return command


@contextmanager
def begun_with(path: Path, given: dict[str, str | None]) -> Iterator[SiteConfig]:
    """Give what `written_configuration` returns; a file that it wrote goes again when what follows fails before
    anything lies in the data directory, so that the next try is not held to an option that was wrong.
    """
    is_new = not path.exists()
    config = written_configuration(path, given)
    before = _listed(config.node.data_dir)
    try:
        yield config
    except IceProdError:
        if is_new and _listed(config.node.data_dir) == before:
            path.unlink(missing_ok=True)
        raise


def _listed(directory: Path) -> list[str]:
    with suppress(OSError):
        return sorted(entry.name for entry in directory.iterdir())
    return []


def written_configuration(path: Path, given: dict[str, str | None]) -> SiteConfig:
    """Load `path`, or write it from the options when there is none."""
    options = {name: value for name, value in given.items() if value is not None}
    if path.exists():
        config = site_config.load(path)
        _check_agreement(config, path, options)
        return config
    missing = [
        f"--{name.replace('_', '-')}" for name in ("site", "cluster", "data_dir") if name not in options
    ]
    if missing:
        samples = {"--site": "madison", "--cluster": "icecube", "--data-dir": "/var/lib/iceprod"}
        example = " ".join(f"{name} {samples[name]}" for name in missing)
        raise ConfigError(
            f"there is no {path}, and to write it {', '.join(missing)} must be given",
            remedy=f"give them, such as {example}; or name a file that there is with --config",
        )
    site = options["site"]
    node: dict[str, str] = {
        "site": site,
        "id": options.get("node_id") or new_node_id(site),
        "cluster": options["cluster"],
        "data_dir": str(Path(options["data_dir"]).expanduser().absolute()),
        **{name: options[name] for name in ("listen", "enrol_listen") if name in options},
    }
    text = config_text.new_text({"node": node})
    config = site_config.parse(text, path=path)  # Nothing is written that could not be read.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_secret(path, text.encode())  # What it names will be promised, so it outlives a power cut.
    except (OSError, Unavailable) as failure:
        raise ConfigError(f"cannot write {path}: {failure}", remedy="choose another --config") from failure
    return config


def _check_agreement(config: SiteConfig, path: Path, options: dict[str, str]) -> None:
    for name, value in options.items():
        present = str(getattr(config.node, "id" if name == "node_id" else name))
        if name == "data_dir":
            value = str(Path(value).expanduser().absolute())
        if present != value:
            raise ConfigError(
                f"{path} says {name} = {present!r}, but --{name.replace('_', '-')} {value} was given",
                remedy=f"change {path}, leave the option out, or name another --config",
            )
