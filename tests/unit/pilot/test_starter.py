"""Which modules are programs to be started as they are, and which are left to a Python process."""

from __future__ import annotations

from typing import Any

import pytest
from iceprod_pilot.plan import Step
from iceprod_pilot.starter import program_of


def step(parameters: dict[str, Any] | None = None, **more: Any) -> Step:
    return Step("run", **{"class_name": "Executable", "parameters": parameters or {}, **more})


def test_a_program_with_its_words_and_variables_is_started_as_it_is() -> None:
    given = {"Executable": "sh", "arguments": "-c 'echo $A'", "environment": {"A": 1}}
    program = program_of(step(given))
    assert program is not None
    assert program.argv == ["sh", "-c", "echo $A"] and program.environ == {"A": "1"}
    by_path = program_of(
        step({"executable": "/bin/true"}, class_name="iceprod_p2p.modules.executable.Executable")
    )
    assert by_path is not None and by_path.argv == ["/bin/true"] and by_path.environ == {}


def test_parameters_that_it_inherits_hold_where_it_was_given_none() -> None:
    inherited = {"executable": "/bin/false", "arguments": ["a b", 3], "events": 7, "execute": False}
    program = program_of(step({"executable": "/bin/true"}, inherited=inherited))
    assert program is not None and program.argv == ["/bin/true", "a b", "3"]


@pytest.mark.parametrize(
    "other",
    [
        step(
            {"executable": "/bin/true", "output": "out"}
        ),  # Opened by the class, which may be in a container.
        step({"executable": "/bin/true", "execute": True}),
        step({"executable": ""}),
        step({"executable": "/bin/true", "arguments": "'not closed"}),
        step({"executable": "/bin/true", "environment": ["A"]}),
        step({"executable": "/bin/true", "nonsense": 1}),
        step({"executable": "/bin/true"}, args={"arguments": "x"}),
        step({"executable": "/bin/true"}, src="own.py"),
        step({"executable": "/bin/true"}, class_name="Merge"),
        step(class_name="", src="script.sh"),
    ],
)
def test_whatever_the_class_has_to_judge_is_left_to_it(other: Step) -> None:
    assert program_of(other) is None
