"""`iceprod steering`: check, expand, convert and show, alone and in batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from iceprod_cli.commands.steering import steering
from iceprod_cli.session import Session

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.steering.faults import SteeringError
from iceprod_p2p.steering.limits import REQUEST_BYTES_MAX

EXAMPLES = Path(__file__).parents[3] / "examples"
HELLO = str(EXAMPLES / "hello" / "hello.yaml")
PHYSICS = str(EXAMPLES / "physics" / "physics.xml")


def run(*words: str, text: str | bytes = "") -> Result:
    return CliRunner().invoke(steering, words, obj=Session(), input=text)


def answers(*words: str, text: str | bytes) -> list[Any]:
    ended = run(*words, "--batch", "-", text=text)
    assert ended.exit_code == 0, ended.output
    return [json.loads(line) for line in ended.stdout.splitlines()]


def lines(*requests: Any) -> str:
    return "".join(json.dumps(request) + "\n" for request in requests)


def test_a_valid_file_is_said_to_be_so_in_words_and_in_json() -> None:
    assert run("check", HELLO).stdout == f"{HELLO} is valid\n"
    answer = json.loads(run("check", PHYSICS, "-o", "json").stdout)
    assert (answer["valid"], answer["faults"], answer["syntax"]) == (True, [], "xml")


def test_each_fault_is_a_line_with_its_place_and_the_exit_code_is_one(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("tasks:\n- name: a\n  trays: [{modules: [{nam: m}], iter: 2}]\n")
    ended = run("check", str(file))
    assert ended.exit_code == 1
    assert len(ended.stdout.splitlines()) == 3
    assert f'{file}:3:23: tasks[0].trays[0].modules[0].nam: found "nam"' in ended.stdout
    assert "did you mean name?" in ended.stdout
    faults = json.loads(run("check", str(file), "-o", "json").stdout)["faults"]
    assert {"file", "line", "column", "path", "found", "allowed", "suggestion"} == set(faults[0])


def test_phrases_that_no_job_resolves_are_warnings() -> None:
    text = "tasks: [{name: a, trays: [{modules: [{src: '$steering(gone)'}]}]}]"
    (answer,) = answers("check", text=lines({"text": text, "name": "x.yaml"}))
    assert answer["valid"]
    assert answer["warnings"] == ["tasks[0].trays[0].modules[0].src:1: $steering(gone) is not known here"]


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    error = run("check", str(tmp_path / "gone.xml")).exception
    assert isinstance(error, NotFound)
    assert error.exit_code == 3
    assert isinstance(run("check", str(tmp_path)).exception, BadInput)
    (answer,) = answers("check", text=lines({"file": "a\0b"}))
    assert "cannot be read" in answer["error"]


def test_a_file_without_end_is_read_up_to_the_bound_only() -> None:
    (answer,) = answers("check", text=lines({"file": "/dev/zero"}))
    assert not answer["valid"]
    assert "at most 1048576 bytes" in answer["faults"][0]["allowed"]


def test_an_expression_has_its_value_and_whether_it_is_resolved(tmp_path: Path) -> None:
    context = tmp_path / "context.json"
    context.write_text(json.dumps({"steering": {"list": [1, 2]}, "args": {"job": 7}}))
    ended = run("expand", "--expr", "$steering(list)[-1]", "--context", str(context), "-o", "json")
    assert json.loads(ended.stdout) == {"value": 2, "resolved": True, "problems": []}
    answer = json.loads(run("expand", "--expr", "$(gone)", "-o", "json").stdout)
    assert answer["value"] == "$(gone)" and answer["resolved"] is False
    assert run("expand", "--expr", "x$eval(1+1)").stdout == "x2\n"


def test_a_batch_answers_each_line_and_goes_on_after_a_bad_one() -> None:
    text = lines(
        {"id": "a", "expr": "$(x)", "context": {"args": {"x": "5"}}},
        {"id": 2, "expr": "$(x)", "context": {"arg": {}}},
        [],
        {"id": [1], "context": {}},
        {"expr": "\ud800"},
    )
    found = answers("expand", text="junk\n\n" + text + '{"expr": "last"}')
    assert [answer.get("value") for answer in found] == [None, 5, None, None, None, None, "last"]
    assert found[1] == {"id": "a", "value": 5, "resolved": True, "problems": []}
    assert [answer.get("line") for answer in found] == [1, None, 4, 5, 6, 7, None]
    assert found[2]["id"] == 2 and "a context has no 'arg'" in found[2]["error"]
    assert found[4]["id"] == [1] and "names a file or holds a text" in found[4]["error"]
    assert "U+D800" in found[5]["error"]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"expr":' * 5_000,
        b'{"expr": ' + b"[" * 60 + b"]" * 60 + b"}",
        b'{"expr": [' + b"1," * 120_000 + b"1]}",
        b'{"expr": NaN}',
        b'{"expr": "\xff"}',
        b'{"expr": "' + b"a" * (REQUEST_BYTES_MAX + 1) + b'"}',
    ],
    ids=["deep", "deep objects", "deep data", "many", "nan", "bytes", "long"],
)
def test_a_hostile_line_is_one_error_and_the_next_is_answered(line: bytes) -> None:
    found = answers("expand", text=line + b'\n{"expr": "1"}\n')
    assert len(found) == 2
    assert "error" in found[0] and found[1]["value"] == 1


def test_a_context_may_be_a_steering_as_in_a_file_and_metadata_may_have_dif_and_plus() -> None:
    steering_part = {"parameters": {"a": 1}, "system": {"b": 2}}
    metadata = {"dif": {"sensor_name": "IceCube"}, "plus": {"category": "filtered"}}
    request = {
        "expr": "$steering(a) $system(b) $metadata(sensor_name) $metadata(category)",
        "context": {"steering": steering_part, "metadata": metadata},
    }
    (answer,) = answers("expand", text=lines(request))
    assert answer["value"] == "1 2 IceCube filtered"


def test_the_tasks_of_a_job_are_shown_as_a_pilot_runs_them() -> None:
    answer = json.loads(run("expand", HELLO, "--job", "3", "-o", "json").stdout)
    assert [task["name"] for task in answer["tasks"]] == ["greet", "count"]
    args = answer["tasks"][0]["trays"][0]["modules"][0]["args"]
    assert args == {"text": "hello from job 3", "lines": 3, "output": "greeting.txt"}
    assert answer["tasks"][0]["requirements"]["memory_mib"] == 103
    assert "hello from job 3" in run("expand", HELLO, "--job", "3").stdout
    (one,) = answers("expand", text=lines({"file": HELLO, "job": 3, "task": "count"}))
    assert [task["name"] for task in one["tasks"]] == ["count"]
    assert isinstance(run("expand", HELLO, "--task", "coun").exception, BadInput)


def test_a_task_that_cannot_run_says_why_and_the_exit_code_is_one() -> None:
    text = "tasks: [{name: a, requirements: {cpu: '$(n)'}, trays: [{modules: [{src: x}]}]}]"
    request = {"text": text, "name": "x.yaml"}
    bad, good = answers("expand", text=lines(request, {**request, "context": {"options": {"n": 2}}}))
    assert "$(n) is not known here" in bad["tasks"][0]["error"]
    assert good["tasks"][0]["requirements"]["cpus"] == 2


def test_a_file_converted_there_and_back_means_the_same(tmp_path: Path) -> None:
    file = tmp_path / "steering"
    file.write_text(run("convert", PHYSICS, "--to", "yaml").stdout)
    assert run("convert", str(file), "--to", "json").stdout == run("convert", PHYSICS, "--to", "json").stdout


def test_a_file_with_faults_is_not_converted(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text("{}")
    error = run("convert", str(file), "--to", "xml").exception
    assert isinstance(error, SteeringError) and len(error.faults) == 3


def test_a_dataset_is_shown_with_its_tasks() -> None:
    shown = run("show", PHYSICS).stdout
    assert "showers = 24" in shown and "detector_a, detector_b" in shown
    document = json.loads(run("show", PHYSICS, "-o", "json").stdout)
    assert document["tasks"][3]["requirements"] == {"cpu": 1, "gpu": 1, "memory": 1, "disk": 0.1, "time": 0.5}


def test_words_that_exclude_each_other_are_refused() -> None:
    assert run("check").exit_code == 2
    assert run("check", HELLO, "--batch", "-").exit_code == 2
    assert run("expand", HELLO, "--expr", "1").exit_code == 2
