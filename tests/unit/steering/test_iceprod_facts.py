"""What expressions of real production files give in IceProd, and must give here.

The facts were taken from IceProd 3's parser and its tests (github.com/WIPACrepo/iceprod, iceprod/core/parser.py), in
rows of our own; where we differ on purpose the row stands in `OURS`, with the reason.
"""

from __future__ import annotations

import pytest

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.expand import expand_text
from iceprod_p2p.steering.expressions.context import Context

CONTEXT = Context(
    args={"dataset": 20950, "job": 20482, "jobs": 100_000, "seed": 987_654_321, "iter": 1, "tray": 0},
    options={"subdir": "0020000-0020999", "debug": False},
    steering={
        "CORSIKA::eprimarymin": 600,
        "CORSIKA::gamma": -2.6,
        "CORSIKA::ratios": [5, 2.25, 1.1, 1.2, 1],
        "CORSIKA::run": "$eval(($(dataset)*100000 + $(job))%100000000 + 1)",
        "GPU::use": True,
        "MuonGun.spectrum-1": "E**-2",
        "outfile_base": "$sprintf('corsika.%06d.%06d',$(dataset),$(job))",
        "outfile": "$steering(outfile_base).i3.zst",
        "outdir": "/data/sim/$(subdir)/$(variant)",
        "bin": "$sprintf('%07d-%07d',$eval($(job)//1000*1000),$eval($(job)//1000*1000+999))",
        "models": {"spice_lea": "/ice/lea", "spice_bfr": {"path": "/ice/bfr", "version": [3, 2, 1]}},
        "model": "spice_bfr",
        "variants": ["domeff0.90", "domeff0.99"],
        "variant": "$steering(variants)[$eval($(job)%2)]",
        "grid": [[1, 2], [3, 4]],
        "stages": [{"name": "generate", "gpu": 0}, {"name": "photons", "gpu": 1}],
        "padded": "0042",
        "title": '"IC86.2016"',
        "emin": "5@TeV",
        "flags": "--no-hybrid --seed $(seed)",
        "empty": "",
        "yes": "True",
        "gcd": "$(gcdbase)_2016.i3.gz",
    },
    system={"gpu_opts": "cuda", "scratch": "/scratch"},
    metadata={"category": "corsika", "sensor_name": "ICECUBE"},
    environ={"OS_ARCH": "RHEL_7_x86_64"},
)

SAME: list[tuple[str, Value]] = [
    # Types of the final text.
    ("$steering(CORSIKA::eprimarymin)", 600),
    ("$steering(CORSIKA::gamma)", -2.6),
    ("$steering(GPU::use)", True),
    ("$options(debug)", False),
    ("$steering(yes)", True),
    ("$steering(padded)", 42),
    ("$steering(title)", '"IC86.2016"'),
    ("$steering(emin)", "5@TeV"),
    ("$steering(MuonGun.spectrum-1)", "E**-2"),
    ("$steering(empty)", ""),
    ("a$steering(empty)b", "ab"),
    ("$(debug)", False),
    ("x$(debug)", "xFalse"),
    ("false", False),
    ("tRuE", True),
    ("1e6", 1_000_000.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("-17", -17),
    (" 17 ", 17),
    ("0x1F", "0x1F"),
    ("2016-01-01", "2016-01-01"),
    ("1,2,3", "1,2,3"),
    ("(1,2)", "(1,2)"),
    ("['a', \"b\", 1.5, true]", ["a", "b", 1.5, True]),
    ("{'a': {'b': [1]}}", {"a": {"b": [1]}}),
    ("[1, 2", "[1, 2"),
    ("{a: 1}", "{a: 1}"),
    ('["$(subdir)", "$(job)"]', ["0020000-0020999", 20482]),
    # Chains of parameters, and phrases inside names.
    ("$steering(outfile)", "corsika.020950.020482.i3.zst"),
    ("$steering(outdir)/$(outfile)", "/data/sim/0020000-0020999/domeff0.90/corsika.020950.020482.i3.zst"),
    ("$steering(bin)", "0020000-0020999"),
    ("$steering(CORSIKA::run)", 95020483),
    ("$(flags)", "--no-hybrid --seed 987654321"),
    ("$steering(CORSIKA::$sprintf('%s','gamma'))", -2.6),
    # Subscripts: of lists and objects, chained, negative, computed, and with text before them.
    ("$steering(CORSIKA::ratios)[1]", 2.25),
    ("$steering(CORSIKA::ratios)[-1]", 1),
    ("$steering(grid)[1][0]", 3),
    ("$steering(stages)[1][name]", "photons"),
    ("$steering(models)[spice_lea]", "/ice/lea"),
    ("$steering(models)[$(model)]", {"path": "/ice/bfr", "version": [3, 2, 1]}),
    ("$steering(models)[$(model)][path]/x", "/ice/bfr/x"),
    ("gsiftp://store$steering(models)[$(model)][path]", "gsiftp://store/ice/bfr"),
    ("$steering(variants)[$eval($(job)%2)]_$(iter)", "domeff0.90_1"),
    ("$(job)[0]", "20482[0]"),
    ("file[0]$(iter)", "file[0]1"),
    # Arithmetic; an $eval that is none stays as it stands.
    ("$eval($(job)//1000*1000)", 20000),
    ("$eval(10/4)", 2.5),
    ("$eval(8/4)", 2.0),
    ("$eval(2**10)", 1024),
    ("$eval(-7//2)", -4),
    ("$eval((1+2)*(3+4))", 21),
    ("$eval(\\(1+2\\)*3)", 9),
    ("$eval($eval(1+1)*$eval(2+2))", 8),
    ("$eval(5.)", 5.0),
    ("$eval('a'*3)", "aaa"),
    # sprintf.
    ("$sprintf('%06d',$(job))", 20482),
    ("$sprintf('x%06d',$(job))", "x020482"),
    ('$sprintf("%s_%s.i3",$metadata(category),$system(gpu_opts))', "corsika_cuda.i3"),
    ("$sprintf(%05.1f|,2.25)", "002.2|"),
    ('$sprintf("%d",-5.7)', -5),
    ('$sprintf("%x|%X|%o|%#x",255,255,8,255)', "ff|FF|10|0xff"),
    ('$sprintf("%e",12345)', 12345.0),
    ('$sprintf("%g|%-5d|%5s|%+d",0.0001,5,ab,5)', "0.0001|5    |   ab|+5"),
    ('$sprintf("%d%%",5)', "5%"),
    ('$sprintf("%d",5,6)', 5),
    ('$sprintf("%s,%s",a,b)', "a,b"),
    # choice and reductions.
    ("$choice(domeff)", "domeff"),
    ("$sum($steering(CORSIKA::ratios))", 10.549999999999999),
    ("$min($steering(CORSIKA::ratios))", 1),
    ("$max($steering(variants))", "domeff0.99"),
    ("$len($steering(stages))", 2),
    ("$len($steering(models))", 2),
    # Unknown names, and text that is no phrase.
    ("$environ(OS_ARCH)", "RHEL_7_x86_64"),
    ("$I3_BUILD/bin --n $(iter)", "$I3_BUILD/bin --n 1"),
    ("${HOME}/x", "${HOME}/x"),
    ("100$", "100$"),
    ("$$(iter)", "$1"),
    ("($(iter))", "(1)"),
    ("$steering(outfile", "$steering(outfile"),
]

LEFT: list[tuple[str, Value]] = [
    ("$steering(out$metadata(gone)file)", "$steering(out$metadata(gone)file)"),
    ("$steering($(model))", "$steering(spice_bfr)"),
    ("$steering(variants)[7]", '["domeff0.90", "domeff0.99"][7]'),
    ("$eval($(nowhere)+1)", "$eval($(nowhere)+1)"),
    ("$eval(1+)", "$eval(1+)"),
    ("$eval()", "$eval()"),
    ("$eval(import os)", "$eval(import os)"),
    ("$eval(open('/etc/passwd'))", "$eval(open('/etc/passwd'))"),
    ('$sprintf("%d %d",5)', '$sprintf("%d %d",5)'),
    ('$sprintf("%d",abc)', '$sprintf("%d",abc)'),
    ('$sprintf("%d","5")', '$sprintf("%d","5")'),
    ("$choice()", "$choice()"),
    ("$sum(abc)", "$sum(abc)"),
    ("$(nowhere)", "$(nowhere)"),
    ("$steering(gcd)", "$(gcdbase)_2016.i3.gz"),
    ("$environ(HOME)", "$environ(HOME)"),
    ("$Steering(outfile)", "$Steering(outfile)"),
    ("$steering( outfile )", "$steering( outfile )"),
    ("$nothing($(iter))", "$nothing(1)"),
]


@pytest.mark.parametrize(("text", "value"), SAME)
def test_an_expression_gives_what_iceprod_gives(text: str, value: Value) -> None:
    assert repr(expand_text(text, CONTEXT)) == repr((value, True))


@pytest.mark.parametrize(("text", "value"), LEFT)
def test_what_iceprod_leaves_as_it_stands_is_left_and_said_to_be_unresolved(text: str, value: Value) -> None:
    assert expand_text(text, CONTEXT) == (value, False)


OURS: list[tuple[str, Value]] = [
    # A backslash means the character itself, for good: IceProd reads the phrase in its next round after all.
    ("\\$steering(outfile)", "$steering(outfile)"),
    ("a\\\\b", "a\\b"),
    # A quoted text stays quoted, whichever the quotes: IceProd drops single ones.
    ("'5'", "'5'"),
    # Blanks around arguments do not count, as in IceProd 1, and commas inside quotes or phrases do not split.
    ('$sprintf("%s-%s", a , "b,c")', "a-b,c"),
    ("$sprintf('%s.%s',$steering(outfile_base),$steering(variants)[0])", "corsika.020950.020482.domeff0.90"),
    # More than arithmetic: what production files of IceProd 1 and 2 use.
    ('$eval("IC86.2011".lower().replace("+","_"))', "ic86.2011"),
    ("$eval( int(5.5) )", 5),
    ("$eval(formula)", "$eval(formula)"),
    ("$eval('formula')", "formula"),
    # Reductions take lists as they are written.
    ("$sum(1,2,3)", 6),
    ("$min([3,1,2])", 1),
    ("$choice([7])", 7),
    # A list in a text is a list, also when it is made of phrases.
    ("[$(iter), $(job)]", [1, 20482]),
    # Words of floating point that JSON does not know stay words.
    ("nan", "nan"),
    ("inf", "inf"),
    ("1_000", "1_000"),
    # What is left of an object is JSON.
    ("$steering(stages)[0][cpu]", '{"name": "generate", "gpu": 0}[cpu]'),
    # A parenthesis too many is text.
    ("$(iter))", "1)"),
]


@pytest.mark.parametrize(("text", "value"), OURS)
def test_where_we_differ_we_do_so_on_purpose(text: str, value: Value) -> None:
    assert repr(expand_text(text, CONTEXT)[0]) == repr(value)
