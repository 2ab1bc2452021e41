"""Typed access to the entries of one object of a steering file: a wrong type is a fault, and reading goes on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.faults import FaultList
from iceprod_p2p.steering.nodes import Node, NodeCount, Place

# Names to which IceProd 3's schema gives a type: there null is a fault.
_IN_SCHEMA: Final = frozenset(
    (
        *("version", "description", "options", "steering", "tasks", "parameters", "batchsys", "data", "name"),
        *(
            "depends",
            "task_files",
            "requirements",
            "container",
            "token_scopes",
            "trays",
            "iterations",
            "modules",
        ),
        *(
            "src",
            "running_class",
            "args",
            "env_shell",
            "env_clear",
            "configs",
            "cpu",
            "gpu",
            "memory",
            "disk",
        ),
        *("time", "os", "site", "remote", "local", "type", "movement", "transfer"),
    )
)

Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which names and forms a file may use.

    `schema` is "3.1" or "3.2" for IceProd 3's JSON read as it is; "3" for IceProd 2's JSON; empty for our own form.
    `texts` says that every value is a text, as in XML.
    """

    schema: str = ""
    texts: bool = False

    @property
    def strict(self) -> bool:
        """Return whether the file follows IceProd 3's schema to the letter: required names, no nulls."""
        return self.schema in ("3.1", "3.2")


@dataclass(slots=True)
class Reading:
    """What all parts of one file share while it is read."""

    faults: FaultList
    dialect: Dialect
    count: NodeCount
    places: dict[str, Place]


class Fields:
    """The entries of one object.  Each accessor returns a usable value even when it reports a fault."""

    def __init__(self, node: Node, path: str, reading: Reading) -> None:
        self.node = node
        self.path = path
        self.reading = reading
        self.content: dict[str, Node] = {}
        self.used: set[str] = set()
        reading.places[path] = node.place
        if isinstance(node.content, dict):
            self.content = node.content
        elif node.content is not None or reading.dialect.strict:
            self.wrong(node, path, "an object")

    def wrong(self, node: Node, path: str, allowed: str) -> None:
        """Report a value of the wrong type."""
        content = node.content
        if isinstance(content, (str, bool, int, float)):
            self.reading.faults.add(node.place, path, content, allowed)
        else:
            self.reading.faults.say(node.place, path, node.kind(), allowed)

    def at(self, name: str) -> str:
        """Return the path of an entry."""
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str) -> Node | None:
        """Return an entry, or None when it is absent; null counts as absent except in IceProd 3's own schema."""
        self.used.add(name)
        node = self.content.get(name)
        if node is None:
            return None
        self.reading.places[self.at(name)] = node.place
        if node.content is None and not (self.reading.dialect.strict and name in _IN_SCHEMA):
            return None
        return node

    def first(self, *names: str) -> tuple[str, Node | None]:
        """Return the first of several names for one thing that is there; a second one is a fault."""
        found: tuple[str, Node | None] = (names[0], None)
        self.used.update(names)
        for name in names:
            node = self.take(name) if name in self.content else None
            if node is None or node.content == "":
                continue
            if found[1] is not None:
                self.reading.faults.say(
                    node.place, self.at(name), f'"{name}" beside "{found[0]}"', f'only "{found[0]}"'
                )
            else:
                found = (name, node)
        return found

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        node = self.take(name)
        if node is None:
            return default
        if isinstance(node.content, str):
            return node.content
        self.wrong(node, self.at(name), "a text")
        return default

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return a boolean."""
        node = self.take(name)
        if node is None:
            return default
        if isinstance(node.content, bool):
            return node.content
        # IceProd wrote booleans of XML as Python does: "True".
        word = node.content.lower() if self.reading.dialect.texts and isinstance(node.content, str) else ""
        if word in ("true", "false", "1", "0"):
            return word in ("true", "1")
        self.wrong(node, self.at(name), "true or false")
        return default

    def word(self, name: str, kind: type[Word], default: Word) -> Word:
        """Return one of the words of an enumeration."""
        node = self.take(name)
        if node is None:
            return default
        words = [member.value for member in kind]
        if isinstance(node.content, str) and node.content in words:
            return kind(node.content)
        allowed = ", ".join(words)
        if isinstance(node.content, str):
            self.reading.faults.add(node.place, self.at(name), node.content, allowed, names=words)
        else:
            self.wrong(node, self.at(name), allowed)
        return default

    def items(self, name: str, *, at_least: int = 0, required: bool = False) -> Iterator[tuple[str, Node]]:
        """Yield path and node of each item of a list."""
        node = self.take(name)
        what = f"a list of at least {at_least}" if at_least else "a list"
        if node is None:
            if required:
                self.reading.faults.say(
                    self.node.place, self.path or "the file", f'no "{name}"', f'"{name}": {what}'
                )
            return
        if not isinstance(node.content, list):
            self.wrong(node, self.at(name), what)
            return
        if len(node.content) < at_least:
            self.reading.faults.say(node.place, self.at(name), "an empty list", what)
        for index, item in enumerate(node.content):
            yield f"{self.at(name)}[{index}]", item

    def entries(self, name: str) -> Iterator[tuple[str, str, Node, Place]]:
        """Yield name, path, node and the place of the name for each entry of an inner object."""
        node = self.take(name)
        if node is None:
            return
        if not isinstance(node.content, dict):
            self.wrong(node, self.at(name), "an object")
            return
        for key, value in node.content.items():
            yield key, f"{self.at(name)}.{key}", value, node.keys.get(key, value.place)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; in our own form a single text counts as a list of one."""
        node = self.take(name)
        if node is not None and isinstance(node.content, str) and not self.reading.dialect.strict:
            return (node.content,) if node.content else ()
        found: list[str] = []
        for path, item in self.items(name):
            if isinstance(item.content, str):
                found.append(item.content)
            else:
                self.wrong(item, path, "a text")
        return tuple(found)

    def plain_object(self, name: str) -> dict[str, Value]:
        """Return an object of any JSON values."""
        return {key: node.plain() for key, _path, node, _place in self.entries(name)}

    def unknown(self, allowed: Collection[str]) -> None:
        """Report every entry whose name is not among those allowed."""
        for key, node in self.content.items():
            if key not in allowed:
                place = self.node.keys.get(key, node.place)
                names = [name for name in allowed if name != "types"]
                what = f"the names {', '.join(names)}"
                self.reading.faults.add(place, self.at(key), key, what, names=names)

    def extra(self) -> dict[str, Value]:
        """Return the entries that no accessor has asked for: to be called after all of them.

        IceProd's files may have any; in our own form they stand in an object `extra`, and others are faults.  In XML
        only <extra> makes such entries.
        """
        if self.reading.dialect.schema or self.reading.dialect.texts:
            return {key: node.plain() for key, node in self.content.items() if key not in self.used}
        kept = self.plain_object("extra")
        known = [
            name for name in sorted(self.used) if name not in ("extra", "types", "difplus", "running_class")
        ]
        for key, node in self.content.items():
            if key not in self.used:
                place = self.node.keys.get(key, node.place)
                what = f"the names {', '.join(known)}; what is your own goes into extra"
                self.reading.faults.add(place, self.at(key), key, what, names=known)
        return kept
