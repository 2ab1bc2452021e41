"""Sizes in `$eval`: checked before an operation makes a value where that can be known, and after it always."""

from __future__ import annotations

from typing import Any

from iceprod_p2p.steering.expressions.errors import TooCostly
from iceprod_p2p.steering.limits import EVAL_INT_BITS_MAX, EVAL_ITEMS_MAX, EVAL_STRING_CHARS_MAX

_CHARS_PER_ITEM = 64  # A string counts as one item per so many characters.


def check_bits(value: object) -> None:
    """Refuse an integer of more than EVAL_INT_BITS_MAX bits."""
    if isinstance(value, int) and value.bit_length() > EVAL_INT_BITS_MAX:
        raise TooCostly(f"makes a number of more than {EVAL_INT_BITS_MAX} bits")


def check_string(characters: int) -> None:
    """Refuse a string of more than EVAL_STRING_CHARS_MAX characters."""
    if characters > EVAL_STRING_CHARS_MAX:
        raise TooCostly(f"makes a text longer than {EVAL_STRING_CHARS_MAX}")


def check_count(items: int) -> None:
    """Refuse a list of more than EVAL_ITEMS_MAX items."""
    if items > EVAL_ITEMS_MAX:
        raise TooCostly(f"makes a list of more than {EVAL_ITEMS_MAX} items")


def items_of(value: Any) -> int:
    """Return how many items a value has, nested ones and long strings included; stops counting past the bound."""
    stack = [value]
    count = 0
    while stack:
        item = stack.pop()
        count += 1
        if isinstance(item, str):
            count += len(item) // _CHARS_PER_ITEM
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        if count > EVAL_ITEMS_MAX:
            break
    return count


def check_items(value: Any) -> None:
    """Refuse a value that is past a bound of any kind."""
    check_bits(value)
    if isinstance(value, str):
        check_string(len(value))
    check_count(items_of(value))
