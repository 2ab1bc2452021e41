"""What a person most likely meant where a file is not XML, YAML or JSON at all: one short suggestion, or none.

A parser says what it did not expect.  The usual mistakes are few, and the character at the fault tells most of them.
"""

from __future__ import annotations

import re
from typing import Final

TYPOGRAPHIC: Final = "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2032\u2033"
_STRAIGHT: Final = 'straight quotes: "'
_PYTHON: Final = {"None": "null", "True": "true", "False": "false"}
_AMPERSAND: Final = re.compile(r"&(?!#[0-9]{1,7};|#x[0-9a-fA-F]{1,6};|[A-Za-z]{1,8};)")


def unquoted(text: str) -> str:
    """Return a text without the typographic quotes around it; empty when it has none."""
    if len(text) > 1 and text[0] in TYPOGRAPHIC and text[-1] in TYPOGRAPHIC:
        return text[1:-1]
    return ""


def for_json(text: str, offset: int) -> str:
    """Return what to write in JSON text where its reader stopped."""
    here = text[offset : offset + 1]
    if here in ("]", "}") and text[max(0, offset - 200) : offset].rstrip().endswith(","):
        return f"no comma before {here}"
    if here == "'":
        return 'double quotes: "'
    if here in ("/", "#"):
        return "no comments, which JSON does not have"
    if here and here in TYPOGRAPHIC:
        return _STRAIGHT
    for word, meant in _PYTHON.items():
        if text.startswith(word, offset):
            return meant
    if not here:
        return "what closes the open brackets"
    if here.isdigit() and text[max(0, offset - 1) : offset] == "0":
        return "a number without a zero before it"
    return ""


def for_yaml(problem: str, text: str, line: int, column: int) -> str:
    """Return what to write in YAML text where its parser stopped; line and column count from 1."""
    written = _line(text, line)
    here = written[column - 1 : column]
    if "\t" in written[: column + 1] and ("tab" in problem or "cannot start any token" in problem):
        return "blanks instead of the tab"
    if here and here in "@`%" and "cannot start any token" in problem:
        return f'quotes around a text that begins with {here}: "{here}..."'
    if "mapping values are not allowed" in problem:
        return 'quotes around a text with a colon and a blank: ": "'
    if "end of stream" in problem:
        return "the quote that closes the text"
    if "expected ',' or" in problem:
        return problem[problem.rfind("'", 0, -1) :].strip("'") + " to close what was opened"
    if "expected <block end>" in problem or "did not find expected" in problem:
        return "as many blanks as the lines of the same level have"
    return ""


def for_xml(message: str, text: str, line: int, column: int, inside: str) -> str:
    """Return what to write in XML text where its parser stopped; `inside` is the element that is open there."""
    written = _line(text, line)
    here = written[column - 1 : column]
    if "mismatched tag" in message or "no element found" in message or "unclosed" in message:
        return f"</{inside}>" if inside else ""
    if "undefined entity" in message:
        return "the character itself, or &#NUMBER;"
    if "junk after document element" in message:
        return "one <configuration> around everything"
    if "declaration not at start" in message:
        return "<?xml ...?> at the very beginning, or none"
    if "duplicate attribute" in message:
        return "each attribute once"
    if "not well-formed" not in message:
        return ""
    if here and here in TYPOGRAPHIC:
        return _STRAIGHT
    if here == "<":
        return "&lt;"
    if _AMPERSAND.search(written[max(0, column - 40) : column + 10]):
        return "&amp;"
    if written[: column - 1].rstrip().endswith("="):
        return 'quotes around the value: "..."'
    if "<!--" in written[:column] and "--" in written[column - 3 : column + 2]:
        return "a comment without -- in it"
    return ""


def _line(text: str, line: int) -> str:
    """Return one line of a text, at most its first few hundred characters, without splitting the rest."""
    start = 0
    for _ in range(min(line - 1, 100_000)):
        start = text.find("\n", start) + 1
        if not start:
            return ""
    return text[start : start + 2_000].split("\n", 1)[0]
