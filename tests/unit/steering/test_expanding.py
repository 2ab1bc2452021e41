"""Expanding a task of a job, and planning a dataset's shapes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.resources import Requirements
from iceprod_p2p.model.steering import Configuration, ParameterType, Value
from iceprod_p2p.steering.expand import expand_task, job_arguments, unresolved
from iceprod_p2p.steering.expanded import ExpandedTask
from iceprod_p2p.steering.plan import dependencies, ordered, task_shapes
from iceprod_p2p.steering.read import read
from iceprod_p2p.steering.seeds import job_seed, subdirectory
from iceprod_p2p.steering.write import canonical

DOCUMENT = """
options: {data_url: "gsiftp://store/$(dataset)", debug: false}
steering:
  parameters: {seed: "$args(seed)", outfile: "Level2.$sprintf('%06d', $(job)).i3", n: 3, cores: 2,
               gcd: "gcd_$(year).i3", year: 2016}
  system: {gpu_opts: "none"}
  batchsys: {"*": {queue: long}, condor: {ranks: "$(n)"}}
  data: [{type: permanent, movement: input, remote: "gcd/$(gcd)"}]
tasks:
- name: generate
  requirements: {cpu: "$steering(cores)", memory: 2.5, time: 90min, os: [RHEL_9], attributes: [cvmfs]}
  parameters: {sample: 5}
  trays:
  - iterations: "$(n)"
    parameters: {tag: "$(iter)_$(opts)", opts: "$system(gpu_opts)"}
    types: {parameters: {tag: string}}
    modules:
    - class: generators.Corsika
      args: {file: "$(outfile)", seed: "$(seed)"}
      parameters: {energy: "5@TeV", padded: "007", list: "1, $(n), 3", flag: "TRUE"}
      types: {parameters: {energy: float, padded: string, list: int_list, flag: bool}}
      data: [{type: job_temp, movement: output, local: "part_$(iter).i3"}]
- name: filter
  depends: [generate]
  batchsys: {condor: {queue: short}}
  requirements: {gpu: 1}
  data: [{type: job_temp, movement: input, local: part_0.i3}, {type: permanent, movement: output, remote: "$(outfile)"}]
  trays:
  - modules: [{src: filter.py, args: "--in $(input) --out $(output) 007", env_shell: "/x/$environ(ARCH)/env.sh"}]
"""


@pytest.fixture
def configuration() -> Configuration:
    return read(DOCUMENT.encode(), name="x.yaml")


def run(configuration: Configuration, index: int, job: int = 7, **more: Any) -> ExpandedTask:
    name = configuration.tasks[index].name
    known = {"system": {"gpu_opts": "opencl"}, "options": {}, "environ": {"ARCH": "el9"}, "seed": 11, **more}
    args = job_arguments(dataset=30002, job=job, jobs=100, task=name, task_index=index, seed=11)
    return expand_task(configuration, index, args=args, **known)


def test_every_part_of_a_task_is_expanded_and_typed(configuration: Configuration) -> None:
    task = run(configuration, 0)
    assert task.problems == ()
    assert task.requirements == Requirements(2, 0, 2560, 1024, 5400, ("cvmfs", "os=RHEL_9"))
    assert task.batchsys == {"*": {"queue": "long"}, "condor": {"ranks": 3}}
    assert task.data[0].remote == "gsiftp://store/30002/gcd/gcd_2016.i3"
    assert [tray.iteration for tray in task.trays] == [0, 1, 2]
    module = task.trays[2].modules[0]
    assert module.args == {"file": "Level2.000007.i3", "seed": job_seed(11, 7)}
    own = {known.name: (known.value, known.unit) for known in module.parameters}
    assert own == {"energy": (5.0, "TeV"), "padded": ("007", ""), "list": ([1, 3, 3], ""), "flag": (True, "")}
    inherited = {known.name: known.value for known in module.inherited}
    assert inherited["tag"] == "2_opencl" and inherited["sample"] == 5 and inherited["n"] == 3
    assert next(known for known in module.inherited if known.name == "tag").type is ParameterType.STRING
    assert module.data[0].local == "part_2.i3"
    assert task.args["subdirectory"] == "00000-00999"


def test_input_and_output_name_the_files_around_a_module(configuration: Configuration) -> None:
    task = run(configuration, 1)
    module = task.trays[0].modules[0]
    assert module.args == "--in part_0.i3 gcd_2016.i3 --out Level2.000007.i3 007"
    assert module.env_shell == "/x/el9/env.sh"
    assert task.batchsys == {"*": {"queue": "long"}, "condor": {"ranks": 3, "queue": "short"}}
    assert task.data[2].remote == "gsiftp://store/30002/Level2.000007.i3"
    assert task.problems == ()


def test_the_document_that_travels_expands_to_the_same(configuration: Configuration) -> None:
    again = read(canonical(configuration), name="x.json")
    assert run(again, 0) == run(configuration, 0)


def test_options_of_the_submission_and_the_site_come_before_those_of_the_document(
    configuration: Configuration,
) -> None:
    task = run(configuration, 1, options={"data_url": "file:///tmp"})
    assert task.data[2].remote == "file:///tmp/Level2.000007.i3"
    assert run(configuration, 0, system={}).trays[0].modules[0].inherited[1].value == "none"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('iterations: "$(n)"', 'iterations: "$(gone)"', "iterations"),
        ('iterations: "$(n)"', 'iterations: "$eval(10**9)"', "iterations"),
        ('cpu: "$steering(cores)"', 'cpu: "$(gone)"', "requirements.cpu.*not known here"),
        ('local: "part_$(iter).i3"', "local: \"$eval('../'*2)x\"", "inside the job's directory"),
        ('flag: "TRUE"', 'flag: "$(n)"', "not true or false"),
    ],
)
def test_what_cannot_run_is_refused_with_its_place(old: str, new: str, message: str) -> None:
    assert old in DOCUMENT
    with pytest.raises(BadInput, match=message):
        run(read(DOCUMENT.replace(old, new).encode(), name="x.yaml"), 0)


def test_a_task_that_is_not_there_is_refused(configuration: Configuration) -> None:
    with pytest.raises(BadInput, match="task 2 is not one of the 2"):
        expand_task(configuration, 2, args={}, system={}, options={}, environ={}, seed=0)


def test_submission_is_told_of_phrases_that_would_stay_but_not_of_those_a_site_knows(
    configuration: Configuration,
) -> None:
    assert unresolved(configuration) == ()
    without = read(DOCUMENT.replace(", year: 2016", "").encode(), name="x.yaml")
    assert {problem.place: problem.phrase for problem in unresolved(without)} == {
        "steering.parameters.gcd": "$(year)"
    }
    assert unresolved(without, options={"year": 2016}) == ()


def test_submission_is_told_of_hidden_cycles_and_bad_values_without_being_stopped(
    configuration: Configuration,
) -> None:
    text = DOCUMENT.replace("n: 3", "n: \"$($sprintf('%s','m'))\", m: \"$(n)\"")
    text = text.replace('flag: "TRUE"', 'flag: "$(cores)5"')
    reasons = [str(problem) for problem in unresolved(read(text.encode(), name="x.yaml"))]
    assert any("refers to itself" in reason for reason in reasons)
    assert any("flag" in reason and "not true or false" in reason for reason in reasons)


def shaped(*tasks: tuple[str, str]) -> Configuration:
    trays = [{"modules": [{"src": "a"}]}]
    written = [{"name": name, "depends": depends.split(), "trays": trays} for name, depends in tasks]
    return read(json.dumps({"format": "iceprod-p2p/1", "tasks": written}).encode())


def test_shapes_have_indices_of_parents_and_whole_numbers(configuration: Configuration) -> None:
    shapes = task_shapes(configuration)
    assert [(shape.name, shape.parents) for shape in shapes] == [("generate", ()), ("filter", (0,))]
    assert shapes[0].requirements == run(configuration, 0).requirements
    assert shapes[1].requirements.gpus == 1


def test_tasks_are_put_in_order_with_their_dependencies_kept() -> None:
    written = shaped(("merge", "2 b"), ("a", ""), ("b", "1"))
    with pytest.raises(BadInput, match="stands before"):
        task_shapes(written)
    tasks = ordered(written)
    assert [(task.name, task.depends) for task in tasks.tasks] == [
        ("a", ()),
        ("b", ("a",)),
        ("merge", ("b", "b")),
    ]
    assert [shape.parents for shape in task_shapes(tasks)] == [(), (0,), (1,)]
    assert ordered(tasks) is tasks


def test_a_task_of_another_dataset_is_told_apart_and_not_dropped() -> None:
    written = shaped(("a", "12:generate"), ("x:y", ""), ("b", "x:y"))
    parents, outside = dependencies(written)
    assert parents == [(), (), (1,)]
    assert [(index, other.dataset, other.task) for index, other in outside] == [(0, "12", "generate")]
    with pytest.raises(BadInput, match="another dataset"):
        task_shapes(written)


def test_cycles_made_by_hand_are_refused_by_the_plan() -> None:
    tasks = shaped(("a", ""), ("b", "a")).tasks
    with pytest.raises(BadInput, match="a -> b -> a"):
        dependencies(Configuration(tasks=(replace(tasks[0], depends=("b",)), tasks[1])))


def test_seeds_of_a_dataset_never_meet_and_are_the_same_everywhere() -> None:
    seeds = {job_seed(5, job) for job in range(100_000)}
    assert len(seeds) == 100_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert job_seed(5, 0) == 5 * 0 + job_seed(5, 0)
    assert job_seed(5, 1) != job_seed(6, 1)
    assert sum(job_seed(1, job) % 2 for job in range(1000)) in range(400, 600)


def test_subdirectories_hold_a_thousand_jobs() -> None:
    expected: list[tuple[int, Value]] = [
        (0, "00000-00999"),
        (1389, "01000-01999"),
        (123_456, "123000-123999"),
    ]
    assert [(job, subdirectory(job)) for job, _name in expected] == expected
