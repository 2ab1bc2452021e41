"""JSON text to nodes with places.  Strict JSON: no comments, no NaN, no repeated names.

The standard decoder is not used because it tells no places, and lets depth and number of values grow unbounded.
"""

from __future__ import annotations

import json.decoder
import re
from collections.abc import Callable
from itertools import islice
from string import ascii_letters
from typing import Final, cast

from iceprod_p2p.steering import hints
from iceprod_p2p.steering.limits import DEPTH_MAX, NODES_MAX, TEXT_CHARS_MAX
from iceprod_p2p.steering.nodes import Node, NodeCount, Place, Refusal
from iceprod_p2p.steering.texts import check_text, finite_float, whole_number

_IN_STRINGS: Final = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\\": "two backslashes for one"}
_BLANKS: Final = frozenset(" \t\r\n")
_BLANK = re.compile(r"[ \t\r\n]*")
_COLON = re.compile(r"[ \t\r\n]*+:[ \t\r\n]*+")
_NEXT = re.compile(r"[ \t\r\n]*+([,}\]])[ \t\r\n]*+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# A string, also one that is never closed (so that it is never tried again from within), or what parts values.
_PIECE = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|$)|[,\[{]', re.DOTALL)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_BEGINS_WORD: Final = frozenset(ascii_letters + "_+-.")
_WORD = re.compile(r"[A-Za-z_+\-.][\w+\-.]{0,40}")
# The C scanner of strings: it knows escapes, refuses control characters and is linear.
_scan_string = cast(Callable[[str, int, bool], tuple[str, int]], json.decoder.scanstring)  # type: ignore[attr-defined]


def read_json(text: str, count: NodeCount) -> Node:
    """Return the one value of `text`.  Raises Refusal at the first thing that is not JSON or passes a bound."""
    _check_count(text)
    return _JsonReader(text, count).whole()


def _check_count(text: str) -> None:
    """Refuse a flood of values before any is made: what parts them outside strings is counted first."""
    values = count_values(text, NODES_MAX)
    if values > NODES_MAX:
        raise Refusal((0, 0), f"at least {values} values", f"at most {NODES_MAX}")


def count_values(text: str, bound: int) -> int:
    """Return a number of values that JSON text has at the least, past `bound` if that may be so, without reading it."""
    values = text.count(",") + text.count("[") + text.count("{")
    if values <= bound:
        return values
    pieces = islice(_PIECE.finditer(text), 4 * bound)
    return sum(text[piece.start()] != '"' for piece in pieces)


class _JsonReader:
    def __init__(self, text: str, count: NodeCount) -> None:
        self.text = text
        self.count = count
        self.known = (0, 1, 0)  # An offset, its line, and where that begins: places are asked for in order.

    def place(self, offset: int) -> Place:
        known, line, start = self.known if offset >= self.known[0] else (0, 1, 0)
        if lines := self.text.count("\n", known, offset):
            line += lines
            start = self.text.rfind("\n", known, offset) + 1
        self.known = (offset, line, start)
        return line, offset - start + 1

    def refuse(self, offset: int, allowed: str, suggestion: str = "") -> Refusal:
        rest = self.text[offset : offset + 20]
        found = f'"{rest[:1]}"' if rest else "the end of the text"
        if word := _WORD.match(rest):
            found = f'"{word.group()}"'
        return Refusal(self.place(offset), found, allowed, suggestion or hints.for_json(self.text, offset))

    def skip(self, offset: int) -> int:
        if self.text[offset : offset + 1] not in _BLANKS:
            return offset
        match = _BLANK.match(self.text, offset)
        return match.end() if match else offset

    def whole(self) -> Node:
        node, offset = self.value(self.skip(0), 0)
        offset = self.skip(offset)
        if offset < len(self.text):
            raise self.refuse(offset, "nothing after the one value")
        return node

    def value(self, offset: int, depth: int) -> tuple[Node, int]:
        place = self.place(offset)
        self.count.add(1, place)
        if depth > DEPTH_MAX:
            raise Refusal(place, f"values nested deeper than {DEPTH_MAX}", f"{DEPTH_MAX} levels")
        first = self.text[offset : offset + 1]
        if first == "{":
            return self.object(offset, depth, place)
        if first == "[":
            return self.array(offset, depth, place)
        if first == '"':
            text, end = self.string(offset, place)
            return Node(text, place), end
        return self.plain(offset, place)

    def plain(self, offset: int, place: Place) -> tuple[Node, int]:
        number = _NUMBER.match(self.text, offset)
        if number and self.text[number.end() : number.end() + 1] not in _BEGINS_WORD:
            digits, end = number.group(), number.end()
            if number.lastindex is None:
                return Node(whole_number(digits, place), place), end
            return Node(finite_float(digits, place), place), end
        word = _WORD.match(self.text, offset)
        if word and word.group() in _WORDS:
            return Node(_WORDS[word.group()], place), word.end()
        if word and word.group().lower() in ("nan", "infinity", "-infinity", "inf"):
            raise self.refuse(offset, "a finite number")
        suggestion = word.group().lower() if word and word.group().lower() in _WORDS else ""
        raise self.refuse(offset, "a JSON value", suggestion)

    def string(self, offset: int, place: Place) -> tuple[str, int]:
        try:
            text, end = _scan_string(self.text, offset + 1, True)
        except json.JSONDecodeError as bad:
            raise Refusal(
                self.place(bad.pos),
                f"a text that is not JSON: {bad.msg.removesuffix(' at')}",
                "a JSON string",
                _IN_STRINGS.get(self.text[bad.pos : bad.pos + 1], ""),
            ) from bad
        # The whole file has no forbidden character: only escapes, which make a text shorter, can bring one in.
        if len(text) != end - offset - 2 or len(text) > TEXT_CHARS_MAX:
            check_text(text, place)
        return text, end

    def array(self, offset: int, depth: int, place: Place) -> tuple[Node, int]:
        items: list[Node] = []
        node = Node(items, place)
        offset = self.skip(offset + 1)
        if self.text.startswith("]", offset):
            return node, offset + 1
        while True:
            item, offset = self.value(offset, depth + 1)
            items.append(item)
            after = _NEXT.match(self.text, offset)
            if after is None or after[1] == "}":
                raise self.refuse(self.skip(offset), 'a comma or "]"')
            if after[1] == "]":
                return node, after.end(1)
            offset = after.end()

    def object(self, offset: int, depth: int, place: Place) -> tuple[Node, int]:
        entries: dict[str, Node] = {}
        node = Node(entries, place)
        offset = self.skip(offset + 1)
        if self.text.startswith("}", offset):
            return node, offset + 1
        while True:
            if not self.text.startswith('"', offset):
                raise self.refuse(offset, "a name in double quotes")
            place = self.place(offset)
            key, offset = self.string(offset, place)
            if key in entries:
                raise Refusal(place, f'the name "{key[:60]}" a second time', "each name once in an object")
            colon = _COLON.match(self.text, offset)
            if colon is None:
                raise self.refuse(self.skip(offset), "a colon")
            entries[key], offset = self.value(colon.end(), depth + 1)
            node.keys[key] = place
            after = _NEXT.match(self.text, offset)
            if after is None or after[1] == "]":
                raise self.refuse(self.skip(offset), 'a comma or "}"')
            if after[1] == "}":
                return node, after.end(1)
            offset = after.end()
