"""How help is laid out by the commands of `iceprod` and `iceprod-node`: whole sentences, and lines to copy."""

from __future__ import annotations

import click

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
SENTENCE_MAX = 400  # More than any first sentence has: none is cut.


class CommandGroup(click.Group):
    """A group that lists its commands with the whole first sentence of each."""

    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands; hidden ones are left out."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(SENTENCE_MAX)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def examples(*lines: str) -> str:
    """Return the end of a command's help: lines to copy, each perhaps with what it is for behind a #."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
