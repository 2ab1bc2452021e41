"""The entry point of `iceprod`: finds the command, runs it, and ends with one clear exit code.

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 not found, 4 not allowed, 5 cluster unavailable, 6 condition not
met, 130 interrupted.  Commands are imported when used, so `iceprod --help` stays quick.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from iceprod_cli.session import Session, report_error
from iceprod_p2p import __version__
from iceprod_p2p.base.command_help import CONTEXT_SETTINGS, examples
from iceprod_p2p.base.errors import IceProdError

COMMANDS = {
    "submit": ("submit", "submit a dataset from a steering file"),
    "run-local": ("run_local", "run one job here and now, without a cluster"),
    "unmonitored": ("unmonitored", "show jobs that ran without a cluster, by a batch system"),
    "dataset": ("dataset", "list, show, watch and control datasets"),
    "job": ("job", "list, show and control jobs"),
    "task": ("task", "list, show, explain and control tasks"),
    "file": ("file", "list, verify and fetch files"),
    "software": ("software", "publish, list and retire software for platforms"),
    "site": ("site", "list and control sites"),
    "cluster": ("cluster", "status, members, invitations"),
    "steering": ("steering", "check, show, expand and convert steering files"),
    "modules": ("modules", "list and inspect modules"),
    "login": ("login", "log in with a name and a password"),
    "logout": ("login", "forget the certificate and key of this machine"),
    "person": ("person", "list people, give roles, shut people out"),
    "context": ("context", "choose which cluster to speak to"),
    "whoami": ("context", "who the cluster thinks you are"),
    "audit": ("audit", "who did what, and when"),
    "demo": ("demo", "run a real production on three sites of this machine"),
}

COMPLETION = "_ICEPROD_COMPLETE"  # Set by the function that completes words in a shell.
CLOSED_PIPE = 141  # What a shell tells of a program whose reader went away.


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"iceprod_cli.commands.{COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from difflib import get_close_matches

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"there is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings=CONTEXT_SETTINGS,
    epilog=examples(
        "iceprod context import /var/lib/iceprod/admin   # or: iceprod login NAME@HOST:PORT --fingerprint HEX",
        "iceprod submit chain.yaml --jobs 100 --name first",
        "iceprod dataset watch first",
        "iceprod file get first --to results",
        "iceprod COMMAND --help                          # what a command does, with examples",
    ),
)
@click.version_option(__version__, prog_name="iceprod")
@click.option(
    "--context",
    "context_name",
    metavar="NAME|DIR",
    envvar="ICEPROD_CONTEXT",
    default="",
    help="which cluster, and as whom: a name of `iceprod context list`, or DIR/ (also $ICEPROD_CONTEXT)",
)
@click.option(
    "--node",
    metavar="ID|SITE|HOST:PORT",
    envvar="ICEPROD_NODE",
    default="",
    help="ask this node only (also $ICEPROD_NODE)",
)
@click.pass_context
def cli(click_context: click.Context, context_name: str, node: str) -> None:
    """Submit, watch and repair simulation and data-processing productions on a cluster of sites."""
    session = Session(context_name=context_name, node=node)
    click_context.obj = session
    click_context.call_on_close(session.close)


def main() -> None:
    """Run the command line; never ends with a traceback for an error of the world or of the user."""
    os.environ.setdefault(
        "GRPC_VERBOSITY", "NONE"
    )  # The transport's own log lines are no answer to a person.
    try:
        result = cli.main(standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except IceProdError as error:
        code = report_error(error)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        code = 130
    except click.exceptions.Exit as end:
        code = end.exit_code
    except click.ClickException as fault:
        fault.show()
        code = fault.exit_code
    except KeyboardInterrupt:
        code = 130
    except SystemExit:
        # Only a closed pipe, and words completed for a shell, make click end the program itself, with codes of its own.
        code = 0 if COMPLETION in os.environ else CLOSED_PIPE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CLOSED_PIPE
    sys.exit(code)


if __name__ == "__main__":
    main()
