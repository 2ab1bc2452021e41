"""What hostile files and expressions may cost: a budget of steps, equal on every machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.commands import check_answer, expression_answer, parse_request
from iceprod_p2p.steering.expand import expand_text
from iceprod_p2p.steering.expressions.context import Context
from tests.security.cost import bounded

TRAYS = [{"modules": [{"src": "a"}]}]
NUMBERS: list[Value] = list(range(20_000))


def document(tasks: list[Any], **parameters: Any) -> bytes:
    steering = {"parameters": parameters}
    return json.dumps({"format": "iceprod-p2p/1", "steering": steering, "tasks": tasks}).encode()


FILES: dict[str, bytes] = {
    "tasks that wait for each other": document(
        [{"name": f"t{n}", "depends": [f"t{(n + 1) % 600}"], "trays": TRAYS} for n in range(600)]
    ),
    "malformed tasks": json.dumps(
        {"version": 3.2, "description": "", "tasks": [{"nam": 1}] * 2_900}
    ).encode(),
    "parameters that all refer to all": document(
        [{"name": "a", "trays": TRAYS}],
        **{f"p{n}": "".join(f"$(p{m})" for m in range(100)) for n in range(100)},
    ),
    "references without end": document([{"name": "a", "trays": TRAYS}], q="$(a)" * 60_000),
    "one long list many times": document(
        [{"name": "a", "trays": [{"modules": [{"src": "$len($(l))" * 2_000}]}]}], l=NUMBERS[:5_000]
    ),
    "many parameters in many tasks": document(
        [{"name": f"t{n}", "trays": TRAYS} for n in range(300)],
        **{f"p{n}": "$eval(1+1)" for n in range(3_000)},
    ),
    "lists that hold lists twice": document(
        [{"name": "a", "trays": [{"modules": [{"src": "$(l0)"}]}]}],
        **{f"l{n}": [f"$(l{n + 1})"] * 10 for n in range(30)},
        l30="x",
    ),
    "objects that hold objects twice": document(
        [{"name": "a", "trays": [{"modules": [{"args": {"x": "$(o0)"}, "src": "x"}]}]}],
        **{f"o{n}": {"a": f"$(o{n + 1})", "b": f"$(o{n + 1})"} for n in range(38)},
        o38=1,
    ),
    "lines without end": b"{" + b"\n" * 1_000_000,
    "directives without end": b"".join(b"%%TAG !t%d! tag:x\n" % n for n in range(40_000)) + b"--- a",
    "directives after other line ends": b"".join(b"%%TAG !t%d! tag:x\r" % n for n in range(40_000))
    + b"--- a",
    "attributes with blanks": b"<configuration " + b" ".join(b"a%d = 'x'" % n for n in range(60_000)) + b"/>",
    "types that nothing has": b"<configuration><steering>"
    + b"".join(b"<parameter name='a%d' type='int' value='x'/>" % n for n in range(1_900))
    + b"</steering></configuration>",
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_checked_within_its_bound(name: str) -> None:
    with bounded(cpu_s=1.0):  # The bar is 50 ms; a loaded machine gets more.
        answer = check_answer(FILES[name], name="x")
    assert len(answer["faults"]) <= 200 and len(answer["warnings"]) <= 20_000
    assert answer["faults"] or answer["warnings"] or answer["valid"]


def test_a_file_too_large_to_look_at_says_so() -> None:
    warnings = check_answer(FILES["many parameters in many tasks"], name="x")["warnings"]
    assert warnings[-1].endswith("the file is too large to look at every phrase of it")


@pytest.mark.parametrize(
    "text",
    [
        "$len($(l))",
        "$min($(l))",
        "$sum($(l))",
        "$choice($(l))",
        "$(l)[1]",
        "$(t)[1]",
        "$max($(t))",
        "$eval(len([1]*4000))",
        "$eval(math.fsum([0.1]*4900))",
        "$sprintf('%1000d',1)",
    ],
)
def test_repeated_work_on_long_lists_is_paid_for(text: str) -> None:
    context = Context(args={"l": NUMBERS, "t": json.dumps(NUMBERS)})
    with bounded(cpu_s=0.5):
        value, resolved = expand_text(text * 3_000, context)
    assert value == text * 3_000 and not resolved, "what passes the bound stays as it stands"


def test_a_list_that_holds_lists_twice_is_never_written_out() -> None:
    doubled: dict[str, Value] = {f"l{n}": [f"$(l{n + 1})", {"x": f"$(l{n + 1})"}] for n in range(35)}
    context = Context(args={**doubled, "l35": "x"})
    for text in ("$(l0)", "x$(l0)", "$len($(l0))", "$(l0)[0]", "$choice($(l0))", "[$(l0)]"):
        with bounded(cpu_s=0.5, memory_mib=16):
            assert expand_text(text, context) == (text, False)
    assert expand_text("$(l32)", context)[1] is True, "a few are fine"


@pytest.mark.parametrize(
    "line",
    [
        b'{"expr":[' + b"{}," * 1_390_000 + b"1]}",
        b'{"expr":[' + b"[[[]]]," * 590_000 + b"1]}",
        b'{"context":{' + b",".join(b'"%x":1' % n for n in range(380_000)) + b"}}",
        b'{"expr":[' + b",".join([b"9" * 4_000] * 1_000) + b"]}",
        b'{"expr":"' + b"x" * 4_100_000 + b'"}',
        b'{"expr":"$metadata(a)","context":{"metadata":{"a":"' + b"%(b)s" * 800_000 + b'"}}}',
    ],
    ids=["objects", "lists", "names", "digits", "text", "template"],
)
def test_a_hostile_request_costs_little(line: bytes) -> None:
    with bounded(cpu_s=0.5, memory_mib=64), pytest.raises(BadInput):
        request = parse_request(line)
        expression_answer(request.get("expr"), request.get("context") or {})


def test_references_to_characters_bring_in_nothing_that_no_file_may_hold() -> None:
    text = "<configuration><description>&#xF0024;(job)</description></configuration>"
    (fault,) = check_answer(text, name="x.xml")["faults"]
    assert fault["found"] == "the character U+F0024"


@pytest.mark.parametrize("depth", [49, 450, 900, 5_000])
def test_lists_nested_deeper_than_any_file_stay_text(depth: int) -> None:
    text = "[" * depth + "]" * depth
    assert expand_text(text, Context()) == (text, True)
    assert expand_text("$(a)", Context(args={"a": text}))[0] in (text, "$(a)")


def test_a_text_that_is_a_list_is_paid_for_when_an_item_of_it_is_taken() -> None:
    assert expand_text("$(t)[0]", Context(args={"t": "[" + "1," * 60_000 + "1]"}))[1] is False
    assert expand_text("$(t)[0]", Context(args={"t": "[" + "1," * 6_000 + "1]"})) == (1, True)
