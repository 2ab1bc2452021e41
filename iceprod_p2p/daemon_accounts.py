"""`iceprod-node account`: the passwords of people, at the node that vouches for them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from iceprod_p2p.base import config as site_config
from iceprod_p2p.base.command_help import CommandGroup
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError, NotFound
from iceprod_p2p.daemon_options import config_option, said_once
from iceprod_p2p.security.authenticators import LocalAccounts
from iceprod_p2p.security.certificates import chain_from_pem, fingerprint
from iceprod_p2p.security.keyfiles import read_public
from iceprod_p2p.site.node_keys import AUTHORITY, KEYS
from iceprod_p2p.site.people import ACCOUNTS


@click.group(cls=CommandGroup)
def account() -> None:
    """Passwords of people who log in at this node (the founder's, which vouches for people)."""


@account.command("add")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="read the password from standard input")
@config_option
@said_once
def account_add(name: str, path: Path, *, password_stdin: bool) -> None:
    """Make an account; an administrator gives the role: iceprod person add NAME ROLE."""
    config = site_config.load(path)
    accounts = _accounts(config)
    if name in accounts.names():
        raise ConfigError(f"there is an account {name} already", remedy=f"iceprod-node account passwd {name}")
    accounts.set_password(name, _password(name, stdin=password_stdin))
    click.echo(f"{name} logs in with: {login_line(config, name)}")


@account.command("passwd")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="read the password from standard input")
@config_option
@said_once
def account_passwd(name: str, path: Path, *, password_stdin: bool) -> None:
    """Give an account another password; certificates that it has stay good until they end."""
    accounts = _accounts(site_config.load(path))
    if name not in accounts.names():
        raise NotFound(f"there is no account {name}", remedy=f"iceprod-node account add {name}")
    accounts.set_password(name, _password(name, stdin=password_stdin))
    click.echo(f"{name} has a new password.")


@account.command("remove")
@click.argument("name")
@config_option
@said_once
def account_remove(name: str, path: Path) -> None:
    """Remove an account; its certificates end within hours, or at once with: iceprod person revoke NAME."""
    if not _accounts(site_config.load(path)).remove(name):
        raise NotFound(f"there is no account {name}", remedy="iceprod-node account list")
    click.echo(f"The account {name} is gone.")


@account.command("list")
@config_option
@said_once
def account_list(path: Path) -> None:
    """Print the names of all accounts."""
    for name in _accounts(site_config.load(path)).names():
        click.echo(name)


def _accounts(config: SiteConfig) -> LocalAccounts:
    directory = config.node.data_dir / AUTHORITY
    if not (directory / "people.key").exists():
        raise ConfigError(
            f"node {config.node.id} does not vouch for people", remedy="keep accounts at the founder's node"
        )
    return LocalAccounts(directory / ACCOUNTS)


def _password(name: str, *, stdin: bool) -> str:
    if stdin:
        return sys.stdin.readline(2_000).rstrip("\r\n")
    password: str = click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True)
    return password


def login_line(config: SiteConfig, name: str) -> str:
    """Return what a person types to log in for the first time: where, and which root to expect."""
    root = chain_from_pem(read_public(config.node.data_dir / KEYS / "root.pem"))[0]
    return f"iceprod login {name}@{config.node.advertise_enrol} --fingerprint {fingerprint(root)}"
