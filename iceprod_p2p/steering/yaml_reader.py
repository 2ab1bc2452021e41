"""YAML text to nodes with places, from the parser's events: no tags of other types, no objects, bounded aliases.

Plain scalars are read by YAML 1.2's core rules, so `no` and `on` are texts and `1:30` is not a number.  A number with
leading zeros (`007`) stays a text: YAML 1.1 and 1.2 disagree on it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from iceprod_p2p.steering import hints
from iceprod_p2p.steering.limits import ANCHORS_MAX, DEPTH_MAX, NODES_MAX
from iceprod_p2p.steering.nodes import Node, NodeCount, Place, Refusal, Scalar
from iceprod_p2p.steering.texts import check_text, finite_float, whole_number

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL: Final = re.compile(r"~|null|Null|NULL|")
_TRUE: Final = re.compile(r"true|True|TRUE")
_FALSE: Final = re.compile(r"false|False|FALSE")
_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_BASED: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]+")
_STANDARD: Final = "tag:yaml.org,2002:"
_DIRECTIVES_MAX: Final = 100
_TAGS: Final = ("str", "int", "float", "bool", "null", "map", "seq")


def plain_scalar(text: str, place: Place) -> Scalar:
    """Return what an unquoted scalar means.  Refusal for numbers that are not finite or too long."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INT.fullmatch(text):
        return whole_number(text, place)
    if _BASED.fullmatch(text):
        return whole_number(text[2:], place, 8 if text[1] == "o" else 16)
    if _LEADING_ZERO.fullmatch(text):
        return text
    if _FLOAT.fullmatch(text):
        return finite_float(text, place)
    if _NOT_FINITE.fullmatch(text):
        raise Refusal(place, f"the number {text}", "a finite number")
    return text


def read_yaml(text: str, count: NodeCount) -> Node:
    """Return the one document of `text`.  Raises Refusal at the first fault of syntax or passed bound."""
    entries = sum(map(text.count, (",", ": ", ":\n", "- ")))
    if entries > 2 * NODES_MAX:  # Before the parser makes an event of each.
        raise Refusal((0, 0), f"about {entries} values", f"at most {NODES_MAX}")
    directives = text.count("%TAG")
    if directives > _DIRECTIVES_MAX:  # The parser compares each with all before it.
        raise Refusal((0, 0), f"{directives} directives %TAG", f"at most {_DIRECTIVES_MAX}")
    try:
        return _YamlReader(count).read(text)
    except yaml.MarkedYAMLError as bad:
        mark = bad.problem_mark or bad.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        problem = str(bad.problem or bad.context)
        since = bad.context_mark
        within = f" ({bad.context} at {since.line + 1}:{since.column + 1})" if since and bad.problem else ""
        raise Refusal(
            place,
            f"text that is not YAML: {problem}{within}",
            "a YAML document",
            hints.for_yaml(problem, text, *place),
        ) from bad
    except yaml.YAMLError as bad:
        raise Refusal((0, 0), "text that is not YAML", "a YAML document") from bad


class _YamlReader:
    def __init__(self, count: NodeCount) -> None:
        self.count = count
        self.anchors: dict[str, tuple[Node, int, int]] = {}  # A node, how many nodes and levels it has.

    def read(self, text: str) -> Node:
        loader = _Loader(text)
        try:
            loader.get_event()  # Start of the stream.
            if loader.check_event(yaml.StreamEndEvent):
                raise Refusal((1, 1), "an empty document", "a steering document")
            loader.get_event()  # Start of the document.
            node = self.node(loader, loader.get_event(), 0)
            loader.get_event()  # End of the document.
            if not loader.check_event(yaml.StreamEndEvent):
                raise Refusal(_place(loader.get_event()), "a second document", "one document in a file")
            return node
        finally:
            loader.dispose()

    def node(self, loader: Any, event: Any, depth: int) -> Node:
        place = _place(event)
        if depth > DEPTH_MAX:
            raise Refusal(place, f"values nested deeper than {DEPTH_MAX}", f"{DEPTH_MAX} levels")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, place, depth)
        _check_tag(event.tag, place)
        before = self.count.nodes
        self.count.add(1, place)
        if isinstance(event, yaml.ScalarEvent):
            check_text(event.value, place)
            as_text = event.tag == _STANDARD + "str" or not (event.implicit[0] or event.tag)
            plain = (not as_text and (event.style is None or event.style == "")) or _retyped(event.tag)
            node = Node(plain_scalar(event.value, place) if plain else event.value, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(loader, place, depth)
        else:
            node = self.mapping(loader, place, depth)
        if event.anchor is not None:
            if len(self.anchors) >= ANCHORS_MAX:
                raise Refusal(place, f"more than {ANCHORS_MAX} anchors", f"at most {ANCHORS_MAX}")
            self.anchors[event.anchor] = (node, self.count.nodes - before, _levels(node))
        return node

    def alias(self, event: Any, place: Place, depth: int) -> Node:
        known = self.anchors.get(event.anchor)
        if known is None:
            raise Refusal(place, f"the alias *{event.anchor[:40]}", "an anchor that stands before it")
        node, size, levels = known
        self.count.add(size, place)  # As if written out: a chain of aliases cannot grow past the bounds.
        if depth + levels > DEPTH_MAX:
            raise Refusal(place, f"values nested deeper than {DEPTH_MAX}", f"{DEPTH_MAX} levels")
        return node

    def sequence(self, loader: Any, place: Place, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := loader.get_event(), yaml.SequenceEndEvent):
            items.append(self.node(loader, event, depth + 1))
        return Node(items, place)

    def mapping(self, loader: Any, place: Place, depth: int) -> Node:
        entries: dict[str, Node] = {}
        node = Node(entries, place)
        merged: list[Node] = []
        while not isinstance(event := loader.get_event(), yaml.MappingEndEvent):
            at = _place(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise Refusal(at, "a name that is not a text", "a text before the colon")
            check_text(event.value, at)
            value = self.node(loader, loader.get_event(), depth + 1)
            if event.value == "<<" and event.implicit[0]:
                merged.extend(value.content if isinstance(value.content, list) else [value])
            elif event.value in entries:
                raise Refusal(at, f'the name "{event.value[:60]}" a second time', "each name once")
            else:
                entries[event.value] = value
                node.keys[event.value] = at
        for source in merged:
            if not isinstance(source.content, dict):
                raise Refusal(source.place, f"{source.kind()} after <<", "an object to merge")
            for key, value in source.content.items():
                entries.setdefault(key, value)
        return node


def _retyped(tag: str | None) -> bool:
    return tag is not None and tag.removeprefix(_STANDARD) in ("int", "float", "bool", "null")


def _check_tag(tag: str | None, place: Place) -> None:
    known = tag is None or tag == "!" or tag.removeprefix(_STANDARD) in _TAGS
    if not known:
        raise Refusal(place, f"the tag {str(tag)[:60]}", "plain values without tags")


def _levels(node: Node) -> int:
    if isinstance(node.content, list):
        return 1 + max(map(_levels, node.content), default=0)
    if isinstance(node.content, dict):
        return 1 + max(map(_levels, node.content.values()), default=0)
    return 0


def _place(event: Any) -> Place:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1
