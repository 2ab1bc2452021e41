"""Read a steering file: XML, YAML or JSON, told apart by content, into one tree.

`read` gives a tree or raises with all faults; `check` gives all faults (and the tree as far as it could be read).
Both are pure and bounded: limits.py says how much.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.model.steering import Configuration
from iceprod_p2p.steering.build import FORMAT, build
from iceprod_p2p.steering.faults import Fault, FaultList, SteeringError, TooManyFaults
from iceprod_p2p.steering.fields import Dialect
from iceprod_p2p.steering.json_reader import read_json
from iceprod_p2p.steering.nodes import Node, NodeCount, Place, Refusal
from iceprod_p2p.steering.texts import decode
from iceprod_p2p.steering.validate import find_faults

SYNTAXES: Final = ("xml", "yaml", "json")
_YAML_ENDINGS: Final = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file is: its syntax, the tree as far as it was readable, and every fault."""

    syntax: str
    configuration: Configuration | None
    faults: tuple[Fault, ...]
    places: dict[str, Place]


def read(text: bytes | str, *, name: str = "steering") -> Configuration:
    """Return the tree of a steering file; `name` is the file's name, for messages and to tell YAML from JSON.

    Raises SteeringError with every fault when there is one.
    """
    checked = check(text, name=name)
    if checked.faults or checked.configuration is None:
        raise SteeringError(checked.faults)
    return checked.configuration


def check(text: bytes | str, *, name: str = "steering") -> Checked:
    """Return everything that is wrong with a steering file, and its tree as far as it could be read."""
    faults = FaultList(name)
    syntax = ""
    try:
        decoded = decode(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        syntax = syntax_of(decoded, name)
        node, dialect, count = _nodes(decoded, syntax, faults)
        configuration, places = build(node, dialect, faults, count)
    except Refusal as refusal:
        faults.say(refusal.place, "", refusal.found, refusal.allowed, refusal.suggestion)
        return Checked(syntax, None, tuple(faults.faults), {})
    except TooManyFaults:
        return Checked(syntax, None, tuple(faults.faults), {})
    with suppress(TooManyFaults):
        find_faults(configuration, faults, places)
    ordered = sorted(faults.faults, key=lambda fault: (fault.line, fault.column))
    return Checked(syntax, configuration, tuple(ordered), places)


def syntax_of(text: str, name: str) -> str:
    """Return xml, yaml or json, by the first sign of the text; the file's ending decides where both would do."""
    first = text.lstrip()[:1]
    if first == "<":
        return "xml"
    if first in ("{", "[") and not name.lower().endswith(_YAML_ENDINGS):
        return "json"
    return "yaml"


def _nodes(text: str, syntax: str, faults: FaultList) -> tuple[Node, Dialect, NodeCount]:
    count = NodeCount()
    if syntax == "json":
        node = read_json(text, count)
        return node, _json_dialect(node, faults), count
    # The pilot reads only JSON: it carries neither the XML vocabulary nor PyYAML.
    if syntax == "xml":
        from iceprod_p2p.steering.xml_nodes import XmlShape
        from iceprod_p2p.steering.xml_reader import read_xml

        root = read_xml(text, count)
        return XmlShape(faults, count).configuration(root), Dialect(texts=True), count
    from iceprod_p2p.steering.yaml_reader import read_yaml

    node = read_yaml(text, count)
    _own_format(node, faults)
    return node, Dialect(), count


def _own_format(node: Node, faults: FaultList) -> bool:
    """Return whether a file says that it is in our own form; an unknown form is a fault."""
    marked = node.content.get("format") if isinstance(node.content, dict) else None
    if marked is None:
        return False
    if marked.content != FORMAT:
        faults.add(marked.place, "format", marked.plain(), FORMAT, names=(FORMAT,))
    return True


def _json_dialect(node: Node, faults: FaultList) -> Dialect:
    """Return which schema a JSON file follows: ours when it says so, else IceProd's by its version."""
    if _own_format(node, faults):
        return Dialect()
    version = node.content.get("version") if isinstance(node.content, dict) else None
    if version is None:
        return Dialect(schema="3.1")  # IceProd 3's default; the missing version is a fault of its own.
    content = version.content
    number: object = content
    if isinstance(content, str):
        try:
            number = float(content)
        except ValueError:
            number = content
    for schema in ("3.1", "3.2", "3"):
        if not isinstance(number, bool) and number == float(schema):
            return Dialect(schema=schema)
    faults.add(version.place, "version", version.plain(), f'3, 3.1, 3.2, or "format": "{FORMAT}"')
    return Dialect(schema="3.2")
