"""What others wrote never acts on a terminal: escapes, marks of direction, brackets that look like mark-up.

Corpus: the sequences of the terminal-injection literature (titles, clears, answers, clipboard, hyperlinks), C1
controls as UTF-8, "Trojan Source" (CVE-2021-42574), and Rich's own mark-up.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from iceprod_cli.commands.cluster import print_status
from iceprod_cli.commands.dataset import print_detail
from iceprod_cli.output.progress import one_line
from iceprod_cli.output.show import FORMATS, Column, PlainConsole, Style, safe, say, show_object, show_rows
from iceprod_cli.session import report_error

from iceprod_p2p.base.errors import BadInput, Refused
from iceprod_p2p.wire.pb import control_pb2
from iceprod_p2p.wire.translate import text

EVIL = {
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "title, ended otherwise": "\x1b]2;owned\x1b\\",
    "an answer typed for you": "\x1b[6n\x1b[c\x1bP$q q\x1b\\",
    "clipboard": "\x1b]52;c;ZWNobyBvd25lZA==\x07",
    "a link": "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "C1 CSI": "\x9b2J",
    "C1 OSC": "\x9d0;owned\x9c",
    "overwritten": "good\rbad",
    "erased": "bad\x08\x08\x08good",
    "a bell": "\x07",
    "DEL": "\x7f",
    "NUL": "\x00",
    "right to left": "\u202egnp.exe",
    "isolates": "\u2066a\u2069",
    "a line that is none": "a\u2028b\u2029c",
    "another line": "a\x85b\x0bc\x0cd",
    "mark-up": "[bold red]x[/bold red]",
    "mark-up that is not closed": "[/nothing]",
    "mark-up with a link": "[link=http://evil.example]x[/link]",
    "emoji code": ":warning:",
    "surrogate": "\ud800",
    "tag letters": "\U000e0041",
}
OBEYED = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029, 0x202E, 0x2066)]


def harmless(out: str) -> None:
    assert not [letter for letter in OBEYED if letter in out], repr(out)


@pytest.mark.parametrize("name", EVIL)
def test_a_sentence_is_shown_and_not_obeyed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    evil = EVIL[name]
    say(f"before {evil} after")
    report_error(Refused(evil[:20], evil, remedy=evil))
    captured = capsys.readouterr()
    for out in (captured.out, captured.err, safe(evil)):
        harmless(out)
        out.encode()
    assert safe(safe(evil)) == safe(evil)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "csv"])
@pytest.mark.parametrize("name", EVIL)
def test_rows_and_objects_are_shown_and_not_obeyed(
    name: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = EVIL[name]
    row = {"state": evil, "name": evil, "words": [evil], evil: evil}
    columns = [Column("state", evil), Column("name", "name"), Column("words", "words", ", ".join)]
    show_rows(Style(form), [row], columns, name="name", title=evil)
    show_object(Style(form), row, people=lambda out: out.print(evil, style="bold"), name="name")
    out = capsys.readouterr().out
    harmless(out)
    if form == "jsonl":
        assert [json.loads(line) for line in out.splitlines()] == [row, row]
    elif "mark-up" in name and form == "table":
        assert evil in out, "brackets are shown as they are"


@pytest.mark.parametrize("name", EVIL)
def test_pages_for_people_show_what_others_named(name: str) -> None:
    evil, buffer = EVIL[name], io.StringIO()
    out = PlainConsole(file=buffer, force_terminal=False, width=300)
    detail: dict[str, Any] = {
        **dict.fromkeys(("dataset", "alias", "state", "owner", "done"), evil),
        **dict.fromkeys(("jobs", "tasks_total", "priority", "finished_ms", "closing", "follows"), 0),
        "tasks": {evil: 1},
        "task_names": [{"name": evil, "task": 0, "counts": {evil: 1}}],
        "sites": [{"site": evil, "complete": 0, "held": 0, "failures": 0}],
    }
    print_detail(out, detail)
    status: dict[str, Any] = {
        **dict.fromkeys(("cluster", "health", "leader"), evil),
        "term": 1,
        "epoch": 1,
        "digests_equal": True,
        "members": [],
        "sites": [],
        "problems": [evil],
        "ledger_version": 1,
        "ledger_version_possible": 1,
    }
    print_status(out, status)
    harmless(buffer.getvalue())


def test_a_name_from_the_wire_cannot_hold_what_a_terminal_obeys() -> None:
    for name, evil in EVIL.items():
        if name in ("mark-up", "emoji code", "tag letters", "surrogate") or "mark-up" in name:
            continue  # Texts like others, escaped where they are shown.
        with pytest.raises(BadInput, match="control characters"):
            text(evil, "a name", 100)
    assert text("Größe 5 µm – «наука» 雪 👩‍🔬", "a name", 100)


def test_the_line_of_a_dataset_is_one_line() -> None:
    row = control_pb2.DatasetRow(dataset=1, state="x\n\x1b[2J")
    assert "\n" not in one_line(control_pb2.DatasetDetail(row=row)).replace("x\n", "")


@pytest.mark.parametrize("name", [name for name in EVIL if name != "surrogate"])
def test_a_steering_file_is_judged_without_obeying_it(name: str, tmp_path: Path) -> None:
    """All of them through the real command, in one file each: names, values and faults."""
    evil = EVIL[name]
    document = {
        "tasks": [{"name": evil, "trays": [{"modules": [{"src": evil, "args": evil, evil: evil}]}]}],
        evil: 1,
    }
    path = tmp_path / "evil.json"
    path.write_text(json.dumps(document))
    from click.testing import CliRunner
    from iceprod_cli.main import cli

    for words in (["check", str(path)], ["check", str(path), "-o", "json"], ["show", str(path)]):
        done = CliRunner().invoke(cli, ["steering", *words])
        harmless(done.output)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            assert isinstance(done.exception, BadInput), done.exception


def test_the_real_command_prints_nothing_that_acts(tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[2J.json"
    path.write_text('{"a": "\\u001b]0;x\\u0007"}')
    done = subprocess.run(
        [sys.executable, "-m", "iceprod_cli.main", "steering", "check", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    harmless(done.stdout + done.stderr)
    assert done.returncode == 1 and "Traceback" not in done.stderr
