"""The published DTD and XSD: fresh, and in agreement with what is read and written."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from iceprod_p2p.steering import schemas
from iceprod_p2p.steering.commands import convert_text
from iceprod_p2p.steering.write import write
from tests.property.steering_trees import Trees

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path for path in ROOT.glob("examples/*/*") if path.suffix in (".xml", ".yaml", ".json"))


def refused(text: bytes) -> list[str]:
    document = etree.fromstring(text)
    found = []
    for schema in (
        etree.DTD(str(ROOT / "docs/schemas/iceprod-p2p.dtd")),
        etree.XMLSchema(file=str(ROOT / "docs/schemas/iceprod-p2p.xsd")),
    ):
        if not schema.validate(document):
            found.append(str(schema.error_log))
    return found


def test_the_published_files_are_what_the_reader_reads() -> None:
    folder = ROOT / "docs" / "schemas"
    remedy = "python docs/schemas/draw.py"
    assert (folder / "iceprod-p2p.dtd").read_text() == schemas.dtd(), remedy
    assert (folder / "iceprod-p2p.xsd").read_text() == schemas.xsd(), remedy


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid_by_both(path: Path) -> None:
    text = path.read_bytes()
    if path.suffix != ".xml":
        text = convert_text(text, name=path.name, syntax="xml").encode()
    assert refused(text) == []


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_written_is_valid_by_both(seed: int) -> None:
    assert refused(write(Trees(seed).configuration(), "xml").encode()) == []


@pytest.mark.parametrize(
    "text",
    [
        b"<configuration><tasks/></configuration>",
        b"<configuration><steering><parameter value='1'/></steering></configuration>",
        b"<configuration><steering><parameter name='a' type='pickle'/></steering></configuration>",
        b"<configuration><task name='a'><data type='x' movement='input'/></task></configuration>",
        b"<configuration colour='red'/>",
    ],
)
def test_what_the_reader_refuses_by_name_is_refused_by_both(text: bytes) -> None:
    assert len(refused(text)) == 2
