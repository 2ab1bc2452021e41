"""What expressions mean, row by row."""

from __future__ import annotations

import pytest

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.expand import expand_text
from iceprod_p2p.steering.expressions.context import Context
from iceprod_p2p.steering.expressions.evaluate import expand

CONTEXT = Context(
    args={"job": 1389, "dataset": 30002, "iter": 2},
    options={"test": 1, "test2": "test"},
    steering={
        "test": 1,
        "test2": "t2",
        "off": False,
        "quoted": '"quotes"',
        "empty": "",
        "nothing": None,
        "list": [1, 2, 3, 4.0],
        "words": ["foo", "bar", "baz"],
        "ages": {"foo": 1, "bar": 2, "baz": 3},
        "tree": {"foo": "$steering(test)", "bar": {"baz": "$steering(list)"}},
        "first": "$steering(words)[0]",
        "numbers": "[1, 1.5, 2.2]",
        "CORSIKA::run-2.0": 7,
        "title": "a,b",
        "options": "1,2,3",
        "FILTER_filtered": 1,
        "SIM_filtered": 2,
        "open": "$steering(",
    },
    system={"test": "FILTER", "test2": "SIM"},
    metadata={
        "category": "filtered",
        "run": 12,
        "FORMAT": "%(category)s_%(run)06d.i3",
        "PART": "%(gone)s-$(test2)",
    },
    environ={"OS_ARCH": "RHEL_7"},
)

RESOLVED: list[tuple[str, Value]] = [
    # Look-ups, typed.
    ("$steering(test)", 1),
    ("$steering(test2)", "t2"),
    ("$steering(off)", False),
    ("$steering(quoted)", '"quotes"'),
    ("$steering(empty)", ""),
    ("$steering(list)", [1, 2, 3, 4.0]),
    ("$steering(tree)", {"foo": 1, "bar": {"baz": [1, 2, 3, 4.0]}}),
    ("$steering(CORSIKA::run-2.0)", 7),
    ("$system(test)", "FILTER"),
    ("$options(test2)", "test"),
    ("$args(test2)", "test"),
    ("$options(job)", 1389),
    ("$metadata(category)", "filtered"),
    ("$environ(OS_ARCH)", "RHEL_7"),
    ("$(test2)", "t2"),
    ("$(job)", 1389),
    ("ab$(test2)cd", "abt2cd"),
    ("$$(test2)", "$t2"),
    ("$I3_BUILD/$(test2)", "$I3_BUILD/t2"),
    # Names made of phrases, innermost first, and results parsed again.
    ('$steering($sprintf("%s_%s",$system(test),$metadata(category)))', 1),
    ("$steering($system(test2)_$metadata(category))", 2),
    ("http://test/$steering(first)", "http://test/foo"),
    ("$(open)test)", 1),
    # Subscripts.
    ("$steering(words)[1]", "bar"),
    ("$steering(words)[-1]", "baz"),
    ("$steering(words)[$eval(1+1)]", "baz"),
    ("$steering(ages)[bar]", 2),
    ('$steering(ages)["bar"]', 2),
    ("$steering(ages)[$steering(words)[2]]", 3),
    ("$steering(ages)[$steering(first)]", 1),
    ("$steering(tree)[bar][baz][-1]", 4.0),
    ("$steering(numbers)[1]", 1.5),
    ("$steering(test2)[0]", "t"),
    ("hits$(test)[0]", "hits1[0]"),
    ("[$steering(words), 3]", [["foo", "bar", "baz"], 3]),
    # Escapes.
    ("\\$steering(test)", "$steering(test)"),
    ("$eval(\\(4+3*2\\)%3)", 1),
    ("a\\\\b", "a\\b"),
    ("\\[1\\]", "[1]"),
    # Arithmetic.
    ("$eval(4+4)", 8),
    ("$eval((4+3*2)%3)", 1),
    ("$eval(-1.23)", -1.23),
    ("$eval($eval($(dataset)*100000 + $(job))%100000000 + 1)", 201390),
    ('$eval("IC86.2011".lower().replace("+","_"))', "ic86.2011"),
    ('$eval("for" in "formula")', True),
    ("$eval(007+1)", 8),
    ("$eval([1,2,3][::-1])", [3, 2, 1]),
    ("$eval(true and 1)", 1),
    # sprintf.
    ('$sprintf("%d",5)', 5),
    ("$sprintf('%d',5)", 5),
    ("$sprintf(%d,5)", 5),
    ('$sprintf("%s %06d","testing",12)', "testing 000012"),
    ('$sprintf("x%07d", 12.0000)', "x0000012"),
    ('$sprintf("%x", 12)', "c"),
    ('$sprintf("%o", 12)', 14),
    ("$sprintf('%06d-%06d',$eval($(job)//1000*1000),$eval($(job)//1000*1000+999))", "001000-001999"),
    ("$sprintf('%.1fx', $steering(numbers)[0])", "1.0x"),
    ('$sprintf("%s|%s", "a,b" , c )', "a,b|c"),
    ('$sprintf("%s|%d", $steering(title), 3)', "a,b|3"),
    ('$sprintf("%5.2f%%", 12.345)', "12.35%"),
    # choice and reductions.
    ("$choice(1)", 1),
    ("$choice([7])", 7),
    ("$sum($steering(list))", 10.0),
    ("$sum(1,2,3)", 6),
    ("$min($steering(numbers))", 1),
    ("$max($steering(options))", 3),
    ("$max(b,a)", "b"),
    ("$len($steering(words))", 3),
    ("$len($steering(ages))", 3),
    ("$len(abc)", 3),
    # Metadata templates.
    ("$metadata(FORMAT)", "filtered_000012.i3"),
    # The final text is typed.
    ("5", 5),
    ("-5", -5),
    ("1e3", 1000.0),
    ("TRUE", True),
    ('"5"', '"5"'),
    ("[1, 'a']", [1, "a"]),
    ('{"a": ["1", true, null]}', {"a": [1, True, None]}),
    ("f'oo", "f'oo"),
    ("nan", "nan"),
    ("1_000", "1_000"),
    ("", ""),
    ("()", "()"),
    ("$test", "$test"),
]


@pytest.mark.parametrize(("text", "value"), RESOLVED)
def test_an_expression_has_its_value_and_type(text: str, value: Value) -> None:
    assert repr(expand_text(text, CONTEXT)) == repr((value, True))


UNRESOLVED: list[tuple[str, Value]] = [
    ("$(nowhere)", "$(nowhere)"),
    ("$steering(nothing)", "$steering(nothing)"),
    ("$test()", "$test()"),
    ("$foo(ba]]r)", "$foo(ba]]r)"),
    ("$foo($(test2))", "$foo(t2)"),
    ("$(job) $(gone)", "1389 $(gone)"),
    ("$steering(words)[$(job)]", '["foo", "bar", "baz"][1389]'),
    ("$steering(ages)[qux] $(gone)", '{"foo": 1, "bar": 2, "baz": 3}[qux] $(gone)'),
    ("$steering(tree)[bar][qux]", '{"baz": [1, 2, 3, 4.0]}[qux]'),
    ("$eval(import os)", "$eval(import os)"),
    ('$eval(os.remove\\("/"\\))', '$eval(os.remove("/"))'),
    ("$eval(1/0)", "$eval(1/0)"),
    ('$sprintf("%s,12)', '$sprintf("%s,12)'),
    ("$sprintf(%s)", "$sprintf(%s)"),
    ('$sprintf("%f","test")', '$sprintf("%f","test")'),
    # Text goes through $sprintf and $choice, with what has no value in it; nothing else takes it, and nothing cuts it.
    ('$sprintf("%s/%06d",$(gone),7)', "$(gone)/000007"),
    ('$sprintf("%d",$(gone))', '$sprintf("%d",$(gone))'),
    ('$sprintf("%.3s",$(gone))', '$sprintf("%.3s",$(gone))'),
    ('$sprintf("%s",$(gone))[0]', '$sprintf("%s",$(gone))[0]'),
    ('$eval($sprintf("%s",$(gone)))', "$eval($(gone))"),
    ("$choice($(gone))", "$(gone)"),
    ("$len($(gone))", "$len($(gone))"),
    ("$choice()", "$choice()"),
    ("$sum(a,b)", "$sum(a,b)"),
    ("$metadata(PART)", "%(gone)s-t2"),
    ("$Steering(test)", "$Steering(test)"),
]


@pytest.mark.parametrize(("text", "value"), UNRESOLVED)
def test_what_cannot_be_resolved_stays_as_it_stands_with_inner_parts_replaced(
    text: str, value: Value
) -> None:
    assert expand_text(text, CONTEXT) == (value, False)


def test_a_problem_names_the_place_the_column_and_the_nearest_right_name() -> None:
    steering = Context(steering={"file": "x$stering(a)"}, place="tasks[0].container")
    problems = expand("in $steering(file) $(other)", steering).problems
    assert [str(problem) for problem in problems] == [
        "steering.parameters.file:2: $stering(a) is no function: did you mean $steering(...)?",
        "tasks[0].container:20: $(other) is not known here",
    ]


def test_what_leaves_no_phrase_behind_is_a_problem_all_the_same() -> None:
    context = Context(steering={"x": [1], "y": "$(x)[2]"}, metadata={"F": "%(gone)s"})
    problems = expand("$(y) $metadata(F) $(other)", context).problems
    assert [str(problem) for problem in problems] == [
        "steering.parameters.y:1: $(x)[2] has no item 2: the list has 1",
        "metadata.F:1: %(gone) is not in the metadata",
        "expression:19: $(other) is not known here",
    ]


@pytest.mark.parametrize(
    ("parameters", "way"),
    [
        ({"a": "$steering(a)"}, "steering(a) -> steering(a)"),
        ({"a": "$steering(b)", "b": "x$(a)y"}, "steering(a) -> steering(b) -> steering(a)"),
        ({"a": ["$(b)"], "b": {"x": "$steering($eval('a'))"}}, "steering(a) -> steering(b) -> steering(a)"),
    ],
)
def test_a_cycle_is_named_and_never_run(parameters: dict[str, Value], way: str) -> None:
    expansion = expand("see $steering(a)", Context(steering=parameters))
    assert expansion.value == "see $steering(a)"
    assert not expansion.resolved
    assert expansion.problems[0].reason == f"refers to itself: {way}"


def test_an_inner_scope_may_use_the_same_name_of_the_steering() -> None:
    context = Context(steering={"file": "base"}, scopes=(("tray", {"file": "$steering(file).i3"}),))
    assert expand_text("$(file)", context) == ("base.i3", True)


def test_the_nearest_scope_wins_and_steering_comes_before_options() -> None:
    scopes = (("module", {"a": "module"}), ("tray", {"a": "tray", "b": "tray"}))
    names = {"a": "s", "b": "s", "c": "s"}
    context = Context(scopes=scopes, steering=names, options={**names, "d": "options"})
    assert expand_text("$(a) $(b) $(c) $(d)", context) == ("module tray s options", True)


def test_a_choice_depends_on_seed_job_task_and_place_and_on_nothing_else() -> None:
    def drawn(**changes: Value) -> list[Value]:
        args: dict[str, Value] = {"job": 3, "task": "t", **changes}
        seed = int(str(args.pop("seed", 5)))
        texts = [f"$choice({','.join(str(n) for n in range(1000))}) " * 3]
        return [expand(text, Context(args=args, seed=seed, place="x")).value for text in texts]

    assert drawn() == drawn(iter=9)
    assert drawn() != drawn(job=4) and drawn() != drawn(task="u") and drawn() != drawn(seed=6)
    first, second, third = str(drawn()[0]).split()
    assert len({first, second, third}) > 1, "each place in a text draws for itself"


def test_a_choice_in_a_parameter_is_the_same_wherever_the_parameter_is_used() -> None:
    context = Context(steering={"x": f"$choice({','.join(str(n) for n in range(1000))})"}, seed=1)
    value, _resolved = expand_text("$(x)", context)
    assert expand_text("$steering(x) and $(x)", context)[0] == f"{value} and {value}"


def test_lists_and_objects_are_expanded_inside_with_their_names() -> None:
    value: Value = {"$(test2)": ["$(job)", {"x": "$(gone)"}], "n": 5, "z": None}
    expansion = expand(value, CONTEXT)
    assert expansion.value == {"t2": [1389, {"x": "$(gone)"}], "n": 5, "z": None}
    assert expansion.problems[0].place == ".$(test2)[1].x"


def test_equal_inputs_give_equal_outputs() -> None:
    for text, _value in (*RESOLVED, *UNRESOLVED):
        assert expand(text, CONTEXT) == expand(text, CONTEXT)
