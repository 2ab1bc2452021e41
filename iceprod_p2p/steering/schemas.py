"""The published DTD and XSD of steering files, drawn from the same tables by which `xml_nodes` reads.

``docs/schemas/draw.py`` writes both files, and a test compares them with these texts.  A schema knows names, nesting
and words; what values mean together only `steering check` knows.  Children stand in any order and number, as in
IceProd's DTD with our additions.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from iceprod_p2p.model.steering import After, DataType, Movement, ParameterType, Transfer
from iceprod_p2p.steering.metadata import DIF_PLUS_ELEMENTS
from iceprod_p2p.steering.xml_nodes import ATTRIBUTES, CHILDREN, REQUIRED, WITH_TEXT

_TITLE: Final = "The steering files of IceProd P2P"

_WORDS: Final[Mapping[tuple[str, str], type[StrEnum]]] = {
    ("parameter", "type"): ParameterType,
    ("task", "after"): After,
    ("data", "type"): DataType,
    ("data", "movement"): Movement,
    ("data", "transfer"): Transfer,
    ("resource", "transfer"): Transfer,
}


def elements() -> dict[str, tuple[str, ...]]:
    """Return every element with the elements that may stand in it."""
    found = {name: tuple(children) for name, children in CHILDREN.items()}
    found.update(DIF_PLUS_ELEMENTS)
    for children in list(found.values()):
        for child in children:
            found.setdefault(child, ())
    return found


def dtd() -> str:
    """Return the text of the DTD."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<!-- {_TITLE}; drawn by iceprod_p2p.steering.schemas. -->",
    ]
    for name, children in elements().items():
        content = f"({' | '.join(children)})*" if children else "(#PCDATA)" if _has_text(name) else "EMPTY"
        lines += ["", f"<!ELEMENT {name} {content}>"]
        lines += [f"<!ATTLIST {name} {line}>" for line in _dtd_attributes(name)]
    return "\n".join(lines) + "\n"


def _dtd_attributes(element: str) -> list[str]:
    lines = []
    if element == "configuration":
        lines += ["xmlns:xsi CDATA #IMPLIED", "xsi:noNamespaceSchemaLocation CDATA #IMPLIED"]
    for attribute in ATTRIBUTES.get(element, ()):
        words = _WORDS.get((element, attribute))
        kind = f"({' | '.join(words)})" if words else "CDATA"
        need = "#REQUIRED" if attribute in REQUIRED.get(element, ()) else "#IMPLIED"
        lines.append(f"{attribute} {kind} {need}")
    return lines


def xsd() -> str:
    """Return the text of the XML schema."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<!-- {_TITLE}; drawn by iceprod_p2p.steering.schemas. -->",
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">',
    ]
    for name, children in elements().items():
        lines += [f'  <xs:element name="{name}">', f"    <xs:complexType{_mixed(name, children)}>"]
        if children:
            lines.append('      <xs:choice minOccurs="0" maxOccurs="unbounded">')
            lines += [f'        <xs:element ref="{child}"/>' for child in children]
            lines.append("      </xs:choice>")
        for attribute in ATTRIBUTES.get(name, ()):
            lines += _xsd_attribute(name, attribute)
        lines += ["    </xs:complexType>", "  </xs:element>"]
    return "\n".join((*lines, "</xs:schema>", ""))


def _mixed(name: str, children: tuple[str, ...]) -> str:
    return ' mixed="true"' if not children and _has_text(name) else ""


def _xsd_attribute(element: str, attribute: str) -> list[str]:
    use = ' use="required"' if attribute in REQUIRED.get(element, ()) else ""
    words = _WORDS.get((element, attribute))
    if words is None:
        return [f'      <xs:attribute name="{attribute}" type="xs:string"{use}/>']
    values = [f'            <xs:enumeration value="{word}"/>' for word in words]
    return [
        f'      <xs:attribute name="{attribute}"{use}>',
        '        <xs:simpleType><xs:restriction base="xs:string">',
        *values,
        "        </xs:restriction></xs:simpleType>",
        "      </xs:attribute>",
    ]


def _has_text(name: str) -> bool:
    in_metadata = any(name in children for children in DIF_PLUS_ELEMENTS.values())
    return name in WITH_TEXT or in_metadata
