"""Options of a grid plugin, as they stand in a site's configuration: every wrong one is named at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from iceprod_p2p.base.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name, type, default (None: must be given), bounds for numbers, and what it means."""

    name: str
    kind: type
    default: object = None
    help: str = ""
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()


def read_options(owner: str, table: tuple[Option, ...], given: Mapping[str, object]) -> dict[str, Any]:
    """Return every option of `table` with its value or default; raises ConfigError that names all that is
    wrong.

    Lists of strings become tuples, tables of strings stay mappings.
    """
    known = {option.name: option for option in table}
    names = ", ".join(sorted(known)) or "none"
    faults = [f"{owner}: there is no option {name!r}" for name in sorted(set(given) - set(known))]
    values: dict[str, Any] = {}
    for option in table:
        value = given.get(option.name, option.default)
        fault = "must be given" if value is None else _fault(option, value)
        if fault:
            faults.append(f"{owner}.{option.name}: {fault}" + (f" ({option.help})" if option.help else ""))
        values[option.name] = tuple(cast("list[str]", value)) if option.kind is tuple and not fault else value
    if faults:
        raise ConfigError(
            f"the options of grid {owner!r} are wrong:", faults=tuple(faults), remedy=f"known: {names}"
        )
    return values


def _fault(option: Option, value: object) -> str:
    if option.kind is tuple:
        good = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        return "" if good else f"{value!r} is not a list of strings"
    if option.kind is dict:
        good = isinstance(value, Mapping) and all(isinstance(x, str) for pair in value.items() for x in pair)
        return "" if good else f"{value!r} is not a table of strings"
    if option.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, option.kind) or (isinstance(value, bool) and option.kind is not bool):
        return f"{value!r} is not {_article(option.kind)}"
    if isinstance(value, str) and "\0" in value:
        return "holds a NUL character"
    if option.choices and value not in option.choices:
        return f"{value!r} is none of {', '.join(option.choices)}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if option.least is not None and value < option.least:
            return f"{value} is less than {option.least}"
        if option.most is not None and not value <= option.most:
            return f"{value} is more than {option.most}"
    return ""


def _article(kind: type) -> str:
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(kind, kind.__name__)
