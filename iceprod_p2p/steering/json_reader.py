"""JSON text to nodes with places.  Strict JSON: no comments, no NaN, no repeated names.

The standard decoder is not used because it tells no places, and lets depth and number of values grow unbounded.
"""

from __future__ import annotations

import json.decoder
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, cast

from iceprod_p2p.steering.limits import DEPTH_MAX, NODES_MAX
from iceprod_p2p.steering.nodes import Node, NodeCount, Place, Refusal
from iceprod_p2p.steering.texts import check_text, finite_float, whole_number

_BLANKS: Final = frozenset(" \t\r\n")
_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# A string, or one that is never closed: so that it is never tried again from within.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|$)', re.DOTALL)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_WORD = re.compile(r"[A-Za-z_+\-.][\w+\-.]{0,40}")
# The C scanner of strings: it knows escapes, refuses control characters and is linear.
_scan_string = cast(Callable[[str, int, bool], tuple[str, int]], json.decoder.scanstring)  # type: ignore[attr-defined]


def read_json(text: str, count: NodeCount) -> Node:
    """Return the one value of `text`.  Raises Refusal at the first thing that is not JSON or passes a bound."""
    _check_count(text, count)
    return _JsonReader(text, count).whole()


def _check_count(text: str, count: NodeCount) -> None:
    """Refuse a flood of values before any is made: separators outside strings are counted first, at C speed."""
    if text.count(",") + text.count("[") + text.count("{") > NODES_MAX:
        bare = _STRING.sub("", text)
        values = bare.count(",") + bare.count("[") + bare.count("{")
        if values + count.nodes > 2 * NODES_MAX:
            raise Refusal((0, 0), f"about {values} values", f"at most {NODES_MAX}")


class _JsonReader:
    def __init__(self, text: str, count: NodeCount) -> None:
        self.text = text
        self.count = count
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> Place:
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def refuse(self, offset: int, allowed: str, suggestion: str = "") -> Refusal:
        rest = self.text[offset : offset + 20]
        found = f'"{rest[:1]}"' if rest else "the end of the text"
        if word := _WORD.match(rest):
            found = f'"{word.group()}"'
        return Refusal(self.place(offset), found, allowed, suggestion)

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
        if number and not _WORD.match(self.text, number.end()):
            digits = number.group()
            if number.group(1) is None and number.group(2) is None:
                return Node(whole_number(digits, place), place), number.end()
            return Node(finite_float(digits, place), place), number.end()
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
                self.place(bad.pos), f"a text that is not JSON: {bad.msg}", "a JSON string"
            ) from bad
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
            offset = self.skip(offset)
            if self.text.startswith("]", offset):
                return node, offset + 1
            if not self.text.startswith(",", offset):
                raise self.refuse(offset, 'a comma or "]"')
            offset = self.skip(offset + 1)

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
            offset = self.skip(offset)
            if not self.text.startswith(":", offset):
                raise self.refuse(offset, "a colon")
            entries[key], offset = self.value(self.skip(offset + 1), depth + 1)
            node.keys[key] = place
            offset = self.skip(offset)
            if self.text.startswith("}", offset):
                return node, offset + 1
            if not self.text.startswith(",", offset):
                raise self.refuse(offset, 'a comma or "}"')
            offset = self.skip(offset + 1)
