"""What is printed: amounts for people, rows for programs, and nothing that a terminal would obey."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import click
import pytest
from iceprod_cli.output.show import FORMATS, Column, Style, safe, show_object, show_rows
from iceprod_cli.output.units import duration, number, size
from iceprod_cli.session import report_error

from iceprod_p2p.base.errors import BadInput, NotAllowed, NotFound, Refused, Unavailable

ROWS = [
    {"task": "1.0.0", "state": "complete", "words": ["a", "b"], "none": None},
    {"task": "1.0.1", "state": ""},
]
COLUMNS = [Column("task", "task"), Column("state", "state"), Column("words", "words", ", ".join, wide=True)]


def shown(capsys: pytest.CaptureFixture[str], style: Style, rows: Any = ROWS) -> str:
    show_rows(style, rows, COLUMNS, name="task")
    return capsys.readouterr().out


def test_tables_have_headings_dashes_for_nothing_and_wide_columns_on_demand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert [line.split() for line in shown(capsys, Style()).splitlines()] == [
        *(["TASK", "STATE"], ["1.0.0", "complete"], ["1.0.1", "-"])
    ]
    assert shown(capsys, Style("wide")).splitlines()[1].split() == ["1.0.0", "complete", "a,", "b"]


def test_machine_forms_hold_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(shown(capsys, Style("json"))) == ROWS
    assert [json.loads(line) for line in shown(capsys, Style("jsonl")).splitlines()] == ROWS
    cells = list(csv.DictReader(io.StringIO(shown(capsys, Style("csv")))))
    assert cells[0] == {"task": "1.0.0", "state": "complete", "words": '["a", "b"]'}
    assert shown(capsys, Style("name")) == "1.0.0\n1.0.1\n"
    assert json.loads(shown(capsys, Style(query="[].task"))) == ["1.0.0", "1.0.1"]


def test_a_long_row_is_one_line_where_no_terminal_cuts_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(shown(capsys, Style(), [{"task": "x" * 3_000, "state": "y" * 3_000}]).splitlines()) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_that_a_terminal_would_obey_is_printed(capsys: pytest.CaptureFixture[str], form: str) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[red]x[/red]\r"
    out = shown(capsys, Style(form), [{"task": evil, "state": evil, "words": [evil]}])
    if form != "csv":  # Data for programs, as it is.
        assert "\x1b" not in out and "\x07" not in out
    show_object(
        Style(form),
        {"task": evil},
        people=lambda console: console.print(safe(evil), markup=False),
        name="task",
    )
    out = capsys.readouterr().out
    if form != "csv":
        assert "\x1b" not in out and "\x07" not in out


def test_a_wrong_query_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="JMESPath"):
        show_rows(Style(query="]["), ROWS, COLUMNS, name="task")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((BadInput("x"), 2), (NotFound("x"), 3), (NotAllowed("x"), 4), (Unavailable("x"), 5)),
        (Refused("stale", "x"), 1),
    ],
)
def test_every_kind_of_error_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], error: Any, code: int
) -> None:
    error.remedy = "do this"
    assert report_error(error) == code
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines()[:2] == ["error: x", "  try: do this"]


def test_amounts_are_readable() -> None:
    assert [size(n) for n in (0, 1023, 1536, 3 << 40)] == ["0 B", "1023 B", "1.5 KiB", "3.0 TiB"]
    assert [duration(ms) for ms in (850, 12_300, 247_000, 10_920_000, 446_400_000)] == [
        *("850 ms", "12.3 s", "4m07s", "3h02m", "5d04h")
    ]
    assert [number(n) for n in (0, 1_234_567, 0.5, 1.23456789e22)] == ["0", "1 234 567", "0.5", "1.23457e+22"]
