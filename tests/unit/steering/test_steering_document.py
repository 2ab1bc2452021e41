"""docs/steering.md: every example is read, every expression has the value that stands beside it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.model import steering as model
from iceprod_p2p.steering import commands
from iceprod_p2p.steering.expressions.calls import FUNCTIONS
from iceprod_p2p.steering.expressions.context import LOOKUPS
from iceprod_p2p.steering.expressions.evaluate import FUNCTIONS as PHRASES
from iceprod_p2p.steering.read import read

TEXT = (Path(__file__).parents[3] / "docs" / "steering.md").read_text()
BLOCKS = re.findall(r"^```(\w+)( \w+)?\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FILES = [(syntax, body) for syntax, mark, body in BLOCKS if not mark]
CONTEXT: Any = json.loads(next(body for _syntax, mark, body in BLOCKS if mark == " context"))
ROWS = re.findall(r"^\| `(.+?)` \| `(.+?)` \|", TEXT.partition("## Expressions")[2], re.MULTILINE)


def test_the_document_has_its_examples() -> None:
    assert [syntax for syntax, _body in FILES] == ["yaml", "xml", "json", "yaml", "yaml"]
    assert len(ROWS) >= 28


@pytest.mark.parametrize(("syntax", "body"), FILES)
def test_an_example_is_valid_and_each_of_its_tasks_runs(syntax: str, body: str) -> None:
    answer = commands.check_answer(body, name=f"steering.{syntax}")
    assert (answer["faults"], answer["warnings"], answer["syntax"]) == ([], [], syntax)
    expanded = commands.job_answer(read(body), job=1389, jobs=2000, seed=1, task="", site={})
    for task in expanded["tasks"]:
        assert "error" not in task and task["problems"] == []


PARTS = (
    model.Configuration,
    model.Steering,
    model.Task,
    model.Requirements,
    model.Tray,
    model.Module,
    model.Data,
    model.Environment,
    model.Resource,
    model.ClassReference,
)
OTHERS_NAMES = {"class_name": "class", "iceprod_version": "version"}  # What files call it.


@pytest.mark.parametrize("part", PARTS)
def test_every_element_is_told_and_stands_in_an_example_that_runs(part: Any) -> None:
    table = TEXT.partition("| part | what it has |")[2].partition("Names that this page does not know")[0]
    examples = "\n".join(body for _syntax, body in FILES)
    for field in dataclasses.fields(part):
        name = OTHERS_NAMES.get(field.name, field.name)
        assert f"`{name}`" in table, f"{name!r} is not told"
        assert re.search(rf"(?<!\w){name}(?!\w)", examples), f"no example has {name!r}"


@pytest.mark.parametrize("kind", [model.DataType, model.Movement, model.Transfer])
def test_every_word_of_data_stands_in_an_example(kind: Any) -> None:
    examples = "\n".join(body for _syntax, body in FILES)
    for word in kind:
        assert re.search(rf"(?<!\w){word.value}(?!\w)", examples), word


@pytest.mark.parametrize(("expression", "value"), ROWS)
def test_an_expression_has_the_value_beside_it(expression: str, value: str) -> None:
    answer = commands.expression_answer(expression, CONTEXT)
    assert answer["value"] == json.loads(value)
    assert answer["resolved"] is not any(kept in value for kept in ("$(gone", "][9]", "$eval("))


def test_every_function_and_table_is_in_the_document() -> None:
    expressions = " ".join(expression for expression, _value in ROWS)
    for name in (*LOOKUPS, *PHRASES):
        assert f"${name}(" in expressions
    listed = re.search(r"`(abs all [a-z ]+)`", TEXT)
    assert listed is not None and set(listed[1].split()) == set(FUNCTIONS)


def test_the_faulty_example_is_refused_as_shown() -> None:
    body = next(body for _syntax, mark, body in BLOCKS if mark == " faulty")
    (fault,) = commands.check_answer(body, name="steering.yaml")["faults"]
    place = f"{fault['file']}:{fault['line']}:{fault['column']}: {fault['path']}"
    shown = f"{place}: found {fault['found']}; allowed: {fault['allowed']}"
    assert shown in " ".join(TEXT.split())
