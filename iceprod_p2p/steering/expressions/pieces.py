"""Values while they are worked on: texts in which escaped characters are literal ones, lists and objects."""

from __future__ import annotations

from typing import TypeAlias

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.expressions.errors import Unresolved
from iceprod_p2p.steering.expressions.formats import unquoted
from iceprod_p2p.steering.expressions.lexer import literal, plain
from iceprod_p2p.steering.expressions.typed import type_text
from iceprod_p2p.steering.values import to_json, to_text

# A text, in which escaped characters are literal ones and which is parsed again; or a list or object that is final.
Piece: TypeAlias = "str | list[Value] | dict[str, Value]"


def final(piece: Piece) -> Value:
    """Return the value of a piece: a text is typed, and its escaped characters become themselves."""
    if not isinstance(piece, str):
        return piece
    return _unescaped(type_text(piece))


def _unescaped(value: Value) -> Value:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_retyped(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): _retyped(item) for key, item in value.items()}
    return value


def _retyped(value: Value) -> Value:
    """Texts inside a list are typed as the whole was, so that ``["5"]`` and ``[5]`` mean the same."""
    return _unescaped(type_text(value) if isinstance(value, str) else value)


def from_value(value: Value) -> Piece:
    """Return a final value as a piece."""
    return value if isinstance(value, (list, dict)) else to_text(value)


def inside_text(piece: Piece) -> str:
    """Return a piece as part of a longer text; a list becomes JSON whose texts mean only themselves."""
    return piece if isinstance(piece, str) else to_json(_literal_texts(piece))


def _literal_texts(value: Value) -> Value:
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, list):
        return [_literal_texts(item) for item in value]
    if isinstance(value, dict):
        return {literal(key): _literal_texts(item) for key, item in value.items()}
    return value


def from_function(value: Value) -> Piece:
    """Return what a function gave; its text is parsed again, but a backslash in it has done its work."""
    if isinstance(value, (list, dict)):
        return value
    return to_text(value).replace("\\", literal("\\"))


def item_of(piece: Piece, index: str) -> Piece:
    """Return an item of a list, a value of an object, or a character of a text; else the text with its brackets."""
    value = type_text(piece) if isinstance(piece, str) else piece
    number = type_text(index)
    if isinstance(value, list):
        if isinstance(number, bool) or not isinstance(number, int):
            raise Unresolved(f'needs a whole number as index, not "{index[:40]}"')
        if not -len(value) <= number < len(value):
            raise Unresolved(f"has no item {number}: the list has {len(value)}")
        return _piece(value[number])
    if isinstance(value, dict):
        for key in (index, unquoted(index)):
            if key in value:
                return _piece(value[key])
        raise Unresolved(f'has no "{index[:40]}"')
    text = inside_text(piece)
    if isinstance(value, str) and isinstance(number, int) and not isinstance(number, bool):
        characters = plain(text)
        if -len(characters) <= number < len(characters):
            character = characters[number]
            return literal(character) if character in "$()[]\\" else character
    return f"{text}[{index}]"


def _piece(value: Value) -> Piece:
    if isinstance(value, str):
        return literal(value)
    return value if isinstance(value, (list, dict)) else to_text(value)
