"""The PBS plugin on a real OpenPBS of this machine, as a user: of root's jobs OpenPBS sees no processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.grids.base import Failed, Held, Removed
from tests.grids.behaviour import CountingBehaviour, System, Work
from tests.grids.daemons import until
from tests.grids.openpbs_system import OpenPbsSystem
from tests.grids.users import as_user_in

pytestmark = [pytest.mark.unpackaged, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def openpbs() -> Iterator[OpenPbsSystem]:
    made = OpenPbsSystem()
    made.start()
    yield made
    made.stop()


def test_a_server_that_forgets_what_ended_tells_of_what_lives() -> None:
    """As OpenPBS comes: it says nothing at all to who asks for ended jobs too, and that with exit code 0."""
    made = OpenPbsSystem(history=False)
    made.start()
    try:
        with as_user_in(made.root / "work") as directory:
            work = Work(made, directory, "forgets")
            (lives, ends) = work.submit(work.request("lives", "sleep 100"), work.request("ends", "exit 3"))
            assert [job.grid_job_id for job in work.grid.our_jobs("forgets")][:1] == [lives]
            until(lambda: work.grid.status([lives, ends]).keys() == {lives}, "one has ended")
            assert "keeps no ended jobs" in work.grid.check()
            assert work.grid.history([lives, ends]) == {}
            work.remove_all()
            until(lambda: work.grid.our_jobs("forgets") == [], "nothing is left", limit_s=60)
    finally:
        made.stop()


class TestOpenPbs(CountingBehaviour):
    """OpenPBS gives GPUs no numbers without its hook for control groups."""

    refused = {"queue": "nope"}
    held = {"extra_lines": ("-h",)}

    @pytest.fixture
    def system(self, openpbs: OpenPbsSystem) -> Iterator[OpenPbsSystem]:
        with as_user_in(openpbs.root / "work"):
            yield openpbs

    def controller_pid(self, system: System) -> int:
        assert isinstance(system, OpenPbsSystem)
        return system.controller_pid()

    def test_the_wall_time_ends_it_after_a_word(self, work: Work) -> None:
        script = "trap 'echo told; exit 0' TERM; while :; do sleep 0.2; done"
        request = work.request("j", script, walltime_s=5)
        (grid_job_id,) = work.submit(request)
        end = work.until_ended([grid_job_id])[grid_job_id]
        assert isinstance(end.state, Failed) and "wall time" in end.state.reason
        assert "told" in Path(request.stdout_path).read_text()

    def test_a_deleted_one_is_told_and_has_its_grace(self, work: Work, system: OpenPbsSystem) -> None:
        """The shell around it dies at the first word; it is let live on, and is removed whatever it ends with."""
        script = "trap 'sleep 3; echo gave back; exit 0' TERM; echo ready; while :; do sleep 0.2; done"
        request = work.request("j", script)
        (grid_job_id,) = work.submit(request)
        out = Path(request.stdout_path)
        until(lambda: out.exists() and "ready" in out.read_text(), "it is ready")
        system.run("qdel", grid_job_id)
        assert isinstance(work.until_ended([grid_job_id])[grid_job_id].state, Removed)
        assert "gave back" in out.read_text()

    def test_amounts_reach_openpbs(self, work: Work, system: OpenPbsSystem) -> None:
        asked = work.request(
            "j",
            "sleep 30",
            cores=2,
            memory_mib=700,
            gpus=2,
            walltime_s=100,
            queue="workq",
            priority=-7,
            extra_lines=("-h", "-A icecube"),
        )
        (grid_job_id,) = work.submit(asked)
        shown = system.run("qstat", "-f", grid_job_id)
        for part in (
            "Resource_List.select = 1:ncpus=2:mem=700mb:ngpus=2",
            "Resource_List.walltime = 00:01:40",
            "Priority = -70",
            "Account_Name = icecube",
            "Mail_Points = n",
            "Rerunable = False",
            f"Job_Name = {asked.tag}",
        ):
            assert part in shown, shown

    def test_what_no_host_can_run_is_held_with_the_reason(self, work: Work) -> None:
        (grid_job_id,) = work.submit(work.request("j", "true", gpus=3))
        until(lambda: isinstance(work.grid.status([grid_job_id]).get(grid_job_id), Held), "it is held")
        state = work.grid.status([grid_job_id])[grid_job_id]
        assert isinstance(state, Held) and "ngpus" in state.reason

    def test_arrays_of_strangers_are_none_of_ours(self, work: Work, system: OpenPbsSystem) -> None:
        array = system.run(
            "qsub", "-J", "0-2", "-h", "-o", "/dev/null", "-e", "/dev/null", stdin="true\n"
        ).strip()
        try:
            ids = work.submit(work.request("j", "sleep 30"))
            assert [job.grid_job_id for job in work.grid.our_jobs(work.site)] == ids
            assert work.grid.status([*ids, array]).keys() == set(ids)
        finally:
            system.run("qdel", array)
