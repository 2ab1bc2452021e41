"""A module's parameters: what is declared, and how a value from a steering file becomes the declared type.

A type that was declared is kept strictly.  A type that was only inferred from the default (old modules
declare none) converts text that reads as that type and leaves everything else alone, so that a default of
``0`` does not forbid 1.5.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from types import GenericAlias
from typing import Any

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules.statistics import clip

TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})


class ParameterType(StrEnum):
    """The types of the steering file; `double` is read as `float`."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "string"
    JSON = "json"
    BOOL_LIST = "bool_list"
    INT_LIST = "int_list"
    FLOAT_LIST = "float_list"
    STRING_LIST = "string_list"


_ALIASES = {
    "double": "float",
    "double_list": "float_list",
    "str": "string",
    "list": "string_list",
    "dict": "json",
}
_PYTHON_TYPES: dict[Any, ParameterType] = {
    bool: ParameterType.BOOL,
    int: ParameterType.INT,
    float: ParameterType.FLOAT,
    str: ParameterType.STRING,
    list: ParameterType.JSON,
    dict: ParameterType.JSON,
    list[bool]: ParameterType.BOOL_LIST,
    list[int]: ParameterType.INT_LIST,
    list[float]: ParameterType.FLOAT_LIST,
    list[str]: ParameterType.STRING_LIST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """A declared parameter.  `type` None: any value; `required`: there is no default.

    `unit` is for people.
    """

    name: str
    description: str = ""
    type: ParameterType | None = None
    default: Any = None
    required: bool = False
    strict: bool = False
    unit: str = ""

    def convert(self, value: Any) -> Any:
        """Return `value` in this parameter's type.

        BadInput, naming the parameter, when it cannot be and the parameter is strict.
        """
        if self.type is None or (value is None and not self.strict):
            return value
        try:
            return convert(self.type, value)
        except ValueError as wrong:
            if self.strict:
                raise BadInput(f"parameter {self.name!r}: {wrong}") from wrong
            return value


def parameter_type(declared: Any) -> ParameterType | None:
    """Return the type meant by a name ("int", "double_list") or a Python type; None when none is.

    BadInput when there is no such type.
    """
    if declared is None:
        return None
    if isinstance(declared, type | GenericAlias) and declared in _PYTHON_TYPES:
        return _PYTHON_TYPES[declared]
    word = str(declared).lower()
    try:
        return ParameterType(_ALIASES.get(word, word))
    except ValueError:
        known = ", ".join(ParameterType)
        raise BadInput(f"{clip(declared)} is no parameter type", remedy=f"the types are {known}") from None


def inferred_type(default: Any) -> ParameterType | None:
    """Return the type that a default suggests; None for None and for what steering files cannot hold."""
    return _PYTHON_TYPES.get(type(default))


def convert(kind: ParameterType, value: Any) -> Any:
    """Return `value` as `kind`; ValueError saying what was found when it cannot be without loss."""
    if kind is ParameterType.JSON:
        return _from_json(value) if isinstance(value, str) else value
    if kind.endswith("_list"):
        return _convert_list(ParameterType(kind.removesuffix("_list")), value)
    return _CONVERTERS[kind](value)


def _convert_list(kind: ParameterType, value: Any) -> list[Any]:
    if isinstance(value, str):
        text = value.strip()
        value = (
            _from_json(text)
            if text.startswith("[")
            else [part.strip() for part in text.split(",") if part.strip()]
        )
    if not isinstance(value, list | tuple):
        raise ValueError(f"{clip(value)} is not a list")
    return [_CONVERTERS[kind](item) for item in value]


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(f"{clip(value)} is not true or false")


def _to_int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value.strip())
        except ValueError:
            number = _finite(value)
            if number is not None and number.is_integer() and abs(number) < 2**53:
                return int(number)
    raise ValueError(f"{clip(value)} is not a whole number")


def _to_float(value: Any) -> float:
    number = None if isinstance(value, bool) else _finite(value)
    if number is None:
        raise ValueError(f"{clip(value)} is not a finite number")
    return number


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _to_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"{clip(value)} is not text")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise ValueError(f"{clip(text)} is not JSON: {wrong}") from None


_CONVERTERS = {
    ParameterType.BOOL: _to_bool,
    ParameterType.INT: _to_int,
    ParameterType.FLOAT: _to_float,
    ParameterType.STRING: _to_string,
}
