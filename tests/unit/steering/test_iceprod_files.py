"""What real files of IceProd hold beside what its schemas say, and what IceProd 3 refuses of its own schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iceprod_p2p.model.steering import ParameterType
from iceprod_p2p.steering.commands import check_answer, convert_text
from iceprod_p2p.steering.read import check, read

# The forms that IceProd 2's writer of XML gave: booleans as Python shows them, the types str and str_list.
OF_ICEPROD_2 = """<?xml version='1.0' encoding='UTF-8'?>
<!DOCTYPE configuration PUBLIC "-//W3C//DTD XML 1.0 Strict//EN" "http://x2100.icecube.wisc.edu/dtd/iceprod.v3.dtd">
<configuration xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'
  xsi:noNamespaceSchemaLocation='config.xsd' version='3.0' iceprod_version='2.0' parentid='0'>
  <options><parameter type='bool' name='debug' value='True'/></options>
  <steering>
    <parameter type='str' name='title' value='017'/>
    <resource remote='tables.tar' local='tables' compression='True'/>
    <data remote='in.i3' local='in.i3' compression='False' type='permanent' movement='both'/>
    <system><parameter type='str_list' name='sites' value='["a","b"]'/></system>
    <batchsys name='condor'><parameter type='string' name='Requirements' value='Machine = "node001"'/></batchsys>
  </steering>
  <task depends="" name="first">
    <parameter type='double' name='gamma' value='1.2'/>
    <class name='n' recursive='True' src='s' resource_name='r' env_vars='A=1;B=2'/>
    <project name='n' class='c'/>
    <tray iter="2" name="Corsika">
      <class name='n' recursive='FALSE' src='s'/>
      <module name="generate" class="generators.CorsikaIC" src="s" args="a=1"/>
    </tray>
  </task>
</configuration>
"""


def test_what_iceprod_2_wrote_as_xml_is_read() -> None:
    checked = check(OF_ICEPROD_2, name="old.xml")
    assert [str(fault) for fault in checked.faults] == []
    tree = checked.configuration
    assert tree is not None
    assert [item.compression for item in tree.steering.resources] == ["true"]
    assert [item.compression for item in tree.steering.data] == [""]
    assert [reference.recursive for reference in tree.tasks[0].classes] == [True]
    assert [reference.recursive for reference in tree.tasks[0].trays[0].classes] == [False]
    assert [known.value for known in tree.steering.system] == [["a", "b"]]
    assert tree.steering.system[0].type is ParameterType.STRING_LIST
    assert tree.steering.parameters[0].value == "017", "a text stays one"
    assert tree.options[0].value is True


@pytest.mark.parametrize("syntax", ["xml", "yaml", "json"])
def test_what_iceprod_2_wrote_as_xml_is_kept_in_every_syntax(syntax: str) -> None:
    text = convert_text(OF_ICEPROD_2, name="old.xml", syntax=syntax)
    assert read(text, name=f"new.{syntax}") == read(OF_ICEPROD_2, name="old.xml")


def of_schema(version: float, **task: Any) -> dict[str, Any]:
    """Return a dataset with one task, valid by both of IceProd 3's schemas, with the entries given."""
    whole = {"name": "a", "trays": [{"modules": [{"src": "run.py"}]}], **task}
    return {"version": version, "description": "", "tasks": [whole]}


@pytest.mark.parametrize("version", [3.1, 3.2])
@pytest.mark.parametrize(
    ("task", "path"),
    [
        ({"requirements": {"cpu": ""}}, "tasks[0].requirements.cpu"),
        ({"requirements": {"gpu": ""}}, "tasks[0].requirements.gpu"),
        ({"trays": [{"iterations": "", "modules": [{"src": "x"}]}]}, "tasks[0].trays[0].iterations"),
        (
            {"data": [{"type": "permanent", "remote": "file:/x", "transfer": ""}]},
            "tasks[0].data[0].transfer",
        ),
    ],
)
def test_an_empty_text_is_no_number_and_no_word_in_iceprods_schemas(
    version: float, task: dict[str, Any], path: str
) -> None:
    answer = check_answer(json.dumps(of_schema(version, **task)), name="x.json")
    assert [fault["path"] for fault in answer["faults"]] == [path]


def test_task_files_need_token_scopes_in_schema_3_2_as_iceprod_says_when_it_is_given_a_dataset() -> None:
    answers = {
        version: check_answer(json.dumps(of_schema(version, task_files=True)), name="x.json")
        for version in (3.1, 3.2)
    }
    assert answers[3.1]["valid"]
    assert [fault["path"] for fault in answers[3.2]["faults"]] == ["tasks[0].token_scopes"]
    scopes = {"osdf:///icecube": "storage.read:/data"}
    whole = of_schema(3.2, task_files=True, token_scopes=scopes)
    assert check_answer(json.dumps(whole), name="x.json")["valid"]
