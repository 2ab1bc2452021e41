"""The Grid Engine plugin on a real Son of Grid Engine of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.grids.base import Completed, Failed, Held, Removed
from tests.grids.behaviour import CountingBehaviour, System, Work
from tests.grids.daemons import until
from tests.grids.sge_system import SgeSystem


@pytest.fixture(scope="module")
def sge() -> Iterator[SgeSystem]:
    made = SgeSystem()
    made.start()
    yield made
    made.stop()


class TestSge(CountingBehaviour):
    """Grid Engine gives GPUs no numbers without a prolog of the site."""

    refused = {"queue": "nope"}
    held = {"extra_lines": ("-h",)}

    @pytest.fixture
    def system(self, sge: SgeSystem) -> SgeSystem:
        return sge

    def controller_pid(self, system: System) -> int:
        assert isinstance(system, SgeSystem)
        return system.controller_pid()

    def test_amounts_reach_grid_engine(self, work: Work, system: SgeSystem) -> None:
        asked = work.request(
            "j",
            "sleep 30",
            cores=2,
            memory_mib=1_999,
            gpus=2,
            walltime_s=100,
            queue="all.q",
            priority=-7,
            extra_lines=("-h",),
            exclude_hosts=("elsewhere",),
        )
        (grid_job_id,) = work.submit(asked)
        shown = system.run("qstat", "-j", grid_job_id)
        for part in ("h_rt=100", "h_vmem=1000M", "gpu=1", "smp range: 2", "all.q", "!(elsewhere)"):
            assert part in shown, shown
        assert "-70" in shown

    def test_what_no_host_can_run_is_refused(self, work: Work) -> None:
        (result,) = work.grid.submit([work.request("j", "true", gpus=3)])
        assert "no suitable queues" in result.reason  # type: ignore[union-attr]

    def test_the_wall_time_ends_it_after_a_word(self, work: Work) -> None:
        script = "trap 'echo told; exit 0' TERM; while :; do sleep 0.2; done"
        request = work.request("j", script, walltime_s=5)
        (grid_job_id,) = work.submit(request)
        end = work.until_ended([grid_job_id])[grid_job_id]
        assert isinstance(end.state, Failed) and "wall time" in end.state.reason
        assert "told" in Path(request.stdout_path).read_text()

    def test_an_error_state_is_held_with_its_reason(self, work: Work, system: SgeSystem) -> None:
        asked = work.request("j", "true", extra_lines=("-h",))
        (grid_job_id,) = work.submit(asked)
        Path(asked.work_directory).rmdir()
        system.run("qrls", grid_job_id)

        def is_error() -> bool:
            state = work.grid.status([grid_job_id]).get(grid_job_id)
            return isinstance(state, Held) and state.reason != "on hold"

        until(is_error, "it is in error state")
        state = work.grid.status([grid_job_id])[grid_job_id]
        assert isinstance(state, Held) and str(asked.work_directory) in state.reason

    def test_an_operators_deletion_without_a_word_is_a_removal(self, work: Work, system: SgeSystem) -> None:
        (grid_job_id,) = work.submit(work.request("j", "trap '' TERM; while :; do sleep 0.2; done"))
        work.until_running(grid_job_id)
        system.run("qdel", grid_job_id)
        assert isinstance(work.until_ended([grid_job_id])[grid_job_id].state, Removed)

    def test_ends_outlive_the_plugin(self, work: Work, system: SgeSystem) -> None:
        ids = work.submit(*(work.request(f"j{n}", f"exit {n}") for n in range(5)))
        work.until_ended(ids)
        ends = system.grid().history(ids)
        assert [ends[name].state for name in ids] == [Completed(n) for n in range(5)]
