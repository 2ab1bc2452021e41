"""Protobuf messages as plain dictionaries, with whole numbers kept as numbers and absent fields as zeros."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message


def plain(message: Message, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return every field of `message` under its proto name, nested messages included; bytes become hex text."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.name in without:
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            result[field.name] = {key: _value(value[key]) for key in sorted(value)}
        elif field.is_repeated:
            result[field.name] = [_value(item) for item in value]
        else:
            result[field.name] = _value(value)
    return result


def _value(value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    return value.hex() if isinstance(value, bytes) else value
