"""`iceprod login` and `iceprod logout`: a password for a certificate of twelve hours, and its end."""

from __future__ import annotations

import os
import sys
from typing import Final, TextIO

import click

from iceprod_cli.output.show import say
from iceprod_cli.output.units import duration
from iceprod_cli.session import Session, pass_session
from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.base.ids import is_name
from iceprod_p2p.client import contexts
from iceprod_p2p.client.contexts import NodeEntry

TOKEN_LENGTH_MAX: Final = 64 * 1024  # The node accepts less, and says how much.


@click.command()
@click.argument("where", metavar="[NAME][@HOST:PORT]", required=False, default="")
@click.option("--fingerprint", metavar="HEX", default="", help="of the cluster's root; the first time only")
@click.option("--as", "context_name", metavar="CONTEXT", default="", help="the context to write")
@click.option("--password-stdin", is_flag=True, help="read the password from standard input")
@click.option(
    "--token-file",
    type=click.File("r"),
    help="a JSON web token of the issuer that the cluster trusts, instead of a password; - for standard input",
)
@pass_session
def login(
    session: Session,
    where: str,
    fingerprint: str,
    context_name: str,
    password_stdin: bool,
    token_file: TextIO | None,
) -> None:
    """Log in with a name and a password (or a token); the key is made on this machine.

    The first time, give the line that the cluster's operator told you: where people log in, and the root's
    fingerprint.  Later `iceprod login` is enough.
    """
    from iceprod_p2p.client.enrolment import log_in

    name, _, address = where.rpartition("@") if "@" in where else (where, "", "")
    cluster, root_pem, nodes, known_as = _cluster(session, address, fingerprint.lower())
    name = name or known_as or os.environ.get("USER", "")
    if not name:
        raise click.UsageError("Who? Give a name: iceprod login NAME")
    chosen = session.context_name
    context_name = context_name or ("" if "/" in chosen else chosen) or cluster
    if not is_name(context_name):
        raise BadInput(f"{context_name!r} cannot name a context", remedy="use letters, digits, '-' and '_'")
    token = token_file.read(TOKEN_LENGTH_MAX).strip() if token_file else ""
    if token_file and not token:
        raise BadInput("the token file is empty", remedy="get a token from the issuer first")
    password = "" if token else _password(name, cluster, stdin=password_stdin)
    entered = log_in(name, password, cluster=cluster, root_pem=root_pem, nodes=nodes, token=token)
    directory = contexts.config_directory() / "contexts" / context_name
    contexts.write_context(
        directory,
        cluster=cluster,
        person=name,
        nodes=entered.nodes,
        certificate_chain_pem=entered.chain_pem,
        private_key_pem=entered.key_pem,
        root_pem=root_pem,
    )
    if not contexts.current_name() or not chosen:
        contexts.use_context(context_name)
    role = f"role {entered.role}" if entered.role else "no role yet: ask an administrator for one"
    time = duration(entered.lifetime_s * 1_000)
    say(f"logged in as {name} on cluster {cluster} for {time}, {role} (context {context_name})")


@click.command()
@pass_session
def logout(session: Session) -> None:
    """Forget the certificate and its key on this machine."""
    name = session.context_name or contexts.current_name()
    if not name:
        raise NotFound("nobody is logged in here", remedy="iceprod login")
    if "/" in name:
        raise BadInput("a directory cannot be logged out of", remedy=f"remove it: rm -r {name}")
    contexts.remove_context(name)
    say(f"logged out of {name}")


def _cluster(
    session: Session, address: str, fingerprint: str
) -> tuple[str, bytes, tuple[NodeEntry, ...], str]:
    """Return the cluster, its root, its nodes and who was last logged in, from the address or the context."""
    from iceprod_p2p.client.enrolment import find_root

    if address and fingerprint:
        root = find_root(address, fingerprint)
        here = NodeEntry("", "", "", root.server_name, address)
        others = tuple(node for node in root.nodes if node.enrol_address != address)
        return root.cluster, root.root_pem, (here, *others), ""
    try:
        context = contexts.load_context(session.context_name)
    except NotFound as unknown:
        raise NotFound(
            "this machine does not know the cluster yet",
            remedy="iceprod login NAME@HOST:PORT --fingerprint HEX, as the cluster's operator told you",
        ) from unknown
    nodes = tuple(
        node for node in context.nodes if not address or address in (node.enrol_address, node.address)
    )
    if not nodes:
        raise NotFound(
            f"the context knows no node at {address}", remedy="give --fingerprint too, or leave it out"
        )
    return context.cluster, context.tls.root_pem, nodes, context.person


def _password(name: str, cluster: str, *, stdin: bool) -> str:
    if stdin:
        return sys.stdin.readline(2_000).rstrip("\r\n")
    password: str = click.prompt(f"Password of {name} on {cluster}", hide_input=True)
    return password
