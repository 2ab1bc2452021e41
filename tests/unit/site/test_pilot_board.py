"""What a node remembers of its pilots, found by key and by name, and its live grid jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.site.grid_jobs import GridJob, GridJobBook, GridJobPhase
from iceprod_p2p.site.pilot_board import PilotBoard


def test_a_pilot_is_found_by_the_key_that_it_took_last_until_it_is_forgotten() -> None:
    clock = ManualClock()
    board = PilotBoard(clock)
    first = board.note(pilot="p-1", holder=b"old", site="madison")
    clock.advance(10.0)
    second = board.note(pilot="p-1", holder=b"new", site="madison")
    assert board.by_name("p-1") is second and board.by_holder(b"old") is first
    assert board.forget_silent(5.0) == [first] and board.by_name("p-1") is second
    board.forget(b"new")
    assert board.by_name("p-1") is None and len(board) == 0


def test_the_book_knows_which_grid_jobs_live_after_every_change_and_a_restart(tmp_path: Path) -> None:
    book = GridJobBook(tmp_path)
    jobs = [GridJob(f"p-{n}", "cpu", 1, GridJobPhase.QUEUED, noted_ms=n) for n in range(3)]
    for job in jobs:
        book.put(job)
    book.end("p-0", phase=GridJobPhase.ENDED, now_ms=9, reason="done")
    book.put(replace(jobs[1], phase=GridJobPhase.RUNNING))
    book.forget(["p-2"])
    for seen in (book, GridJobBook(tmp_path)):
        assert [(job.pilot, job.phase) for job in seen.live()] == [("p-1", GridJobPhase.RUNNING)]
        assert {job.pilot for job in seen} == {"p-0", "p-1"}
