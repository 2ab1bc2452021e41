"""What every real batch system is asked to show through its plugin; each system adds what is its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from iceprod_p2p.grids.base import (
    Completed,
    Grid,
    GridRequest,
    GridState,
    Held,
    History,
    NotSubmitted,
    Queued,
    Removed,
    Running,
    Submitted,
    Tag,
    Unclear,
    Vanished,
    is_final,
)
from iceprod_p2p.grids.errors import GridDown
from iceprod_p2p.grids.polling import poll
from tests.grids.daemons import until
from tests.grids.users import as_root_again

PATIENCE_S = 150.0


def _signal(pid: int, number: signal.Signals) -> None:
    with as_root_again():
        os.kill(pid, number)


class System(Protocol):
    """A private batch system."""

    root: Path

    def grid(self, **options: object) -> Grid:
        """Make the plugin for it."""
        ...

    def stop_controller(self) -> None:
        """End the daemon that commands speak to."""
        ...

    def start_controller(self) -> None:
        """Start it again and wait until it answers."""
        ...


class Work:
    """One test's own directory, tags and grid jobs in a system."""

    def __init__(self, system: System, directory: Path, site: str) -> None:
        self.system = system
        self.grid = system.grid()
        self.directory = directory
        self.site = site
        self._submitted: list[str] = []

    def request(self, name: str, script: str, **more: Any) -> GridRequest:
        return GridRequest(
            Tag(self.site, name), "/bin/sh", str(self.directory / name), ("-c", script), **more
        )

    def submit(self, *requests: GridRequest) -> list[str]:
        results = self.grid.submit(requests)
        assert all(isinstance(result, Submitted) for result in results), results
        ids = [result.grid_job_id for result in results if isinstance(result, Submitted)]
        self._submitted += ids
        return ids

    def remove_all(self) -> None:
        """Leave no grid job of this test behind."""
        self.grid.remove({*self._submitted, *(job.grid_job_id for job in self.grid.our_jobs(self.site))})

    def begin_one_that_waits(self) -> tuple[str, Path]:
        """Start a grid job that ends with 5 once a file is there; return its id and the file.

        It has begun on its worker node: a controller that goes away now cannot take its start with it.
        """
        begun, over = self.directory / "begun", self.directory / "over"
        script = f"touch {begun}; while [ ! -e {over} ]; do sleep 0.2; done; exit 5"
        (grid_job_id,) = self.submit(self.request("j", script))
        self.until_running(grid_job_id)
        until(begun.exists, "it has begun", limit_s=PATIENCE_S)
        return grid_job_id, over

    def until_running(self, *ids: str) -> None:
        def all_run() -> bool:
            return all(isinstance(state, Running) for state in self._states(ids).values())

        until(all_run, f"{ids} run", limit_s=PATIENCE_S)

    def until_ended(self, ids: Collection[str], *, limit_s: float = PATIENCE_S) -> dict[str, History]:
        """Poll as a site does until all have ended, and return how."""
        missing: frozenset[str] = frozenset()
        ended: dict[str, History] = {}
        deadline_s = time.monotonic() + limit_s
        while len(ended) < len(ids):
            left = [grid_job_id for grid_job_id in ids if grid_job_id not in ended]
            result = poll(self.grid, left, missing_before=missing)
            missing = result.missing
            ended |= result.ended
            vanished = [name for name, state in result.states.items() if isinstance(state, Vanished)]
            assert not vanished, f"{vanished} vanished"
            assert time.monotonic() < deadline_s, f"not ended in {limit_s} s: {result.states}"
            time.sleep(0.2)
        return ended

    def _states(self, ids: Collection[str]) -> dict[str, GridState]:
        states = self.grid.status(ids)
        return {name: states.get(name, Queued()) for name in ids}


class GridBehaviour:
    """Inherit, and give a fixture `system`."""

    refused: dict[str, Any] = {}  # A request with this is refused.
    held: dict[str, Any] = {}  # A request with this is held.
    suffix = ""  # Tells the tests of two classes apart that share one system.

    @pytest.fixture
    def work(self, system: System, request: pytest.FixtureRequest) -> Iterator[Work]:
        name = request.node.originalname.removeprefix("test_")[:40].strip("_") + self.suffix
        directory = system.root / "work" / name
        directory.mkdir(parents=True)
        made = Work(system, directory, name)
        yield made
        made.remove_all()

    def test_a_grid_job_runs_where_and_as_asked(self, work: Work) -> None:
        (work.directory / "secret").write_text("abc")
        script = 'pwd; cat secret; printf "%s\\n" "$ODD" "$ICEPROD_GRID_TAG"; echo oops >&2; exit 3'
        odd = "a  b'\"$x;\\"
        asked = work.request(
            "j", script, files_in=(str(work.directory / "secret"),), environment={"ODD": odd}, walltime_s=300
        )
        (grid_job_id,) = work.submit(asked)
        end = work.until_ended([grid_job_id])[grid_job_id]
        assert (end.state, end.exit_code) == (Completed(3), 3)
        assert end.host
        lines = Path(asked.stdout_path).read_text().splitlines()
        assert lines == [asked.work_directory, f"abc{odd}", str(asked.tag)]
        assert "oops" in Path(asked.stderr_path).read_text()

    def test_many_run_and_all_ends_are_known(self, work: Work) -> None:
        ids = work.submit(*(work.request(f"j{n}", f"exit {n}") for n in range(8)))
        ends = work.until_ended(ids)
        assert [ends[grid_job_id].exit_code for grid_job_id in ids] == list(range(8))

    def test_a_grid_job_that_kills_itself_has_its_signal_as_exit_code(self, work: Work) -> None:
        (grid_job_id,) = work.submit(work.request("j", "kill -KILL $$"))
        assert work.until_ended([grid_job_id])[grid_job_id].state == Completed(137)

    def test_running_and_waiting_ones_are_removed_and_running_ones_are_told(self, work: Work) -> None:
        script = "trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
        running = work.request("running", script)
        ids = work.submit(running, work.request("waiting", "sleep 250", **self.held))
        out = Path(running.stdout_path)
        until(lambda: out.exists() and "ready" in out.read_text(), "the grid job is ready")
        work.grid.remove(ids)
        ends = work.until_ended(ids)
        assert {type(end.state) for end in ends.values()} == {Removed}
        assert "told" in out.read_text()
        work.grid.remove(ids)

    def test_unknown_ids_are_absent_and_no_error(self, work: Work) -> None:
        assert work.grid.status(["999999"]) == {}
        assert work.grid.history(["999999"]) == {}
        work.grid.remove(["999999"])
        first = poll(work.grid, ["999999"])
        assert first.states == {} and first.missing == {"999999"}
        assert poll(work.grid, ["999999"], missing_before=first.missing).states == {"999999": Vanished()}

    def test_a_refusal_says_why_and_concerns_one_request(self, work: Work) -> None:
        bad, good = work.request("bad", "true", **self.refused), work.request("good", "true")
        refusal, taken = work.grid.submit([bad, good])
        assert isinstance(refusal, NotSubmitted) and len(refusal.reason) > 10
        assert isinstance(taken, Submitted)
        work.until_ended([taken.grid_job_id])

    def test_a_held_one_is_told_from_a_waiting_one(self, work: Work) -> None:
        (grid_job_id,) = work.submit(work.request("j", "true", **self.held))
        until(lambda: isinstance(work.grid.status([grid_job_id]).get(grid_job_id), Held), "it is held")

    def test_after_a_crash_the_tag_finds_live_and_ended_ones(self, work: Work) -> None:
        ids = work.submit(work.request("live", "sleep 250"), work.request("ended", "exit 4"))
        work.until_ended(ids[1:])
        tags = [Tag(work.site, name) for name in ("live", "ended", "never")]
        found = work.system.grid().find_by_tag(tags)
        assert {tag.grid_job: job.grid_job_id for tag, job in found.items()} == dict(
            zip(("live", "ended"), ids, strict=True)
        )
        assert is_final(found[tags[1]].state) and not is_final(found[tags[0]].state)

    def test_orphans_are_removed_and_only_they(self, work: Work) -> None:
        names = ("known", "orphan")
        ids = dict(zip(names, work.submit(*(work.request(name, "sleep 250") for name in names)), strict=True))
        stranger = Work(work.system, work.directory, f"{work.site}-2")
        (strange,) = stranger.submit(stranger.request("j", "sleep 250"))
        removed = work.grid.clean_queue(work.site, [Tag(work.site, "known")])
        assert [job.grid_job_id for job in removed] == [ids["orphan"]]
        assert isinstance(work.until_ended([ids["orphan"]])[ids["orphan"]].state, Removed)
        assert work.grid.status([ids["known"], strange]).keys() == {ids["known"], strange}
        assert work.grid.clean_queue(work.site, [Tag(work.site, "known")]) == []
        stranger.remove_all()

    def test_gpus_are_given_to_one_grid_job_at_a_time(self, work: Work) -> None:
        script = "echo $CUDA_VISIBLE_DEVICES; sleep 2"
        asked = [work.request(f"j{n}", script, gpus=1) for n in range(2)]
        none = work.request("none", "echo gpus:$CUDA_VISIBLE_DEVICES")
        ids = work.submit(*asked, none)
        work.until_ended(ids)
        given = [Path(request.stdout_path).read_text().split() for request in asked]
        assert all(len(line) == 1 for line in given)
        assert self.gpu_ids(given[0][0]) and self.gpu_ids(given[0][0]) != [""]

    def gpu_ids(self, text: str) -> list[str]:
        return text.split(",")

    def test_while_the_controller_is_away_nothing_is_known_and_nothing_is_lost(self, work: Work) -> None:
        grid_job_id, over = work.begin_one_that_waits()
        work.system.stop_controller()
        try:
            for attempt in (
                lambda: work.grid.status([grid_job_id]),
                lambda: work.grid.remove([grid_job_id]),
                lambda: work.grid.submit([work.request("late", "true")]),
            ):
                with pytest.raises(GridDown):
                    attempt()
            over.touch()  # It ends while nobody can be told.
        finally:
            work.system.start_controller()
        assert work.until_ended([grid_job_id])[grid_job_id].state == Completed(5)
        assert work.grid.find_by_tag([Tag(work.site, "late")]) == {}

    def test_a_submission_without_an_answer_is_found_by_its_tag(self, work: Work) -> None:
        grid = work.system.grid(timeout_s=3.0)
        pid = self.controller_pid(work.system)
        _signal(pid, signal.SIGSTOP)
        try:
            (result,) = grid.submit([work.request("j", "sleep 1; exit 6")])
        finally:
            _signal(pid, signal.SIGCONT)
        assert isinstance(result, Unclear)
        found = {}

        def is_found() -> bool:
            found.update(work.grid.find_by_tag([result.tag]))
            return bool(found)

        try:
            until(is_found, "the tag is found", limit_s=10)
        except AssertionError:
            # The request was dropped on the way: then it may be repeated, and there is exactly one.
            work.submit(work.request("j", "sleep 1; exit 6"))
            assert is_found()
        ours = [job for job in work.grid.our_jobs(work.site) if job.tag == result.tag]
        assert len(ours) == 1
        assert work.until_ended([ours[0].grid_job_id])[ours[0].grid_job_id].exit_code == 6

    def controller_pid(self, system: System) -> int:
        raise AssertionError("each system says which process answers submissions")

    def test_the_plugin_says_what_it_speaks_to(self, work: Work) -> None:
        assert any(letter.isdigit() for letter in work.grid.check())


class CountingBehaviour(GridBehaviour):
    """That of a batch system which counts GPUs, and tells no grid job which ones it got."""

    def test_gpus_are_given_to_one_grid_job_at_a_time(self, work: Work) -> None:
        """Two that ask for all of them run one after the other."""
        script = "date +%s%N; sleep 1; date +%s%N"
        asked = [work.request(f"j{n}", script, gpus=2) for n in range(2)]
        work.until_ended(work.submit(*asked))
        times = sorted([int(t) for t in Path(request.stdout_path).read_text().split()] for request in asked)
        assert times[0][1] <= times[1][0], "both had the same GPUs"
