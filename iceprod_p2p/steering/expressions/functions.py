"""The functions other than `$eval`: sprintf, choice, and the reductions sum, min, max, len."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.expressions import formats
from iceprod_p2p.steering.expressions.errors import Unresolved
from iceprod_p2p.steering.expressions.lexer import plain
from iceprod_p2p.steering.expressions.typed import type_text

REDUCTIONS: Final = ("sum", "min", "max", "len")


def split_arguments(text: str) -> list[str]:
    """Return the arguments of a call: split at commas outside quotes, brackets and parentheses, blanks trimmed.

    A quote counts as one where an argument begins.  Raises Unresolved when it is not closed.
    """
    arguments: list[str] = []
    begin = 0
    depth = 0
    at = 0
    fresh = True  # Only blanks since the last comma.
    while at < len(text):
        character = text[at]
        if fresh and character in "\"'":
            at = text.find(character, at + 1)
            if at < 0:
                raise Unresolved("has a quote that is not closed")
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            arguments.append(text[begin:at].strip())
            begin = at + 1
        fresh = (fresh and character.isspace()) or (character == "," and depth == 0)
        at += 1
    arguments.append(text[begin:].strip())
    return arguments


def sprintf(text: str) -> str:
    """Return ``format, argument, ...`` formatted."""
    arguments = [plain(argument) for argument in split_arguments(text)]
    if not arguments[0]:
        raise Unresolved("has no format")
    return formats.sprintf(formats.unquoted(arguments[0]), arguments[1:])


def items(value: Value) -> list[Value]:
    """Return a list given as a list, as its text, or with commas.  Raises Unresolved when there is nothing."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return list(value)
    typed = type_text(plain(str(value)))
    if isinstance(typed, list):
        return typed
    if isinstance(typed, dict):
        return list(typed)
    if not str(value).strip():
        raise Unresolved("has no list")
    return [plain(part) for part in split_arguments(str(value))]


def choice(value: Value, *key: object) -> Value:
    """Return one item of a list; which one depends on `key` alone, on every machine and in every attempt."""
    choices = items(value)
    if not choices:
        raise Unresolved("has nothing to choose from")
    return choices[draw(len(choices), *key)]


def draw(count: int, *key: object) -> int:
    """Return a number from 0 to count - 1 that depends on `key` alone."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
    return int.from_bytes(digest[:16], "big") % count


def reduce(name: str, value: Value) -> int | float | str:
    """Return sum, min, max or len of a list.  `len` of a text that is no list counts its characters."""
    if name == "len":
        return _length(value)
    found = [type_text(item) if isinstance(item, str) else item for item in items(value)]
    if not found:
        raise Unresolved("has an empty list")
    if name != "sum" and all(isinstance(item, str) for item in found):
        texts = [str(item) for item in found]
        return min(texts) if name == "min" else max(texts)
    numbers = [
        number for number in found if isinstance(number, (int, float)) and not isinstance(number, bool)
    ]
    if len(numbers) != len(found):
        raise Unresolved("needs a list of numbers")
    return _of_numbers(name, numbers)


def _of_numbers(name: str, numbers: Sequence[int | float]) -> int | float:
    if name == "min":
        return min(numbers)
    if name == "max":
        return max(numbers)
    total: int | float = 0
    try:
        for number in numbers:  # In order: the built-in sum compensates in some versions of Python.
            total = total + number
    except OverflowError as large:
        raise Unresolved("has a sum that is too large") from large
    if not math.isfinite(total):
        raise Unresolved("has a sum that is too large")
    return total


def _length(value: Value) -> int:
    if isinstance(value, (list, dict)):
        return len(value)
    text = str(value)
    typed = type_text(plain(text))
    if isinstance(typed, (list, dict)):
        return len(typed)
    arguments = split_arguments(text)
    return len(arguments) if len(arguments) > 1 else len(formats.unquoted(plain(text)))
