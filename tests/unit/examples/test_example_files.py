"""The steering files of the examples: they read, their modules exist and know every parameter, files flow."""

from __future__ import annotations

from pathlib import Path

import pytest

from iceprod_p2p.model.files import matches
from iceprod_p2p.model.steering import After, Configuration, Movement
from iceprod_p2p.modules.protocol import ModuleRequest
from iceprod_p2p.modules.registry import inspect_module
from iceprod_p2p.steering.read import read
from tests.unit.modules.child_process import run_module

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(path for path in EXAMPLES.glob("*/*") if path.suffix in (".xml", ".yaml", ".json"))


def configuration(path: Path) -> Configuration:
    return read(path.read_bytes(), name=path.name)


def test_there_are_the_examples_that_the_documents_name():
    names = {
        "physics.xml",
        "hello.yaml",
        "after.yaml",
        "offline.yaml",
        "software.yaml",
        "external.yaml",
        "container.yaml",
    }
    assert {path.name for path in FILES} >= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_module_of_an_example_exists_and_knows_its_parameters(path):
    for task in configuration(path).tasks:
        for tray in task.trays:
            for module in tray.modules:
                if not module.src:
                    continue  # The class is from elsewhere; tests/integration/test_examples.py runs it.
                src = path.parent / module.src
                assert src.is_file(), f"{task.name}: {module.src}"
                if module.class_name:
                    known = {
                        spec.name.lower() for spec in inspect_module(module.class_name, str(src)).parameters
                    }
                    given = {parameter.name.lower() for parameter in module.parameters}
                    assert given <= known, f"{task.name}: {given - known}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_input_of_an_example_is_an_output_of_a_task_it_depends_on(path):
    outputs: dict[str, set[str]] = {}
    for task in configuration(path).tasks:
        parents = task.depends if task.after is After.PARENTS else tuple(outputs)
        before = {name for parent in parents for name in outputs[parent]}
        wanted = {data.remote or data.local for data in task.data if data.movement is Movement.INPUT}
        wanted = {name for name in wanted if not name.startswith("$system(storage)/")}  # From outside.
        unknown = {name for name in wanted if not any(matches(name, known) for known in before)}
        assert not unknown, f"{task.name} reads {unknown}, which no parent writes"
        outputs[task.name] = {
            data.remote or data.local for data in task.data if data.movement is Movement.OUTPUT
        }


def test_the_physics_production_has_the_shape_of_the_documents():
    tasks = {task.name: task for task in configuration(EXAMPLES / "physics" / "physics.xml").tasks}
    parents = {name: set(task.depends) for name, task in tasks.items()}
    assert parents == {
        "cosmic_rays": set(),
        "neutrinos": set(),
        "combine": {"cosmic_rays", "neutrinos"},
        "photons": {"combine"},
        "detector_a": {"photons"},
        "detector_b": {"photons"},
        "merge": {"detector_a", "detector_b"},
    }
    assert [name for name, task in tasks.items() if task.requirements.gpu] == ["photons"]


def test_the_hello_scripts_run_and_count(tmp_path):
    hello = EXAMPLES / "hello"
    args = {"text": "hello from job 4", "lines": 3, "output": "greeting.txt"}
    ran = run_module(ModuleRequest(work_dir=str(tmp_path), src=str(hello / "greet.py"), args=args))
    assert ran.result is not None and ran.result.statistics == {"lines_written": 3.0}, ran.log
    args = "greeting.txt count.txt"
    ran = run_module(ModuleRequest(work_dir=str(tmp_path), src=str(hello / "count.sh"), args=args))
    assert ran.result is not None, ran.log
    assert ran.result.statistics == {"lines_counted": 3.0, "words_counted": 12.0}
    assert (tmp_path / "count.txt").read_text() == "3 lines, 12 words\n"
