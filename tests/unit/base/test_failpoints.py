"""Failpoints: off by default, exact in what they name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iceprod_p2p.base import failpoints
from iceprod_p2p.base.errors import ConfigError

PAGE = Path(__file__).parents[3] / "docs" / "reliability.md"
PROGRAM = (
    "from iceprod_p2p.base.failpoints import passing\nfor n in range(3): passing('raft.tick.begin'); print(n)"
)


def run(value: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-u", "-c", PROGRAM],
        env={**os.environ, failpoints.VARIABLE: value},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_nothing_happens_unless_the_variable_is_set() -> None:
    assert run("").stdout.split() == ["0", "1", "2"]
    assert run("raft.commit.after=kill").stdout.split() == ["0", "1", "2"]


def test_the_process_dies_at_the_pass_that_was_asked_for() -> None:
    ended = run("raft.tick.begin=kill:3")
    assert (ended.returncode, ended.stdout.split()) == (-signal.SIGKILL, ["0", "1"])
    assert "failpoint raft.tick.begin: kill" in ended.stderr


def test_an_error_is_that_of_a_bad_disk() -> None:
    assert "OSError: [Errno 5] failpoint raft.tick.begin" in run("raft.tick.begin=error").stderr


@pytest.mark.parametrize(
    "text", ["raft.tick.begin", "raft.tick.begin=explode", "raft.tick.begin=kill:0", "x=kill:-1"]
)
def test_what_cannot_be_read_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="ICEPROD_FAILPOINTS says"):
        failpoints.parse(text)


def test_every_failpoint_is_described_in_the_documentation() -> None:
    page = PAGE.read_text()
    for name, where in failpoints.NAMES.items():
        assert f"| `{name}` | {where} |" in page
