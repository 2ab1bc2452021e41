"""Where each key of a TOML document stands, so that a fault can name its line.

`tomllib` reads the values but keeps no positions.  This index is a plain scan of table headers and of keys at
the beginning of lines; a key that it does not see (inside an inline table) gets the line of what holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(
    r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=(.*)$"
)
_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+)")

Path = tuple[str, ...]


def key_lines(text: str) -> Mapping[Path, int]:
    """Return the line, from 1, of every table and key; element n of an array of tables has ``str(n)`` in its
    path.
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    closing = ""  # The quotes that end a text of several lines which we are inside of.
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            closing = "" if closing in line else closing
            continue
        header = _HEADER.match(line)
        if header:
            table = _parts(header[2])
            if header[1] == "[[":
                element = counts.get(table, 0)
                counts[table] = element + 1
                lines.setdefault(table, number)
                table = (*table, str(element))
            lines.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            lines.setdefault((*table, *_parts(key[1])), number)
            closing = next((quotes for quotes in ('"""', "'''") if key[2].count(quotes) == 1), "")
    return lines


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """Return the line of `path`, or of the nearest thing around it; 1 when nothing of it was seen."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 1


def _parts(dotted: str) -> Path:
    return tuple(a or b or c for a, b, c in _PART.findall(dotted))
