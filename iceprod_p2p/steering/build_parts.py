"""Two parts of the tree with forms of their own: requirements and metadata."""

from __future__ import annotations

import re
from typing import Final

from iceprod_p2p.model.steering import Metadata, MetadataField, Requirements
from iceprod_p2p.steering.fields import Fields
from iceprod_p2p.steering.metadata import DIF_PLUS_ELEMENTS, element_name
from iceprod_p2p.steering.nodes import Node

_WHOLE: Final = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]{1,3})?")


def read_requirements(fields: Fields) -> Requirements:
    """Return what a task needs, with plain numbers as numbers and everything else as written."""
    node = fields.take("requirements")
    if node is None:
        return Requirements()
    inner = Fields(node, fields.at("requirements"), fields.reading)
    strict = fields.reading.dialect.strict
    return Requirements(
        cpu=_amount(inner, "cpu", whole=strict),
        gpu=_amount(inner, "gpu", whole=strict),
        memory=_amount(inner, "memory"),
        disk=_amount(inner, "disk"),
        time=_amount(inner, "time"),
        os=inner.texts("os"),
        arch=inner.text("arch"),
        site=inner.text("site"),
        attributes=inner.texts("attributes"),
        extra=inner.extra(),
    )


def _amount(fields: Fields, name: str, *, whole: bool = False) -> int | float | str | None:
    node = fields.take(name)
    if node is None or (node.content == "" and not whole):
        return None
    content = node.content
    if isinstance(content, float) and whole and content.is_integer():
        return int(content)
    if (
        isinstance(content, (int, float))
        and not isinstance(content, bool)
        and not (whole and isinstance(content, float))
    ):
        return content
    if isinstance(content, str) and not whole:
        return _plain_amount(content)
    fields.wrong(node, fields.at(name), "a whole number" if whole else "a number")
    return None


def _plain_amount(text: str) -> int | float | str:
    stripped = text.strip()
    if _WHOLE.fullmatch(stripped):
        return int(stripped)
    if _DECIMAL.fullmatch(stripped) and abs(number := float(stripped)) < 1e300:
        return number
    return text


def read_metadata(fields: Fields) -> Metadata | None:
    """Return DIF_Plus from `metadata` (ours) or `difplus` (IceProd 2's JSON); None when there is none."""
    name, node = fields.first("metadata", "difplus")
    if node is None:
        return None
    inner = Fields(node, name, fields.reading)
    parts: dict[str, tuple[MetadataField, ...]] = {"DIF": (), "Plus": ()}
    for key, child in inner.content.items():
        part = element_name("DIF_Plus", key)
        if not part:
            place = node.keys.get(key, child.place)
            fields.reading.faults.add(place, inner.at(key), key, "DIF, Plus", names=("DIF", "Plus"))
        elif child.content is not None:
            parts[part] = _elements(fields, child, part, inner.at(key))
    return Metadata(parts["DIF"], parts["Plus"])


def _elements(fields: Fields, node: Node, parent: str, path: str) -> tuple[MetadataField, ...]:
    inner = Fields(node, path, fields.reading)
    by_name: dict[str, list[MetadataField]] = {}
    for key, child in inner.content.items():
        name = element_name(parent, key)
        if not name:
            known = DIF_PLUS_ELEMENTS[parent]
            place = node.keys.get(key, child.place)
            fields.reading.faults.add(place, inner.at(key), key, ", ".join(known), names=known)
            continue
        items = child.content if isinstance(child.content, list) else [child]
        found = by_name.setdefault(name, [])
        for item in items:
            if item.content is not None:
                found.extend(_element(fields, item, name, inner.at(key)))
    return tuple(field for group in by_name.values() for field in group)


def _element(fields: Fields, node: Node, name: str, path: str) -> list[MetadataField]:
    if name not in DIF_PLUS_ELEMENTS:
        return [MetadataField(name, _metadata_text(fields, node, path))]
    if name == "Project" and isinstance(node.content, dict) and not {"Name", "Version"} & node.content.keys():
        # IceProd 2 wrote a project as {name: version}.
        return [
            MetadataField(
                name,
                (MetadataField("Name", key), MetadataField("Version", _metadata_text(fields, child, path))),
            )
            for key, child in node.content.items()
        ]
    return [MetadataField(name, _elements(fields, node, name, path))]


def _metadata_text(fields: Fields, node: Node, path: str) -> str:
    if isinstance(node.content, str):
        return node.content
    if isinstance(node.content, (int, float)) and not isinstance(node.content, bool):
        return repr(node.content)
    fields.wrong(node, path, "a text")
    return ""
