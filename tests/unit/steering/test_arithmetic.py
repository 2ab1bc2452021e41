"""`$eval`: what it computes, what it refuses, and that nothing in it can cost much."""

from __future__ import annotations

import math

import pytest

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.expressions.arithmetic import evaluate_arithmetic
from iceprod_p2p.steering.expressions.budget import Budget
from iceprod_p2p.steering.expressions.errors import Exhausted, TooCostly, Unresolved
from iceprod_p2p.steering.limits import TEXT_WORK_MAX
from tests.security.cost import bounded


def value_of(text: str) -> Value:
    return evaluate_arithmetic(text, Budget(TEXT_WORK_MAX))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3-4/2", 5.0),
        ("7//2 + 7%3 + 2**10", 1028),
        ("-7//2", -4),
        ("0.1+0.2", 0.1 + 0.2),
        ("1<<4 | 3 & ~1 ^ 8", 26),
        ("not 0 and 1 or 2", 1),
        ("1 < 2 <= 2 != 3", True),
        ("3 if 2 > 1 else 1/0", 3),
        ("[1,2,3][1:]", [2, 3]),
        ("(1,2)[-1]", 2),
        ("{'a': [1]}['a'][0]", 1),
        ("'abc'[::2]", "ac"),
        ("abs(-3) + min(4,2) + max([1,5]) + round(2.567, 1)", 12.6),
        ("int('12') + int(3.9) + float('1.5') + len('abc') + sum([1,2])", 22.5),
        ("sorted([3,1,2], reverse=True)", [3, 2, 1]),
        ("str(5) + 'x'", "5x"),
        ("math.floor(math.sqrt(17)) + math.log10(100) + math.pi", 6 + math.pi),
        ("'a-b_c'.split('-')[1].upper().replace('_', '+')", "B+C"),
        ("'/'.join(['a', 'b'])", "a/b"),
        ("'7'.zfill(3)", "007"),
        ("'%05.1f|%s' % (2.25, 'x')", "002.2|x"),
        ("'ab' * 2 + 2 * 'c'", "ababcc"),
        ("'a' in 'abc' and 2 not in [1]", True),
        ("divmod(7, 2)", [3, 1]),
        ("1e3", 1000.0),
        ("math.prod([2, 3.0]) + min(math.inf, 3)", 9.0),
        ("math.isinf(math.inf) and not math.isnan(1)", True),
        ("math.inf", Unresolved),
        ("1if 0else 2", Unresolved),
        ("1j", Unresolved),
        ("(-8)**0.5", Unresolved),
        ("1/0", Unresolved),
        ("", Unresolved),
        ("x", Unresolved),
        ("None", Unresolved),
        ("1e308*10", Unresolved),
        ("float('nan')", Unresolved),
        ("lambda: 1", Unresolved),
        ("[x for x in [1]]", Unresolved),
        ("f'{1}'", Unresolved),
        ("(x := 1)", Unresolved),
        ("().__class__", Unresolved),
        ("'a'.__class__", Unresolved),
        ("'{0.__class__}'.format(1)", Unresolved),
        ("'%(a)s' % {'a': 1}", Unresolved),
        ("__import__('os')", Unresolved),
        ("open('/etc/passwd')", Unresolved),
        ("math.__loader__", Unresolved),
        ("getattr('a', 'upper')", Unresolved),
        ("'a'.upper", Unresolved),
        ("len(*[[1]])", Unresolved),
        ("1; 2", Unresolved),
        ("1 is 1", Unresolved),
        ("b'a'", Unresolved),
        ("...", Unresolved),
        ("'a' 'b' < 1", Unresolved),
        ("{}[[]]", Unresolved),
        ("'\\x41'", Unresolved),
    ],
)
def test_an_expression_gives_its_value_or_a_reason(text: str, value: object) -> None:
    if value is Unresolved:
        with pytest.raises(Unresolved):
            value_of(text)
    else:
        assert repr(value_of(text)) == repr(value)


HOSTILE = [
    "9**9**9",
    "2**4000*2**4000",
    "1<<10**9",
    "'a'*10**9",
    "[1]*10**9",
    "[[0]*70]*1000",
    "(" * 100 + "1" + ")" * 100,
    "-" * 4000 + "1",
    "not " * 1000 + "1",
    "1+" * 2000 + "1",
    "+".join(["1"] * 2000),
    "1" * 5000,
    "round(5,-10**9)",
    "math.factorial(10**9)",
    "math.prod([2**4000]*4000)",
    "math.comb(10**9, 5*10**8)",
    "int('9'*5000)",
    "'aaaa'.replace('a','b'*60000)",
    "'a'.zfill(10**9)",
    "('a'*65000).strip('b'*65000 + 'a')",
    "'a'.center(10**9)",
    "('a'*60000).join(['b']*4000)",
    "('a '*30000).split()",
    "'%99999999d' % 5",
    "'%.99999999f' % 5",
    "str([[0]*70]*70)*100",
    "0 if 0 else [" * 300,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:24])
def test_a_hostile_expression_is_refused_at_once(text: str) -> None:
    with bounded(cpu_s=1.0), pytest.raises((TooCostly, Exhausted, Unresolved)):
        value_of(text)  # The bar is 50 ms; a slow machine gets more.


def test_many_costly_expressions_share_one_budget() -> None:
    budget = Budget(TEXT_WORK_MAX)
    with pytest.raises(Exhausted):
        for _ in range(1000):
            evaluate_arithmetic("len([1]*4000)", budget)
    assert budget.left < 0


def test_a_budget_inside_another_takes_from_both() -> None:
    outer = Budget(10)
    Budget(100, of=outer).spend(7)
    assert outer.left == 3
    with pytest.raises(Exhausted, match="10 steps"):
        Budget(100, of=outer).spend(4)
