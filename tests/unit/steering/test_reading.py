"""Reading: three syntaxes, IceProd's own forms, and faults with their places."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from iceprod_p2p.model.steering import DataType, Parameter, ParameterType, Transfer
from iceprod_p2p.steering.faults import Fault, SteeringError
from iceprod_p2p.steering.read import check, read
from iceprod_p2p.steering.write import write
from tests.security.cost import bounded

XML = """<?xml version='1.0' encoding='UTF-8'?>
<!DOCTYPE configuration PUBLIC "-//W3C//DTD XML 1.0 Strict//EN" "http://localhost/iceprod.v3.dtd">
<configuration xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:noNamespaceSchemaLocation='config.xsd'
    version='3.0' iceprod_version='2.0' parentid='0'>
  <options><parameter name="debug" type="bool" value="true"/></options>
  <steering>
    <parameter name="seed" type="int">1234</parameter>
    <parameter name="emin" type="float" value="5@TeV"/>
    <parameter name="list" type="string_list" value="a, b"/>
    <parameter name="plain" value="5"/>
    <system><parameter name="arch" type="string" value="x86_64"/></system>
    <batchsys><parameter name="queue" value="long"/></batchsys>
    <resource remote="http://x/y.tgz" local="y.tgz" compression="gz"/>
    <data type="permanent" movement="output" remote="$steering(out)" local="o.i3"/>
  </steering>
  <DIF_Plus><DIF><Sensor_Name>IceCube</Sensor_Name></DIF><Plus><Category>generated</Category></Plus></DIF_Plus>
  <task name="generate">
    <requirements cpu="2" memory="2.5"><os name="RHEL_9"/></requirements>
    <tray name="Corsika" iter="3">
      <module name="m" class="generators.CorsikaIC"><parameter name="n" type="int" value="$steering(seed)"/></module>
      <class name="generators" src="svn://x" recursive="true"/>
      <project class="simulation" name="V05"/>
    </tray>
  </task>
  <task name="filter" depends="generate"><tray><module src="filter.py" args="--in x"/></tray></task>
</configuration>
"""


def test_iceprods_xml_is_read_with_types_units_and_metadata() -> None:
    tree = read(XML.encode(), name="chain.xml")
    assert (tree.version, tree.iceprod_version, tree.parent_id) == ("3.0", "2.0", 0)
    assert tree.options == (Parameter("debug", True, ParameterType.BOOL),)
    assert tree.steering.parameters == (
        Parameter("seed", 1234, ParameterType.INT),
        Parameter("emin", "5@TeV", ParameterType.FLOAT),
        Parameter("list", ["a", "b"], ParameterType.STRING_LIST),
        Parameter("plain", "5", ParameterType.ANY),
    )
    assert tree.steering.batchsys[0].name == "*"
    assert tree.metadata is not None and tree.metadata.plus[0].value == "generated"
    first, second = tree.tasks
    assert (first.requirements.cpu, first.requirements.memory, first.requirements.os) == (2, 2.5, ("RHEL_9",))
    assert first.trays[0].iterations == 3 and first.trays[0].classes[0].recursive
    assert first.trays[0].modules[0].parameters[0].value == "$steering(seed)"
    assert second.depends == ("generate",) and second.trays[0].modules[0].args == "--in x"


def module(**more: Any) -> dict[str, Any]:
    return {"src": "a.py", **more}


def dataset(version: Any = 3.2, *, task: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    tasks = [{"name": "one", "trays": [{"modules": [module()]}], **(task or {})}]
    return {"version": version, "description": "d", "tasks": tasks, **more}


def faults_of(document: Any, name: str = "d.json") -> list[Fault]:
    return list(check(json.dumps(document).encode(), name=name).faults)


VALID = [
    {"version": 3.1, "description": "", "tasks": []},
    dataset("3.2"),
    dataset(3, steering={"parameters": {}, "batchsys": None, "system": {}, "resources": [], "data": []}),
    dataset(dataset=30002, difplus=None, categories=[], anything={"x": 1}),
    dataset(
        task={"unknown_to_the_schema": [1], "container": "/cvmfs/x", "requirements": {"memory": "2", "x": 1}}
    ),
    dataset(task={"trays": [{"iterations": 2.0, "modules": [module(args=["a"]), module(args={"a": 1})]}]}),
    dataset(3.1, task={"trays": [{"modules": [module(data=[], resources=[], classes=[])], "projects": []}]}),
    dataset(task={"data": [{"type": "permanent", "remote": "gsiftp://x/y", "transfer": "maybe"}]}),
    dataset(task={"data": [{"type": "job_temp", "local": "abc"}]}),
    dataset(task={"batchsys": {"condor": {"x": 1}}, "parameters": {"a": [1, {"b": None}]}}),
    dataset(
        task={"trays": [{"modules": [{"running_class": "icecube.simprod.X", "configs": {"a.json": {}}}]}]}
    ),
]


@pytest.mark.parametrize("document", VALID)
def test_what_iceprods_schema_allows_is_valid(document: dict[str, Any]) -> None:
    assert [str(fault) for fault in faults_of(document)] == []


INVALID: list[tuple[Any, str]] = [
    ({"description": "", "tasks": []}, "the file"),
    ({"version": 3.2, "tasks": []}, "the file"),
    ({"version": 3.2, "description": ""}, "the file"),
    (dataset(9.9), "version"),
    (dataset("new"), "version"),
    (dataset(description=5), "description"),
    (dataset(steering={"parameter": {}}), "steering.parameter"),
    (dataset(steering={"batchsys": {"condor": 5}}), "steering.batchsys.condor"),
    (dataset(steering={"batchsys": None}), "steering.batchsys"),
    (dataset(task={"trays": []}), "tasks[0].trays"),
    (dataset(task={"trays": [{"modules": []}]}), "tasks[0].trays[0].modules"),
    (dataset(task={"trays": [{"modules": [module()], "iter": 2}]}), "tasks[0].trays[0].iter"),
    (dataset(task={"trays": [{"modules": [module()], "iterations": "2"}]}), "tasks[0].trays[0].iterations"),
    (dataset(task={"trays": [{"modules": [module()], "iterations": -1}]}), "tasks[0].trays[0].iterations"),
    (dataset(task={"trays": [{"modules": [module(srcs="x")]}]}), "tasks[0].trays[0].modules[0].srcs"),
    (dataset(task={"trays": [{"modules": [module(args=[1])]}]}), "tasks[0].trays[0].modules[0].args[0]"),
    (
        dataset(task={"trays": [{"modules": [module(env_clear="no")]}]}),
        "tasks[0].trays[0].modules[0].env_clear",
    ),
    (dataset(task={"trays": [{"modules": [{"name": "x"}]}]}), "tasks[0].trays[0].modules[0]"),
    (dataset(task={"requirements": {"cpu": "two"}}), "tasks[0].requirements.cpu"),
    (dataset(task={"requirements": {"cpu": 1.5}}), "tasks[0].requirements.cpu"),
    (dataset(task={"requirements": {"cpu": True}}), "tasks[0].requirements.cpu"),
    (dataset(task={"requirements": {"memory": -1}}), "tasks[0].requirements.memory"),
    (dataset(task={"requirements": {"time": "-0.5"}}), "tasks[0].requirements.time"),
    (dataset(task={"requirements": {"disk": "lots"}}), "tasks[0].requirements.disk"),
    (dataset(task={"requirements": {"os": "RHEL_7"}}), "tasks[0].requirements.os"),
    (dataset(task={"depends": ["two"]}), "tasks[0].depends[0]"),
    (dataset(task={"depends": ["one"]}), "tasks[0].depends"),
    (dataset(task={"depends": [0]}), "tasks[0].depends[0]"),
    (dataset(task={"name": 5}), "tasks[0].name"),
    (dataset(task={"name": ""}), "tasks[0].name"),
    (dataset(task={"data": [{"remote": "gsiftp://x/y"}]}), "tasks[0].data[0]"),
    (dataset(task={"data": [{"type": "permanent", "local": "abc"}]}), "tasks[0].data[0].remote"),
    (
        dataset(task={"data": [{"type": "job_temp", "local": "abc", "remote": "x://y"}]}),
        "tasks[0].data[0].remote",
    ),
    (dataset(task={"data": [{"type": "job_tmp", "local": "abc"}]}), "tasks[0].data[0].type"),
    (dataset(task={"data": [{"type": "job_temp", "local": "../../etc"}]}), "tasks[0].data[0].local"),
    (
        dataset(task={"data": [{"type": "job_temp", "local": "abc", "transfer": 5}]}),
        "tasks[0].data[0].transfer",
    ),
    (dataset(task={"task_files": True, "token_scopes": {}}), "tasks[0].token_scopes"),
    (dataset(task={"batchsys": {"x": 1}}), "tasks[0].batchsys.x"),
    ([], ""),
    ("text", ""),
]


@pytest.mark.parametrize(("document", "path"), INVALID)
def test_what_cannot_run_is_a_fault_at_its_path(document: Any, path: str) -> None:
    assert path in [fault.path for fault in faults_of(document)]


def test_duplicate_names_and_cycles_are_found() -> None:
    tray = [{"modules": [module()]}]
    tasks = [{"name": name, "depends": [parent], "trays": tray} for name, parent in ("ab", "bc", "ca")]
    found = faults_of({"version": 3.2, "description": "", "tasks": [*tasks, tasks[0]]})
    said = {fault.path: f"{fault.found}; {fault.allowed}" for fault in found}
    assert "a -> b -> c -> a" in said["tasks[0].depends"]
    assert "tasks[0] does not have already" in said["tasks[3].name"]


def test_all_faults_are_listed_at_once_with_places_and_suggestions() -> None:
    text = """{"version": 3.2, "description": "x",
 "tasks": [
  {"name": "a", "depends": ["bb"], "trays": [{"modules": [{"scr": "x.py"}]}]},
  {"name": "b", "requirements": {"memory": -2}, "trays": [{"modules": [{"src": "x"}], "iterations": "x"}]}
 ]}"""
    faults = check(text.encode(), name="two.json").faults
    assert [(fault.line, fault.path, fault.suggestion) for fault in faults] == [
        (3, "tasks[0].depends[0]", "b"),
        (3, "tasks[0].trays[0].modules[0]", ""),
        (3, "tasks[0].trays[0].modules[0].scr", "src"),
        (4, "tasks[1].requirements.memory", ""),
        (4, "tasks[1].trays[0].iterations", ""),
    ]
    assert faults[2].column == text.splitlines()[2].index('"scr"') + 1
    assert str(faults[3]).startswith(
        "two.json:4:44: tasks[1].requirements.memory: found -2; allowed: GB as a number"
    )


def test_faults_of_xml_have_lines_and_columns_and_nearest_names() -> None:
    bad = XML.replace('<module src="filter.py"', '<modul src="filter.py"').replace('iter="3"', 'iterr="3"')
    bad = bad.replace('type="bool"', 'type="pickle"')
    found = {fault.path: fault for fault in check(bad.encode(), name="c.xml").faults}
    assert found["tasks[1].trays[0].modul"].suggestion == "module"
    assert found["tasks[1].trays[0].modul"].column > 1
    assert found["tasks[0].trays[0]"].suggestion == "iter"
    assert "can run code" in found["options.debug"].allowed
    assert found["options.debug"].line == 5


def test_yaml_keeps_no_and_on_as_texts_and_refuses_what_is_not_data() -> None:
    text = "version: 3.2\nsteering: {parameters: {a: no, b: on, c: 0x10, d: 1e3, e: 007, f: ~}}\ntasks: []\n"
    values = [parameter.value for parameter in read(text.encode(), name="x.yaml").steering.parameters]
    assert values == ["no", "on", 16, 1000.0, "007", None]
    for bad in (
        "a: !!python/name:os.system x",
        "a: .nan",
        "a: *b",
        "a: 1\na: 2",
        "a: 1\n---\nb: 2",
        "? [1]\n: 2",
    ):
        with pytest.raises(SteeringError):
            read(bad.encode(), name="x.yaml")


def test_our_own_form_allows_our_own_names_and_expressions_for_amounts() -> None:
    document = {
        "format": "iceprod-p2p/1",
        "tasks": [
            {
                "name": "a",
                "requirements": {"cpu": "$steering(n)", "memory": "512MB", "attributes": ["cvmfs"]},
                "data": [{"type": "job_temp", "local": "x", "transfer": "maybe"}],
                "trays": [
                    {"iterations": "$(n)", "environment": {"cvmfs": "/cvmfs/x"}, "modules": [{"class": "M"}]}
                ],
            }
        ],
    }
    tree = read(json.dumps(document).encode())
    assert (
        tree.tasks[0].data[0].transfer is Transfer.MAYBE and tree.tasks[0].data[0].type is DataType.JOB_TEMP
    )
    assert tree.tasks[0].trays[0].environment is not None
    assert faults_of({**document, "format": "other"})[0].path == "format"


def test_the_syntax_is_told_by_content_and_only_then_by_name() -> None:
    assert check(b"<configuration/>", name="x.json").syntax == "xml"
    assert check(b'{"version": 3.2}', name="x").syntax == "json"
    assert check(b"{version: 3.2}", name="x.yaml").syntax == "yaml"
    assert check(b"\xef\xbb\xbf{}", name="x").syntax == "json"


DEEP = 100_000
LARGE = 1_000_000
HOSTILE: dict[str, bytes] = {
    "too large": b"<" + b"a" * 100_000_000,
    "xml depth": b"<a>" * DEEP,
    "xml many": b"<configuration>" + b"<task/>" * DEEP,
    "xml attribute": b"<configuration version='" + b"a" * LARGE + b"'/>",
    "xml attributes": b"<configuration " + b" ".join(b"a%d='1'" % n for n in range(90_000)) + b"/>",
    "xml bomb": b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><configuration>&b;</configuration>',
    "xml external entity": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><configuration>&a;</configuration>',
    "xml parameter entity": b'<!DOCTYPE x [<!ENTITY % a SYSTEM "file:///etc/passwd">%a;]><configuration/>',
    "xml default attributes": b'<!DOCTYPE x [<!ATTLIST task name CDATA "x">]><configuration><task/></configuration>',
    "xml skipped entity": b'<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><configuration>&a;</configuration>',
    "utf-7": b'<?xml version="1.0" encoding="UTF-7"?>+ADw-configuration+AD4-',
    "utf-7 mark": b"+/v8-",
    "utf-32": b"\xff\xfe\0\0<\0\0\0",
    "not utf-8": b'{"a": "\xff"}',
    "control characters": b'{"a": "\x00"}',
    "json control": b'{"version": "\\u0000"}',
    "json surrogate": b'{"version": "\\ud800"}',
    "json depth": b"[" * DEEP,
    "json object depth": b'{"a":' * DEEP,
    "json many": b"[" + b"1," * 500_000 + b"1]",
    "json string": b'{"a":"' + b"a" * LARGE + b'"}',
    "json open string": b'{"a":"' + b'\\"' * 500_000,
    "json number": b'{"a":' + b"1" * LARGE + b"}",
    "json infinite": b'{"a": 1e999}',
    "json nan": b'{"a": NaN}',
    "json twice": b'{"a": 1, "a": 2}',
    "json rest": b"{} {}",
    "yaml depth": b"- " * DEEP,
    "yaml flow depth": b"[ " * 20_000,
    "yaml many": b"a: [" + b"1, " * 300_000 + b"]",
    "yaml bomb": b"a: &a [x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [*%c,*%c,*%c,*%c,*%c]\n" % (98 + n, 98 + n, *[97 + n] * 5) for n in range(20)),
    "yaml chain": b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (n, n, n - 1) for n in range(1, 200)),
    "yaml itself": b"a: &a [*a]",
    "yaml object": b"a: !!python/object/apply:os.system ['true']",
    "empty": b"",
    "blanks": b" \n" * 500_000,
    "words": b"hello",
    "html": b"<html><body>x</body></html>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_at_once_in_clear_faults(name: str) -> None:
    document = "x.yaml" if name.startswith("yaml") else "x"
    with bounded(cpu_s=1.0):  # The bar is 50 ms; a slow machine gets more.
        checked = check(HOSTILE[name], name=document)
    tracemalloc.start()
    try:
        check(HOSTILE[name], name=document)
        assert tracemalloc.get_traced_memory()[1] <= 64 << 20
    finally:
        tracemalloc.stop()
    assert checked.faults
    assert all(len(str(fault)) < 1_000 and str(fault).isprintable() for fault in checked.faults)


def test_a_file_with_a_thousand_faults_lists_two_hundred() -> None:
    tasks = [{"nam": 1}] * 1000
    found = faults_of({"version": 3.2, "description": "", "tasks": tasks})
    assert len(found) == 200


def test_an_extra_element_cannot_take_the_name_of_a_known_one() -> None:
    text = '<configuration><extra name="tasks">[]</extra><extra name="mine">{"a": 1}</extra></configuration>'
    checked = check(text.encode())
    assert len(checked.faults) == 1
    assert checked.configuration is not None and checked.configuration.extra == {"mine": {"a": 1}}


def test_writing_in_an_unknown_syntax_is_refused() -> None:
    with pytest.raises(Exception, match="no syntax is called 'toml'"):
        write(read(XML.encode()), "toml")
