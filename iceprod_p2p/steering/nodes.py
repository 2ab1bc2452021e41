"""The common shape of all three syntaxes: scalars, sequences and mappings, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.limits import NODES_MAX

Place: TypeAlias = tuple[int, int]  # Line and column, both from 1; (0, 0) is unknown.
Scalar: TypeAlias = bool | int | float | str | None

NOWHERE: Place = (0, 0)


@dataclass(slots=True)
class Node:
    """One value of a file.

    `content` is a scalar, a list of nodes, or a dictionary of nodes by name; `keys` has the places of the names.
    """

    content: Scalar | list[Node] | dict[str, Node]
    place: Place = NOWHERE
    keys: dict[str, Place] = field(default_factory=dict)

    def plain(self) -> Value:
        """Return the value without places."""
        content = self.content
        if isinstance(content, list):
            return [item.plain() for item in content]
        if isinstance(content, dict):
            return {key: item.plain() for key, item in content.items()}
        return content

    def kind(self) -> str:
        """Return what this is, in the words of a fault."""
        match self.content:
            case None:
                return "nothing (null)"
            case bool():
                return "a boolean"
            case int() | float():
                return "a number"
            case str():
                return "a text"
            case list():
                return "a list"
            case _:
                return "an object"


class Refusal(Exception):
    """A reader cannot go on: bad syntax, or a bound is passed.  Only `read` sees it and makes it a fault."""

    def __init__(self, place: Place, found: str, allowed: str, suggestion: str = "") -> None:
        super().__init__(found)
        self.place = place
        self.found = found
        self.allowed = allowed
        self.suggestion = suggestion


class NodeCount:
    """How many values a file has so far: one count for everything in it, so that parts cannot add up past it."""

    def __init__(self) -> None:
        self.nodes = 0

    def add(self, nodes: int, place: Place) -> None:
        """Count further values.  Raises Refusal when the file has more than NODES_MAX."""
        self.nodes += nodes
        if self.nodes > NODES_MAX:
            raise Refusal(place, f"more than {NODES_MAX} values", f"at most {NODES_MAX}")
