"""Show rows and objects in the form asked for: table, wide, json, jsonl, csv or name.

Rows are plain dictionaries with documented, stable keys; a `Column` says how one key is shown to people.  What comes
from the cluster never reaches a terminal as control characters.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import jmespath
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 10_000  # A table in a file or pipe is folded for no terminal: one row is one line.
FORMATS = ("table", "wide", "json", "jsonl", "csv", "name")
STATE_COLOURS = {
    "complete": "green",
    "processing": "cyan",
    "copying": "cyan",
    "claimed": "blue",
    "queued": "blue",
    "ready": "white",
    "waiting": "bright_black",
    "error": "yellow",
    "errors": "yellow",
    "degraded": "yellow",
    "failed": "red",
    "aborted": "red",
    "no_quorum": "red",
    "suspended": "magenta",
    "healthy": "green",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the row's key, its heading, how to show it, whether only `wide` has it."""

    key: str
    heading: str
    show: Callable[[Any], str] = str
    wide: bool = False
    right: bool = False


@dataclass(frozen=True, slots=True)
class Style:
    """How this run of the command answers."""

    form: str = "table"
    query: str = ""
    colour: bool | None = None  # None: as the terminal says, and as NO_COLOR asks.

    @property
    def for_people(self) -> bool:
        """Whether titles, totals and hints may be printed beside the data."""
        return self.form in ("table", "wide") and not self.query


class PlainConsole(Console):
    """Prints texts as they are: brackets are no markup in them, and control characters are shown, not sent."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `Console` does."""
        super().print(*(Text(safe(one)) if isinstance(one, str) else one for one in objects), **options)


def safe(text: str) -> str:
    """Return `text` with control characters, and what reorders other text, made visible."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a sentence; what it holds of others can do nothing to the terminal."""
    click.echo(safe(text), err=err, nl=nl)


def console(style: Style, *, stderr: bool = False) -> Console:
    """Return the console for `style`: colours only where somebody sees them, full lines where nobody does."""
    watched = (sys.stderr if stderr else sys.stdout).isatty()
    return PlainConsole(
        stderr=stderr,
        force_terminal=True if style.colour else None,
        no_color=style.colour is False or None,
        highlight=False,
        width=None if watched else PIPED_WIDTH,
    )


def show_rows(
    style: Style, rows: Iterable[Mapping[str, Any]], columns: Sequence[Column], *, name: str, title: str = ""
) -> None:
    """Show many rows; `name` is the key that ``-o name`` prints, one a line."""
    if style.query:
        _print_json(_queried(style.query, list(rows)), indent=2)
    elif style.form == "json":
        _print_json(list(rows), indent=2)
    elif style.form == "jsonl":
        for row in rows:
            _print_json(row, indent=None)
    elif style.form == "csv":
        click.echo(_as_csv(rows, columns), nl=False)
    elif style.form == "name":
        for row in rows:
            click.echo(safe(str(row[name])))
    else:
        console(style).print(table(rows, columns, wide=style.form == "wide", title=title))


def show_object(
    style: Style, value: Mapping[str, Any], *, people: Callable[[Console], None], name: str
) -> None:
    """Show one object: a document for programs, or whatever `people` prints."""
    if style.query:
        _print_json(_queried(style.query, value), indent=2)
    elif style.form == "json":
        _print_json(value, indent=2)
    elif style.form == "jsonl":
        _print_json(value, indent=None)
    elif style.form == "name":
        click.echo(safe(str(value[name])))
    elif style.form == "csv":
        click.echo(_as_csv([value], [Column(key, key) for key in value]), nl=False)
    else:
        people(console(style))


def table(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[Column], *, wide: bool = False, title: str = ""
) -> Table:
    """Return rows as a table without ruling, as `kubectl` and `squeue` draw theirs."""
    shown = [column for column in columns if wide or not column.wide]
    result = Table(
        box=None,
        pad_edge=False,
        title=Text(safe(title)) if title else None,
        title_justify="left",
        header_style="bold",
    )
    for column in shown:
        result.add_column(
            Text(safe(column.heading.upper())), justify="right" if column.right else "left", overflow="fold"
        )
    for row in rows:
        result.add_row(*(_cell(column, row.get(column.key)) for column in shown))
    return result


def coloured(word: str) -> Text:
    """Return a state word in its colour."""
    return Text(safe(word), style=STATE_COLOURS.get(word, ""))


def _cell(column: Column, value: Any) -> Text:
    if value is None or value == "":
        return Text("-")
    text = column.show(value) or "-"
    return coloured(text) if column.key in ("state", "health") else Text(safe(text))


def _as_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        cells = (row.get(column.key) for column in columns)
        writer.writerow([_csv_cell(cell) for cell in cells])
    return buffer.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    # In a file it is data for programs, as it is.
    return safe(value) if isinstance(value, str) and sys.stdout.isatty() else value


def _queried(query: str, value: Any) -> Any:
    try:
        return jmespath.search(query, value)
    except jmespath.exceptions.JMESPathError as fault:
        raise click.UsageError(f"--query {query!r} is not a JMESPath expression: {fault}") from None


def _print_json(value: Any, *, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    click.echo(_BEYOND_ASCII.sub(_as_json_escape, text))


_BEYOND_ASCII = re.compile("[^\\x20-\\x7e\\n]")


def _as_json_escape(found: re.Match[str]) -> str:
    """JSON leaves DEL, C1 controls and marks of direction as they are; a terminal would act on them."""
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]
