"""docs/modules.md stays true: its examples run, its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iceprod_p2p.modules.protocol import ModuleRequest
from iceprod_p2p.modules.registry import BUILT_IN, inspect_module
from tests.unit.modules.child_process import run_module

TEXT = (Path(__file__).parents[3] / "docs" / "modules.md").read_text()
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", TEXT, re.DOTALL)


def block(words: str) -> str:
    (found,) = [text for _, text in BLOCKS if words in text]
    return found


@pytest.mark.parametrize(
    ("words", "class_name", "statistics"),
    [
        ("class CountLines", "CountLines", {"lines": 2.0}),
        ("def simulate", "simulate", {"events": 100.0}),
        ("module_of(parser, scale)", "Scale", {"scaled": 6.0}),
        ("#!/bin/sh", "", {"events": 100.0}),
    ],
)
def test_the_documents_examples_run(tmp_path, words, class_name, statistics):
    (tmp_path / "module").write_text(block(words))
    (tmp_path / "events.txt").write_text("1\n2\n")
    ran = run_module(ModuleRequest(work_dir=str(tmp_path), class_name=class_name, src="module"))
    assert ran.result is not None and ran.result.statistics == statistics, ran.log


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_documents_table_names_every_built_in_module_and_parameter(name):
    library = TEXT.partition("## The library")[2].splitlines()
    (row,) = [line for line in library if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
    for parameter in inspect_module(name).parameters:
        assert parameter.name == "execute" or f"`{parameter.name}`" in row, parameter.name
