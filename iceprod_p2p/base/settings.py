"""Tables of settings: what a section of `site.toml` may hold, checked with every fault named at once.

One table per section gives the reader, the commented example file and the documentation, so they cannot
disagree.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from iceprod_p2p.base.toml_lines import Path, line_of

Kind = Literal["text", "label", "path", "address", "whole", "number", "switch", "texts", "table", "values"]

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?):[0-9]{1,5}")
TEXT_LENGTH_MAX = 4_096  # Longer values are no settings but content, which belongs into files.
TABLE_SIZE_MAX = 256


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: its kind, its default (None: it must be given), bounds of numbers, and what it means."""

    name: str
    kind: Kind
    default: Any = None
    help: str = ""
    least: float = 0
    most: float = 10**12
    choices: tuple[str, ...] = ()


@dataclass(slots=True)
class Faults:
    """Collects what is wrong with one file, each as ``line N: section.key: what; how to mend it``."""

    lines: Mapping[Path, int]
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, path: Path, what: str) -> None:
        """Note one fault of the setting at `path`."""
        self.found.append((line_of(self.lines, path), f"{_spoken(path)}: {what}"))

    def sentences(self) -> tuple[str, ...]:
        """Return every fault in the order of the file."""
        return tuple(f"line {line}: {text}" for line, text in sorted(self.found))


def read_section(
    table: Sequence[Setting], given: object, path: Path, faults: Faults, *, ignore: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a value for every setting of `table`; wrong, missing and unknown ones are noted in `faults`."""
    if not isinstance(given, Mapping):
        faults.add(path, f"is not a table; write [{'.'.join(path)}]")
        given = {}
    names = [setting.name for setting in table]
    for name in given:
        if name not in names and name not in ignore:
            faults.add((*path, name), unknown(name, [*names, *ignore]))
    values: dict[str, Any] = {}
    for setting in table:
        value = given.get(setting.name, setting.default)
        fault = _fault(setting, value)
        if fault:
            where = (*path, setting.name) if setting.name in given else path
            faults.add(where, fault if setting.name in given else f"{setting.name} {fault}")
            value = setting.default
        values[setting.name] = tuple(value) if setting.kind == "texts" and value is not None else value
    return values


def unknown(name: str, known: Sequence[str]) -> str:
    """Return the sentence for a name that is not known, with the nearest one that is."""
    near = difflib.get_close_matches(name, known, n=1)
    return (
        f"there is no such setting; did you mean {near[0]}?"
        if near
        else (f"there is no such setting; known are {', '.join(sorted(known))}")
    )


def _spoken(path: Path) -> str:
    return ".".join(path) or "the file"


def _fault(setting: Setting, value: Any) -> str:
    if value is None:
        return f"must be given ({setting.help})"
    match setting.kind:
        case "whole" | "number":
            return _number_fault(setting, value)
        case "switch":
            return "" if isinstance(value, bool) else f"{_shown(value)} is not true or false"
        case "texts":
            return _texts_fault(value)
        case "table" | "values":
            return _table_fault(value, texts=setting.kind == "table", choices=setting.choices)
        case _:
            return _text_fault(setting, value)


def _number_fault(setting: Setting, value: Any) -> str:
    wanted = (int,) if setting.kind == "whole" else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        return f"{_shown(value)} is not a {'whole number' if setting.kind == 'whole' else 'number'}"
    if not setting.least <= value <= setting.most:  # Also refuses NaN.
        return f"{_shown(value)} is not within {setting.least:g} to {setting.most:g}"
    return ""


def _texts_fault(value: Any) -> str:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return f'{_shown(value)} is not a list of texts such as ["a", "b"]'
    if len(value) > TABLE_SIZE_MAX or any(_unfit(item) for item in value):
        return f"has more than {TABLE_SIZE_MAX} entries or one with control characters"
    return ""


def _table_fault(value: Any, *, texts: bool, choices: tuple[str, ...]) -> str:
    if not isinstance(value, Mapping):
        return f"{_shown(value)} is not a table"
    if len(value) > TABLE_SIZE_MAX:
        return f"has more than {TABLE_SIZE_MAX} entries"
    if texts:
        for name, item in value.items():
            if not isinstance(item, str) or _unfit(item):
                return f"{name} = {_shown(item)} is not a text; put it in quotes"
            if choices and item not in choices:
                return f"{name} = {_shown(item)}: {_shown(item)} is none of {', '.join(choices)}"
    return ""


def _text_fault(setting: Setting, value: Any) -> str:
    if not isinstance(value, str):
        return f"{_shown(value)} is not a text; put it in quotes"
    if _unfit(value):
        return f"is longer than {TEXT_LENGTH_MAX} characters or holds control characters"
    if setting.choices and value not in setting.choices:
        return f"{_shown(value)} is none of {', '.join(setting.choices)}"
    if value == "" and setting.default == "":
        return ""
    if setting.kind == "label" and _LABEL.fullmatch(value) is None:
        return f"{_shown(value)} is no name: use lower-case letters, digits and inner '-', at most 63"
    if setting.kind == "address" and not _is_address(value):
        wrong = "is no port: 1 to 65535" if _ADDRESS.fullmatch(value) else "is no address: write host:port"
        return f"{_shown(value)} {wrong}, such as 127.0.0.1:4410"
    if setting.kind == "path" and not value.startswith(("/", "~/")):
        return f"{_shown(value)} is not an absolute path; begin it with / or ~/"
    return ""


def _is_address(value: str) -> bool:
    return _ADDRESS.fullmatch(value) is not None and int(value.rpartition(":")[2]) <= 65_535


def _unfit(text: str) -> bool:
    return len(text) > TEXT_LENGTH_MAX or any(ord(letter) < 32 or ord(letter) == 127 for letter in text)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
