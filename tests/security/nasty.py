"""Messages that no honest program sends, made from the descriptions of the messages themselves."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

TEXTS = (
    "",
    "0",
    "1",
    "-1",
    "9" * 400,
    "1.0.0",
    "1/../../x",
    "../../etc/passwd",
    "/",
    "a" * 64,
    "0" * 64,
    "x" * 10_000,
    "\x1b[2J",
    "\x00",
    "a\nb",
    "\u202e",
    "é雪\U0001f9ca",
    "${jndi:ldap://x}",
    "'; DROP TABLE jobs; --",
    "$(touch hit)",
    "{{7*7}}",
    "%s%n%x",
    "*)(uid=*",
    "NaN",
    "[" * 5_000,
    "(a+)+$" + "a" * 40,
    "*" * 200,
)
BYTES = (
    b"",
    bytes(16),
    bytes(32),
    b"\xff" * 64,
    b"x" * 20_000,
    b"\x91" * 5_000,
    b"-----BEGIN CERTIFICATE-----",
)
FRACTIONS = (0.0, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
_BITS = {
    Field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Field.CPPTYPE_UINT32: (0, 2**32 - 1),
    Field.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def nasty(kind: type[Message], draw: random.Random, *, depth: int = 0) -> Any:
    """Return a message with each field absent, extreme, or of the wrong content."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if draw.random() < 0.3:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(getattr(message, field.name), field.message_type, draw)
        elif field.is_repeated:
            for _ in range(draw.choice((0, 1, 3, 3 if depth else 300))):
                _add(getattr(message, field.name), field, draw, depth)
        elif field.cpp_type == Field.CPPTYPE_MESSAGE:
            if depth < 4:
                inner = nasty(field.message_type._concrete_class, draw, depth=depth + 1)
                getattr(message, field.name).CopyFrom(inner)
        else:
            setattr(message, field.name, _value(field, draw))
    return message


def _add(repeated: Any, field: Field, draw: random.Random, depth: int) -> None:
    if field.cpp_type == Field.CPPTYPE_MESSAGE:
        if depth < 4:
            repeated.add().CopyFrom(nasty(field.message_type._concrete_class, draw, depth=depth + 1))
    else:
        repeated.append(_value(field, draw))


def _fill_map(target: Any, entry: Any, draw: random.Random) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for _ in range(draw.choice((0, 1, 20))):
        if value.cpp_type != Field.CPPTYPE_MESSAGE:
            target[_value(key, draw) if draw.random() < 0.5 else str(draw.random())] = _value(value, draw)


def _value(field: Field, draw: random.Random) -> Any:
    if field.cpp_type == Field.CPPTYPE_STRING:
        return draw.choice(BYTES) if field.type == Field.TYPE_BYTES else draw.choice(TEXTS)
    if field.cpp_type in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        return draw.choice(FRACTIONS)
    if field.cpp_type == Field.CPPTYPE_BOOL:
        return draw.random() < 0.5
    least, most = _BITS.get(field.cpp_type, (0, 1))
    return draw.choice((least, most, 0, 1, 2, draw.randint(least, most)))
