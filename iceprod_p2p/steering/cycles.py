"""Parameters that refer to themselves, directly or through others: found in the text, before anything is expanded.

Seen are references by constant names, such as ``$steering(a)`` and ``$(a)``; a name that is itself made by phrases is
known only when a job is expanded, where `expressions.evaluate` finds the cycle and names it.  Like there, ``$(a)``
means the nearest parameter as seen from where the reference is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from iceprod_p2p.model.steering import Configuration, Parameter, Value
from iceprod_p2p.steering.faults import quoted
from iceprod_p2p.steering.limits import REFERENCES_MAX

JOB_ARGUMENTS: Final = frozenset(
    (
        *(
            "dataset",
            "job",
            "procnum",
            "jobs",
            "nproc",
            "jobs_submitted",
            "task",
            "task_index",
            "tray",
            "iter",
        ),
        *("seed", "subdirectory", "input", "output"),
    )
)
NAMES_SHOWN_MAX: Final = 8  # Of a cycle; the rest is a number.

_REFERENCE: Final = re.compile(
    r"\\.|\$(?P<lookup>args|steering|system|options)?\((?P<name>[^$()\[\]\\]{1,256})\)", re.DOTALL
)

Key: TypeAlias = tuple[str, str]  # The path of the parameters, and a name among them.
Table: TypeAlias = tuple[str, Mapping[str, Value]]  # The path of parameters, and their values by name.


class Reference(NamedTuple):
    """What a text refers to: ``$lookup(name)``."""

    lookup: str
    name: str


class _Enough(Exception):
    """The bound on references is passed: the search ends with what it has found."""


def parameter_cycles(configuration: Configuration) -> list[tuple[str, str]]:
    """Return the path of one parameter of each cycle, and the way around in words.

    Looks at no more than REFERENCES_MAX references: in a file with more some cycles are left to be found by expanding.
    """
    search = _Search(
        steering=("steering.parameters", _values(configuration.steering.parameters)),
        system=("steering.system", _values(configuration.steering.system)),
        options=("options", _values(configuration.options)),
    )
    with suppress(_Enough):
        search.everywhere(configuration)
    return search.found


def shown_way(names: Sequence[str]) -> str:
    """Return the names of a cycle as ``a -> b -> a``, the middle of a long one left out."""
    shown = [quoted(name)[1:-1] for name in names[:NAMES_SHOWN_MAX]]
    if len(names) <= NAMES_SHOWN_MAX:
        return " -> ".join((*shown, shown[0]))
    return f"{' -> '.join(shown)} -> ... -> {shown[0]} ({len(names)} in all)"


def _values(parameters: tuple[Parameter, ...]) -> dict[str, Value]:
    return {parameter.name: parameter.value for parameter in parameters}


@dataclass(slots=True)
class _Search:
    steering: Table
    system: Table
    options: Table
    found: list[tuple[str, str]] = field(default_factory=list)
    known: dict[Key, tuple[Reference, ...]] = field(default_factory=dict)
    reported: set[frozenset[Key]] = field(default_factory=set)
    left: int = REFERENCES_MAX

    def everywhere(self, configuration: Configuration) -> None:
        for table in (self.steering, self.system, self.options):
            self.roots(table, ())
        for number, task in enumerate(configuration.tasks):
            path = f"tasks[{number}]"
            in_task = self.inside(path, task.parameters, ())
            for index, tray in enumerate(task.trays):
                inner = f"{path}.trays[{index}]"
                in_tray = self.inside(inner, tray.parameters, in_task)
                for order, module in enumerate(tray.modules):
                    self.inside(f"{inner}.modules[{order}]", module.parameters, in_tray)

    def inside(
        self, path: str, parameters: tuple[Parameter, ...], scopes: tuple[Table, ...]
    ) -> tuple[Table, ...]:
        """Search one level of the tree, and return the scopes as seen from inside it."""
        if not parameters:
            return scopes
        table = (f"{path}.parameters", _values(parameters))
        self.roots(table, (table, *scopes))
        return (table, *scopes)

    def roots(self, table: Table, scopes: tuple[Table, ...]) -> None:
        """Walk from every parameter of one table; scopes are the tables that ``$(name)`` sees first."""
        done: set[Key] = set()
        for name in table[1]:
            self.walk((table[0], name), table[1][name], scopes, done)

    def walk(self, root: Key, value: Value, scopes: tuple[Table, ...], done: set[Key]) -> None:
        """Go along references depth first, without recursion; a key met again on the way closes a cycle."""
        if root in done or not self.references(root, value):
            return
        way: dict[Key, Iterator[Reference]] = {root: iter(self.references(root, value))}
        while way:
            key = next(reversed(way))
            reference = next(way[key], None)
            if reference is None:
                del way[key]
                done.add(key)
                continue
            self.spend(1)
            meant = self.resolve(reference, scopes)
            if meant is None:
                continue
            target, content = meant
            if target in way:
                self.spend(len(way) // 8)
                keys = list(way)
                self.report(keys[keys.index(target) :])
            elif target not in done:
                way[target] = iter(self.references(target, content))

    def report(self, keys: list[Key]) -> None:
        if frozenset(keys) not in self.reported:
            self.reported.add(frozenset(keys))
            self.found.append((".".join(keys[0]), shown_way([".".join(key) for key in keys])))

    def resolve(self, reference: Reference, scopes: tuple[Table, ...]) -> tuple[Key, Value] | None:
        """Return the parameter meant, as `expressions.context` finds it; None when it is none of the file's."""
        name = reference.name
        searched: tuple[Table, ...]
        match reference.lookup:
            case "steering":
                searched = (self.steering,)
            case "system":
                searched = (self.system,)
            case "options":
                searched = (self.options,)
            case "args":
                searched = () if name in JOB_ARGUMENTS else (self.options,)
            case _:
                searched = (*scopes, self.steering)
                if name not in JOB_ARGUMENTS:
                    searched = (*searched, self.options)
        for path, values in searched:
            if name in values:
                return (path, name), values[name]
        return None

    def references(self, key: Key, value: Value) -> tuple[Reference, ...]:
        known = self.known.get(key)
        if known is None:
            known = self.known[key] = tuple(dict.fromkeys(self.read(value)))
        return known

    def read(self, value: Value) -> Iterator[Reference]:
        """Yield the references in a value and in everything inside it."""
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, list):
                stack.extend(item)
            elif isinstance(item, dict):
                stack.extend(item)
                stack.extend(item.values())
            elif isinstance(item, str) and "$" in item:
                for match in _REFERENCE.finditer(item):
                    self.spend(1)
                    if match["name"] is not None:
                        yield Reference(match["lookup"] or "", match["name"])

    def spend(self, references: int) -> None:
        self.left -= references
        if self.left < 0:
            raise _Enough
