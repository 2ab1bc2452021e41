"""XML text to elements with places.

The standard expat parser is used, not lxml, because it tells lines *and* columns, and stops at the first thing that
is forbidden instead of building a tree first: declarations of entities (bombs, files, addresses), references to
entities that the five built-in ones are not, and depths and counts past the bounds.  A DOCTYPE that names a DTD is
allowed, as IceProd's files have one; it is never fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice
from xml.parsers import expat

from iceprod_p2p.steering import hints
from iceprod_p2p.steering.limits import DEPTH_MAX, NODES_MAX
from iceprod_p2p.steering.nodes import NodeCount, Place, Refusal
from iceprod_p2p.steering.texts import check_text

_DTD = re.compile(r"(?:^|/)iceprod\.v([0-9]{1,3})\.dtd$")
_ATTRIBUTE = re.compile(r"=[ \t\r\n]*+[\"']")


@dataclass(slots=True)
class Element:
    """One element: its attributes, its own text (that of children left out), its children in order."""

    name: str
    attributes: dict[str, str]
    place: Place
    children: list[Element] = field(default_factory=list)
    text: str = ""


def read_xml(text: str, count: NodeCount) -> Element:
    """Return the root element.  Raises Refusal at the first fault of syntax, forbidden thing or passed bound."""
    tags, attributes = text.count("<"), 0
    if text.count("=") > NODES_MAX:  # Before expat collects those of one element.
        attributes = sum(1 for _ in islice(_ATTRIBUTE.finditer(text), NODES_MAX + 1))
    if tags > 2 * NODES_MAX or attributes > NODES_MAX:
        raise Refusal((0, 0), f"about {tags} tags with {attributes} attributes", f"at most {NODES_MAX}")
    return _XmlReader(count).read(text)


class _XmlReader:
    def __init__(self, count: NodeCount) -> None:
        self.count = count
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.StartDoctypeDeclHandler = self.doctype
        self.parser.EntityDeclHandler = self.entity
        self.parser.SkippedEntityHandler = self.skipped
        self.stack: list[Element] = []
        self.texts: list[list[str]] = []
        self.root: Element | None = None

    def read(self, text: str) -> Element:
        try:
            self.parser.Parse(text, True)
        except expat.ExpatError as bad:
            message = expat.ErrorString(bad.code) or "bad syntax"
            place = (bad.lineno, bad.offset + 1)
            inside = self.stack[-1] if self.stack else None
            if inside and "mismatched" in message:
                message += f" inside <{inside.name[:60]}> of {inside.place[0]}:{inside.place[1]}"
            hint = hints.for_xml(message, text, *place, inside.name[:60] if inside else "")
            raise Refusal(place, f"text that is not XML: {message}", "well-formed XML", hint) from bad
        if self.root is None:
            raise Refusal((1, 1), "no element", "one configuration element")
        return self.root

    def place(self) -> Place:
        return self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1

    def start(self, name: str, attributes: dict[str, str]) -> None:
        place = self.place()
        self.count.add(1 + len(attributes), place)
        if len(self.stack) >= DEPTH_MAX:
            raise Refusal(place, f"elements nested deeper than {DEPTH_MAX}", f"{DEPTH_MAX} levels")
        for text in attributes.values():
            check_text(text, place)
        element = Element(name, attributes, place)
        if self.stack:
            self.stack[-1].children.append(element)
        else:
            self.root = element
        self.stack.append(element)
        self.texts.append([])

    def end(self, _name: str) -> None:
        element = self.stack.pop()
        element.text = "".join(self.texts.pop())
        check_text(
            element.text, element.place
        )  # References to characters can bring in what no file may hold.

    def characters(self, text: str) -> None:
        if self.texts:
            self.texts[-1].append(text)

    def doctype(self, _name: str, system: str | None, _public: str | None, has_internal_subset: int) -> None:
        version = _DTD.search(system or "")
        if version and version[1] != "3":
            raise Refusal(
                self.place(),
                f"the DTD iceprod.v{version[1]}.dtd",
                "iceprod.v3.dtd or iceprod-p2p.dtd",
                "iceprod.v3.dtd",
            )
        if has_internal_subset:
            raise Refusal(self.place(), "declarations inside the DOCTYPE", "a DOCTYPE without declarations")

    def entity(self, name: str, *_rest: object) -> None:
        raise Refusal(self.place(), f"a declaration of the entity {name[:40]}", "no declarations of entities")

    def skipped(self, name: str, _is_parameter: int) -> None:
        raise Refusal(
            self.place(), f"the entity &{name[:40]};", "the entities &lt; &gt; &amp; &quot; &apos; and &#...;"
        )
