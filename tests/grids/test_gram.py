"""The GRAM plugin on a real gatekeeper of this machine, with x509 and job managers of its own.

GRAM takes five seconds for each removal of what runs, so few tests leave anything to remove.  The last one runs the
physics production through it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.grids.base import Completed, Removed, Running, Submitted, Unclear
from iceprod_p2p.grids.errors import GridDown
from tests.grids.behaviour import GridBehaviour, System, Work
from tests.grids.daemons import until
from tests.grids.gram_system import GramSystem
from tests.grids.site_on_grid import site_on_grid, trip_wire, wait
from tests.grids.users import USER, as_root_again, as_user_in, user_ids

TASKS = 7

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def gatekeeper() -> Iterator[GramSystem]:
    made = GramSystem()
    made.start()
    yield made
    made.stop()


class TestGram(GridBehaviour):
    refused = {"extra_lines": ("(nonsense=3)",)}
    # GRAM's fork holds nothing, and knows no GPUs.
    test_a_held_one_is_told_from_a_waiting_one = None  # type: ignore[assignment]
    test_gpus_are_given_to_one_grid_job_at_a_time = None  # type: ignore[assignment]

    @pytest.fixture
    def system(self, gatekeeper: GramSystem) -> Iterator[GramSystem]:
        with as_user_in(gatekeeper.root / "work"):
            yield gatekeeper

    @pytest.fixture
    def work(self, system: GramSystem, request: pytest.FixtureRequest) -> Iterator[Work]:
        name = request.node.originalname.removeprefix("test_")[:40].strip("_")
        directory = system.root / "work" / name
        directory.mkdir()
        yield Work(system, directory, name)
        system.end_jobs()

    def controller_pid(self, system: System) -> int:
        assert isinstance(system, GramSystem)
        return system.controller_pid()

    def test_a_submission_without_an_answer_is_found_by_its_tag(self, work: Work) -> None:
        """It is found where it has started, or given up; then it may be repeated, and runs once."""
        ran = work.directory / "ran"
        request = work.request("j", f"echo ran >>{ran}; exit 6")
        pid = self.controller_pid(work.system)
        _signal(pid, signal.SIGSTOP)
        try:
            (result,) = work.system.grid(timeout_s=3.0).submit([request])
        finally:
            _signal(pid, signal.SIGCONT)
        assert isinstance(result, Unclear)
        found = work.grid.find_by_tag([request.tag])
        ids = [found[request.tag].grid_job_id] if found else work.submit(request)
        assert work.until_ended(ids)[ids[0]].state == Completed(6)
        assert ran.read_text() == "ran\n"

    def test_one_that_started_before_its_name_was_noted_is_found_and_followed(
        self, work: Work, system: GramSystem
    ) -> None:
        over = work.directory / "over"
        request = work.request("j", f"while [ ! -e {over} ]; do sleep 0.2; done; exit 4")
        (grid_job_id,) = work.submit(request)
        place = system.root / "spool" / str(request.tag)
        until(lambda: (place / "start").exists(), "it has started")
        (place / "contact").unlink()  # The node had ended before it wrote this.
        anew = system.grid()
        found = anew.find_by_tag([request.tag])
        assert found[request.tag].grid_job_id == grid_job_id
        assert isinstance(found[request.tag].state, Running)
        over.touch()
        assert work.until_ended([grid_job_id])[grid_job_id].state == Completed(4)
        anew.forget([grid_job_id])
        assert anew.find_by_tag([request.tag]) == {} and not place.exists()

    def test_one_whose_submission_was_cut_off_before_it_started_never_runs(
        self, work: Work, system: GramSystem
    ) -> None:
        """GRAM gets the request all the same, long after the node gave it up."""
        ran = work.directory / "ran"
        request = work.request("j", f"touch {ran}")
        late = work.grid.write_config(request)
        silent = work.directory / "bin"
        silent.mkdir()
        (silent / "globusrun").write_text("#!/bin/sh\nexit 10\n")
        (silent / "globusrun").chmod(0o755)
        (result,) = system.grid(bin_directory=str(silent)).submit([request])
        assert isinstance(result, Unclear)
        assert work.grid.find_by_tag([request.tag]) == {}
        (work.directory / "late.rsl").write_text(late.text)
        contact = system.submit(work.directory / "late.rsl")
        until(lambda: system.word(contact) == "DONE", "GRAM is done with it")
        assert not ran.exists()
        ids = work.submit(request)  # It may be repeated.
        assert work.until_ended(ids)[ids[0]].state == Completed(0)
        assert ran.exists()

    def test_a_job_manager_that_is_lost_costs_no_grid_job(self, work: Work, system: GramSystem) -> None:
        over = work.directory / "over"
        trap = "trap 'echo told; exit 0' TERM; while :; do sleep 0.1; done"
        ends, stays = (
            work.request("ends", f"while [ ! -e {over} ]; do sleep 0.2; done; exit 5"),
            work.request("stays", trap),
        )
        first, second = work.submit(ends, stays)
        work.until_running(first, second)
        started = [system.root / "spool" / str(one.tag) / "alive" for one in (ends, stays)]
        until(lambda: all(path.exists() for path in started), "both run")
        system.end_job_managers()
        assert system.word(first) == "DONE", "GRAM knows nothing of it any more"
        states = system.grid().status([first, second])
        assert {type(state) for state in states.values()} == {Running} and len(states) == 2
        work.grid.remove([second])
        over.touch()
        found = work.until_ended([first, second])
        assert found[first].state == Completed(5) and isinstance(found[second].state, Removed)
        assert "told" in Path(stays.stdout_path).read_text()
        ids = work.submit(work.request("next", "true"))
        assert work.until_ended(ids)[ids[0]].state == Completed(0)

    def test_without_a_credential_nothing_is_submitted(self, work: Work, system: GramSystem) -> None:
        grid = system.grid(environment={**system.environment, "X509_USER_PROXY": "/nowhere/proxy"})
        request = work.request("j", "true")
        with pytest.raises(GridDown, match="credential"):
            grid.submit([request])
        with pytest.raises(GridDown, match="credential"):
            grid.check()
        assert work.grid.find_by_tag([request.tag]) == {}
        (result,) = work.grid.submit([request])
        assert isinstance(result, Submitted)
        work.until_ended([result.grid_job_id])


def test_a_users_production_runs_through_gram_and_its_node_dies_in_the_first_submission(
    gatekeeper: GramSystem, place: Path
) -> None:
    """GRAM has taken the first pilot when the node dies, before it could read GRAM's name for it."""
    cluster = place / "cluster"
    directory, trigger = trip_wire(
        place / "bin", "globusrun", cluster / "madison" / "data" / "node.pid", submits=True
    )
    directory.chmod(0o777)
    options = f'bin_directory = "{directory}"\n{gatekeeper.site_options()}'
    with site_on_grid(cluster, "gram", options, owner=user_ids(USER)) as running:
        trigger.touch()
        dataset = running.submit(jobs=1)
        assert running.first.process is not None
        running.first.process.wait(150)
        spool = running.first.directory / "data" / "grid"
        (cut_off,) = spool.glob("iceprod.*")
        assert not trigger.exists() and not (cut_off / "contact").exists()
        wait((cut_off / "start").exists, "GRAM starts the pilot that nobody knows")
        running.restart_node()
        assert running.watch(dataset) == "complete"
        running.assert_whole(dataset, TASKS, losses_most=1)
        wait(
            lambda: all(record["phase"] == "ended" for record in running.records()),
            "pilots have ended",
        )
        (found,) = [record for record in running.records() if record["tag"] == cut_off.name]
        assert found["grid_job_id"].startswith("https://"), "it was found by what it wrote itself"
        # One that was submitted for tasks which another took may have been removed.
        assert "ended with exit code 0" in {record["reason"] for record in running.records()}
        logs = list(running.first.directory.glob("data/pilots/*/grid/grid.err"))
        assert any("pilot ends" in path.read_text() for path in logs)


def _signal(pid: int, number: signal.Signals) -> None:
    with as_root_again():
        os.kill(pid, number)
