"""Values of parameters: from texts to the declared type, and the reverse."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Final

from iceprod_p2p.model.steering import Parameter, ParameterType, Value
from iceprod_p2p.steering.limits import DEPTH_MAX

_INT: Final = re.compile(r"[+-]?[0-9]{1,300}")
_FLOAT: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_UNIT: Final = re.compile(r"(?P<number>[^@$\\]+)@(?P<unit>[A-Za-z][A-Za-z0-9_:.*/^+-]{0,63})")
_IMPLIED: Final[dict[type, ParameterType]] = {
    bool: ParameterType.BOOL,
    int: ParameterType.INT,
    float: ParameterType.FLOAT,
    str: ParameterType.ANY,
}
_DIGITS_MAX: Final = 310  # Longer ones cost quadratic time,
_QUICK_CHARS_MAX: Final = 200_000  # which many of them in one text of this size may.
_TRUE: Final = ("true", "1", "yes")
_FALSE: Final = ("false", "0", "no")


class NotThatType(ValueError):
    """A value cannot be what its declared type says."""


def implied_type(value: Value) -> ParameterType:
    """Return the type that a JSON or YAML value has when none is declared."""
    return _IMPLIED.get(type(value), ParameterType.JSON)


def make_parameter(name: str, value: Value, declared: ParameterType | None = None) -> Parameter:
    """Return a parameter whose value has its type already where it is a literal.

    Texts with expressions or units stay texts; so does a text that is not what its type says, which `validate`
    reports.
    """
    if declared is None:
        kind = implied_type(value)
        if kind is not ParameterType.FLOAT:
            return Parameter(name, value, kind)
    else:
        kind = declared
    try:
        return Parameter(name, convert(value, kind), kind)
    except NotThatType:
        return Parameter(name, value, kind)


def is_expression(value: Value) -> bool:
    """Return whether a text may have phrases in it."""
    return isinstance(value, str) and "$" in value


def with_unit(text: str) -> tuple[str, str]:
    """Split ``5@GeV`` into number and unit; the unit is empty where there is none."""
    match = _UNIT.fullmatch(text.strip())
    return (match["number"], match["unit"]) if match else (text, "")


def convert(value: Value, kind: ParameterType) -> Value:
    """Return the value in its declared type.  Raises NotThatType when it is not that and cannot become it."""
    if kind in (ParameterType.ANY, ParameterType.JSON):
        return value
    if kind.is_list:
        return _convert_list(value, kind)
    if kind is ParameterType.STRING:
        return value if isinstance(value, str) else to_text(value)
    if kind is ParameterType.BOOL:
        return _convert_bool(value)
    if kind is ParameterType.INT:
        return _convert_int(value)
    return _convert_float(value)


def _convert_bool(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise NotThatType("true or false")


def _convert_int(value: Value) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and len(text) < 64 and float(text).is_integer():
            return int(float(text))
    raise NotThatType("a whole number")


def _convert_float(value: Value) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise NotThatType("a number")
        if isinstance(value, str) and (len(value) >= 1_000 or not _FLOAT.fullmatch(value.strip())):
            raise NotThatType("a number")
        number = float(value)
    except OverflowError as large:
        raise NotThatType("a number") from large
    if not math.isfinite(number):
        raise NotThatType("a finite number")
    return number


def _convert_list(value: Value, kind: ParameterType) -> Value:
    items = split_list(value) if isinstance(value, str) else value
    if not isinstance(items, list):
        raise NotThatType("a list")
    return [item if _stays_text(item) else convert(item, kind.element) for item in items]


def _stays_text(value: Value) -> bool:
    return isinstance(value, str) and ("$" in value or bool(with_unit(value)[1]))


def split_list(text: str) -> list[Value]:
    """Return the items of a list written as JSON or with commas.  Raises NotThatType for a lone expression."""
    stripped = text.strip()
    if not stripped:
        return []
    if stripped.startswith("["):
        parsed = parse_json(stripped)
        if isinstance(parsed, list):
            return parsed
    if "$" in stripped:
        raise NotThatType("a list")
    return [part.strip() for part in stripped.split(",")]


def parse_json(text: str) -> Value:
    """Return the JSON value of `text`.  Raises NotThatType; NaN, infinities and depth over DEPTH_MAX are none."""
    try:
        value: Value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_bounded(text))
        _check_depth(value)
    except (ValueError, RecursionError) as bad:
        raise NotThatType("JSON") from bad
    return value


def _bounded(text: str) -> Callable[[str], int] | None:
    """Return what reads whole numbers of a text: the quick way where few of them can be long."""
    return _whole if len(text) > _QUICK_CHARS_MAX else None


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _check_depth(value: Value) -> None:
    level = [value]
    for _depth in range(DEPTH_MAX):
        level = [
            inner
            for item in level
            if isinstance(item, (list, dict))
            for inner in (item if isinstance(item, list) else item.values())
        ]
        if not level:
            return
    raise ValueError(f"nested deeper than {DEPTH_MAX}")


def _refuse(word: str) -> Value:
    raise ValueError(f"{word} is not a finite number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is not a finite number")
    return number


def to_json(value: Value) -> str:
    """Return compact JSON text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def to_text(value: Value) -> str:
    """Return a value as it stands inside a longer text: numbers and booleans as Python writes them, else JSON."""
    match value:
        case str():
            return value
        case bool() | int() | float():
            return str(value)
        case _:
            return to_json(value)
