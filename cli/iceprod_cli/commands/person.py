"""`iceprod person`: who takes part, and what each may do."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import click

from iceprod_cli.output.plain import plain
from iceprod_cli.output.show import Column, say, show_rows
from iceprod_cli.session import Session, confirm, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup
from iceprod_p2p.client.connection import request_id
from iceprod_p2p.model.person import Role
from iceprod_p2p.wire.pb import control_pb2

ROLES = click.Choice([str(role) for role in Role])
COLUMNS = [Column("name", "name"), Column("role", "role"), Column("groups", "groups", ", ".join)]


@click.group(cls=CommandGroup)
def person() -> None:
    """List people, give roles, shut people out."""


@person.command("list")
@output_options
@pass_session
def list_(session: Session) -> None:
    """List people and their roles."""
    show_rows(session.style, _rows(session), COLUMNS, name="name")


@person.command()
@click.argument("name")
@click.argument("role", type=ROLES)
@click.option("--group", "groups", multiple=True, help="may be given again")
@pass_session
def add(session: Session, name: str, role: str, groups: tuple[str, ...]) -> None:
    """Give a newcomer a role: viewer, production, operator or administrator, each including those before it.

    The password is made at the founder's node, with `iceprod-node account add NAME`.
    """
    _set(
        session,
        control_pb2.SetPersonRequest(name=name, role=role, groups=groups, groups_given=True, add=True),
    )


@person.command()
@click.argument("name")
@click.argument("role", type=ROLES)
@click.option("--group", "groups", multiple=True, help="instead of the present ones; may be given again")
@pass_session
def role(session: Session, name: str, role: str, groups: tuple[str, ...]) -> None:
    """Change a person's role, and groups if any are given."""
    _set(
        session,
        control_pb2.SetPersonRequest(name=name, role=role, groups=groups, groups_given=bool(groups)),
    )


@person.command("remove")
@click.argument("name")
@click.option("--reason", default="", help="kept in the ledger")
@click.option("--yes", is_flag=True, help="do not ask")
@pass_session
def remove(session: Session, name: str, reason: str, yes: bool) -> None:
    """End a person's access: certificates are refused on every node within seconds, accounts are removed.

    Datasets stay theirs until they are given to somebody else: iceprod dataset set NUMBER --owner NAME.  To let the
    person in again: iceprod person add NAME ROLE.
    """
    confirm(f"Shut {name} out?", yes=yes)
    request = control_pb2.RevokePersonRequest(name=name, reason=reason)
    say("; ".join(session.call("RevokePerson", request).notes))


_revoke = copy.copy(remove)
_revoke.hidden = True
person.add_command(_revoke, "revoke")  # The same, by the name that it had first.


def _set(session: Session, request: control_pb2.SetPersonRequest) -> None:
    request.request_id = request_id()
    say("; ".join(session.call("SetPerson", request).notes))


def _rows(session: Session) -> Iterator[dict[str, Any]]:
    after = ""
    while True:
        reply = session.call("ListPeople", control_pb2.ListPeopleRequest(read=session.read(), after=after))
        yield from (plain(row) for row in reply.people)
        after = reply.next_after
        if not after:
            return
