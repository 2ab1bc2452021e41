"""`iceprod unmonitored --wait`: how long it looks, and for what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from iceprod_cli import unmonitored as jobs
from iceprod_cli.commands import unmonitored as command
from iceprod_cli.session import Session

from iceprod_p2p.grids.base import Completed, Failed, Removed, Vanished


@pytest.mark.parametrize(
    ("looks", "code", "shown"),
    [
        (["running", "gone", "gone", "complete"], 0, "complete"),  # Its answer was seen late.
        (["queued", *["gone"] * 99], 6, "gone"),
        (["unknown"] * 99, 6, "unknown"),
        (["running", "failed"], 6, "failed"),
    ],
)
def test_a_job_that_left_no_answer_is_looked_for_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, looks: list[str], code: int, shown: str
) -> None:
    states: Iterator[str] = iter(looks)

    def gathered(directory: Path) -> list[dict[str, Any]]:
        return [{"job": 0, "state": next(states), "grid_job": "1", "message": ""}]

    monkeypatch.setattr(jobs, "gathered", gathered)
    monkeypatch.setattr(command, "POLL_S", 0.0)
    done = CliRunner().invoke(command.unmonitored, [str(tmp_path), "--wait"], obj=Session())
    assert done.exit_code == code and shown in done.stdout


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (Completed(7), "it ended with exit code 7"),
        (Failed("its worker node failed"), "failed: its worker node failed"),
        (Removed(), "removed: no reason is given"),
        (Vanished(), "vanished"),
    ],
)
def test_the_batch_systems_own_word_on_an_end_is_passed_on(state: Any, words: str) -> None:
    assert jobs._end_of(state) == words
