"""Text to tokens with columns.

A backslash makes the next character literal: it is carried as a character of a private range, so that it means
nothing to any later round of parsing, and is turned back at the very end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

_LITERAL_BASE: Final = 0xF0000  # texts.FORBIDDEN keeps this range out of every file.
_LITERAL: Final = re.compile("[\U000f0000-\U000f007f]")
_TOKEN: Final = re.compile(
    r"""
      (?P<open_phrase>\$(?P<name>[A-Za-z_][A-Za-z0-9_]*)?\()
    | (?P<escape>\\(?P<escaped>.))
    | (?P<special>[()\[\]])
    | (?P<text>[^$()\[\]\\]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Kind(Enum):
    """What a token is."""

    TEXT = auto()
    OPEN_PHRASE = auto()  # "$name(" or "$("; `text` is the name.
    OPEN = auto()
    CLOSE = auto()
    OPEN_SUBSCRIPT = auto()
    CLOSE_SUBSCRIPT = auto()


_SPECIAL: Final = {
    "(": Kind.OPEN,
    ")": Kind.CLOSE,
    "[": Kind.OPEN_SUBSCRIPT,
    "]": Kind.CLOSE_SUBSCRIPT,
}


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `column` is where it begins, from 0."""

    kind: Kind
    text: str
    column: int


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of `text`; every character of it is in exactly one."""
    for match in _TOKEN.finditer(text):
        column = match.start()
        if match["open_phrase"] is not None:
            yield Token(Kind.OPEN_PHRASE, match["name"] or "", column)
        elif match["escape"] is not None:
            yield Token(Kind.TEXT, literal(match["escaped"]), column)
        elif match["special"] is not None:
            yield Token(_SPECIAL[match["special"]], match["special"], column)
        else:
            yield Token(Kind.TEXT, match["text"], column)


def literal(text: str) -> str:
    """Return text whose ASCII characters mean only themselves."""
    return "".join(
        chr(_LITERAL_BASE + ord(character)) if character < "\x80" else character for character in text
    )


def plain(text: str) -> str:
    """Return text with its literal characters turned back."""
    return _LITERAL.sub(lambda match: chr(ord(match.group()) - _LITERAL_BASE), text)
