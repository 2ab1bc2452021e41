"""What is wrong with a `site.toml` that is no TOML at all, told with its line and the cure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import ConfigError

_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_SHOWN_MAX: Final = 80
_CURES: Final = (
    ("Cannot overwrite", "this name stands there twice: keep one of them"),
    ("Cannot declare", "this section stands there twice: keep one of them"),
    ("Cannot mutate", "this section stands there twice: keep one of them"),
    (
        "Illegal character",
        "a quote is missing at one of its ends, or a sign is there that TOML does not allow",
    ),
    ("Unterminated", "a quote is missing at one of its ends"),
    ("Unescaped", "write \\\\ for a backslash, or put the text in 'single quotes'"),
    ("Expected '='", "write NAME = VALUE, and put # before what is no setting"),
    ("Unclosed array", "the closing ] is missing"),
    ("Expected ']'", "the closing ] is missing"),
    ("Invalid value", "put texts in quotes; numbers, true and false stand without"),
    ("Expected newline", "one setting for each line, texts in quotes"),
)


def not_toml(path: Path, text: str, failure: Exception) -> ConfigError:
    """Return the error for `text`, of the file `path`, which the parser refused with `failure`."""
    words = str(failure)
    found = _PLACE.search(words)
    what = words[: found.start()] if found else words
    cure = next((cure for sign, cure in _CURES if what.startswith(sign)), "mend that line")
    if found is None or found[1] is None:
        return ConfigError(f"{path} is not TOML: {what}, at its end", remedy=cure)
    number = int(found[1])
    lines = text.split("\n")
    shown = lines[number - 1].strip() if number <= len(lines) else ""
    shown = "".join(sign for sign in shown[:_SHOWN_MAX] if sign.isprintable())
    return ConfigError(f"{path} is not TOML: line {number}: {what}: {shown}", remedy=cure)
