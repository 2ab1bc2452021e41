"""The physics chain stands there in all three syntaxes; XML is what is edited, the others are made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from iceprod_p2p.steering.commands import convert_text
from iceprod_p2p.steering.read import read
from iceprod_p2p.steering.write import canonical

PHYSICS = Path(__file__).parents[3] / "examples" / "physics"


@pytest.mark.parametrize("syntax", ["yaml", "json"])
def test_the_other_syntaxes_are_what_convert_makes_of_the_xml_file(syntax: str) -> None:
    made = convert_text((PHYSICS / "physics.xml").read_bytes(), name="physics.xml", syntax=syntax)
    remedy = f"iceprod steering convert examples/physics/physics.xml --to {syntax} > examples/physics/physics.{syntax}"
    assert (PHYSICS / f"physics.{syntax}").read_text() == made, remedy


def test_all_three_are_one_document() -> None:
    found = {
        canonical(read(path.read_bytes(), name=path.name))
        for path in PHYSICS.glob("physics.*")
        if path.suffix in (".xml", ".yaml", ".json")
    }
    assert len(found) == 1
