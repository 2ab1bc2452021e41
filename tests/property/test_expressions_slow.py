"""The evaluator against a slow and obvious one: take the last phrase that has no phrase inside, put its value in its
place, and begin again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.expand import expand_text
from iceprod_p2p.steering.expressions.context import Context

INNERMOST = re.compile(r"\$(\w*)\(([^$()]*)\)((?:\[[^$()\[\]]*\])*)")
HIDE = str.maketrans("$()[]", "\ue000\ue001\ue002\ue003\ue004")
SHOW = str.maketrans("\ue000\ue001\ue002\ue003\ue004", "$()[]")

TABLES: Mapping[str, Mapping[str, Any]] = {
    "args": {"job": 1389, "n": 3, "sub": "$steering(dir)/x"},
    "steering": {
        "dir": "/data",
        "list": [4, 5.5, "six", "$args(n)"],
        "words": ["foo", "bar"],
        "ages": {"foo": 1, "bar": {"baz": [7, 8]}},
        "which": "$steering(words)[1]",
        "flag": True,
        "CORSIKA::run": "$eval($args(job)+1)",
        "number": "007",
        "deep": "a$(sub)b$(number)",
    },
    "system": {"gpu": "cuda"},
}


class Unknown(Exception):
    """A phrase has no value."""


def slow(text: str) -> tuple[Value, bool]:
    """Return value and whether all of it is resolved."""
    rewritten, resolved = rewrite(text)
    return typed(rewritten.translate(SHOW)), resolved


def rewrite(text: str) -> tuple[str, bool]:
    resolved = True
    while True:
        phrases = list(INNERMOST.finditer(text))
        if not phrases:
            return text, resolved
        last = phrases[-1]
        try:
            value = value_of(last[1], last[2])
            rest = last[3]
            while rest:
                index, _, rest = rest[1:].partition("]")
                try:
                    value = item(value, index)
                except Unknown:
                    value, resolved = f"{as_text(value)}[{index}]{rest}".translate(HIDE), False
                    break
            shown = as_text(value)
            if isinstance(value, (list, dict)):
                shown = shown.translate(HIDE)
        except Unknown:
            shown, resolved = last.group().translate(HIDE), False
        text = text[: last.start()] + shown + text[last.end() :]


def value_of(name: str, argument: str) -> Any:
    argument = argument.translate(SHOW)
    if name == "eval":
        return added(argument)
    if name == "sprintf":
        template, number, word = argument.split(",")
        if "$" in number:
            raise Unknown
        return template.strip("'") % (int(number), word.strip().translate(HIDE))
    if name in ("len", "max"):
        values = typed(argument)
        if not isinstance(values, list) or "$" in argument:
            raise Unknown
        return len(values) if name == "len" else max(values)
    searched = [name] if name else ["steering", "args"]
    for table in searched:
        if argument in TABLES.get(table, {}):
            return whole(TABLES[table][argument])
    raise Unknown


def whole(value: Any) -> Any:
    """Return a value with every text in it expanded."""
    if isinstance(value, str):
        return rewrite(value)[0]
    if isinstance(value, list):
        return [slow(item)[0] if isinstance(item, str) else whole(item) for item in value]
    if isinstance(value, dict):
        return {key: slow(item)[0] if isinstance(item, str) else whole(item) for key, item in value.items()}
    return value


def added(text: str) -> int:
    """Return a sum of products of small numbers."""
    if not re.fullmatch(r"[0-9]+([+*][0-9]+)*", text):
        raise Unknown
    total = 0
    for term in text.split("+"):
        product = 1
        for factor in term.split("*"):
            product *= int(factor)
        total += product
    return total


def item(value: Any, index: str) -> Any:
    index = index.translate(SHOW)
    if isinstance(value, list) and re.fullmatch(r"-?[0-9]+", index):
        if -len(value) <= int(index) < len(value):
            return value[int(index)]
        raise Unknown
    if isinstance(value, dict) and index in value:
        return value[index]
    if isinstance(value, (list, dict)):
        raise Unknown
    text = as_text(value)
    if (
        isinstance(typed(text), str)
        and re.fullmatch(r"-?[0-9]+", index)
        and -len(text) <= int(index) < len(text)
    ):
        return text[int(index)]
    return f"{text}[{index}]".translate(HIDE)


def as_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def typed(text: str) -> Value:
    stripped = text.strip()
    if stripped[:1] in ("[", "{"):
        try:
            return retyped(json.loads(stripped))
        except ValueError:
            return text
    if stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    if re.fullmatch(r"[+-]?[0-9]+", stripped):
        return int(stripped)
    if re.fullmatch(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)", stripped):
        return float(stripped)
    return text


def retyped(value: Any) -> Any:
    if isinstance(value, list):
        return [retyped(inner) for inner in value]
    if isinstance(value, dict):
        return {key: retyped(inner) for key, inner in value.items()}
    return typed(value) if isinstance(value, str) else value


PLAIN = st.sampled_from(["", "a", "x/y", "1", "-2", "1.5", " ", "true", "_", "é", "IC86"])
WORDS = st.sampled_from(["", "a", " x/y ", "$(which)", "$(gone)", "$steering(dir)"])
NAMES = st.sampled_from([*TABLES["steering"], *TABLES["args"], *TABLES["system"], "gone"])
LOOKUPS = st.sampled_from(["", "", "args", "steering", "system", "nothing"])
INDICES = st.sampled_from(
    ["0", "1", "-1", "9", "foo", "bar", "baz", "$args(n)", "$eval(0+1)", "$(which)", "$(gone)"]
)


def joined(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(PLAIN, strategy), min_size=1, max_size=4).map("".join)


def phrases(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return phrases around other phrases; functions get arguments that mean one thing only."""
    simple = st.builds("${}({})".format, LOOKUPS, st.one_of(NAMES, NAMES, inner))
    numbers = st.lists(st.sampled_from(["1", "20", "3", "$args(n)", "$(job)"]), min_size=1, max_size=3)
    return st.one_of(
        simple,
        st.builds("{}[{}]".format, simple, INDICES),
        st.builds("{}[{}][{}]".format, simple, INDICES, INDICES),
        st.builds(lambda terms, sign: f"$eval({sign.join(terms)})", numbers, st.sampled_from("+*")),
        st.builds(
            "$sprintf('%0{}d|%s',{},{})".format, st.integers(1, 9), st.sampled_from(["7", "$(n)"]), PLAIN
        ),
        st.builds("${}($steering(list))".format, st.just("len")),
        st.builds("${}($steering(ages)[bar][baz])".format, st.sampled_from(["len", "max"])),
    )


TEXTS = joined(st.recursive(phrases(PLAIN), lambda inner: phrases(joined(inner)), max_leaves=5))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(TEXTS)
def test_the_evaluator_gives_what_the_slow_and_obvious_one_gives(text: str) -> None:
    context = Context(args=TABLES["args"], steering=TABLES["steering"], system=TABLES["system"])
    assert repr(expand_text(text, context)) == repr(slow(text)), text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TEXTS)
def test_what_is_resolved_has_come_to_rest(text: str) -> None:
    context = Context(args=TABLES["args"], steering=TABLES["steering"], system=TABLES["system"])
    value, resolved = expand_text(text, context)
    if resolved:
        assert "$(" not in json.dumps(value)
