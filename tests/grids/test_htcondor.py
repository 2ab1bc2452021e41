"""The HTCondor plugin on a real pool of this machine, as a user: HTCondor runs nothing as root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.grids.base import Completed, Failed, GridRequest, Removed, Submitted, Tag
from iceprod_p2p.grids.errors import GridError
from iceprod_p2p.grids.registry import create
from tests.grids.behaviour import GridBehaviour, System, Work
from tests.grids.daemons import until
from tests.grids.htcondor_system import HtcondorSystem
from tests.grids.users import USER, as_user_in


@pytest.fixture(scope="module")
def pool() -> Iterator[HtcondorSystem]:
    made = HtcondorSystem()
    made.start()
    yield made
    made.stop()


def test_a_schedd_elsewhere_is_brought_the_files_and_gives_the_output_back(pool: HtcondorSystem) -> None:
    """By name, with -spool: what a site does that has no schedd of its own, or that speaks to an HTCondor-CE."""
    name = pool.run("condor_status", "-schedd", "-af", "Name").strip()
    with as_user_in(pool.root / "remote") as directory:
        made = pool.grid(schedd=name, pool=pool.collector, spool=True)
        secret = directory / "secret"
        secret.write_text("abc")
        secret.chmod(0o600)
        requests = [
            GridRequest(
                Tag("remote", f"j{number}"),
                "/bin/sh",
                str(directory / f"j{number}"),
                ("-c", f"cat secret; pwd; exit {number}"),
                files_in=(str(secret),),
                carry=True,
            )
            for number in (3, 4)
        ]
        results = made.submit(requests)
        assert all(isinstance(result, Submitted) for result in results), results
        ids = [result.grid_job_id for result in results if isinstance(result, Submitted)]
        until(lambda: made.history(ids).keys() == set(ids), "both have ended", limit_s=150, pause_s=0.3)
        assert [made.history(ids)[one].exit_code for one in ids] == [3, 4]
        for request in requests:
            said = Path(request.stdout_path).read_text()
            assert said.startswith("abc") and str(directory) not in said
        assert len(made.find_by_tag([request.tag for request in requests])) == 2
        made.forget(ids)
        until(lambda: not made.our_jobs("remote"), "the schedd keeps nothing more", limit_s=150, pause_s=0.3)
        assert made.check()


def test_the_plugin_for_computing_elements_speaks_to_a_schedd_elsewhere(pool: HtcondorSystem) -> None:
    """All of it but the token and the routes behind: a schedd by its address, with -spool, told what routes read."""
    name = pool.run("condor_status", "-schedd", "-af", "Name").strip()
    options = {"endpoint": pool.collector, "schedd": name, "authentication": "FS"}
    with as_user_in(pool.root / "element") as directory:
        made = create(
            "htcondor-ce", {"environment": pool.environment, "bin_directory": str(pool.bin), **options}
        )
        assert "WRITE" in made.check() and USER in made.check()
        request = GridRequest(
            Tag("element", "j"),
            "/bin/sh",
            str(directory / "j"),
            ("-c", "pwd; exit 3"),
            carry=True,
            walltime_s=90,
            memory_mib=100,
            queue="long",
            cores=2,
        )
        (result,) = made.submit([request])
        assert isinstance(result, Submitted), result
        ids = [result.grid_job_id]
        shown = pool.run(
            "condor_q", ids[0], "-af", "Owner", "xcount", "maxMemory", "maxWallTime", "remote_queue"
        )
        assert shown.split() == [USER, "2", "100", "2", "long"]
        until(lambda: made.history(ids).keys() == set(ids), "it has ended", limit_s=150, pause_s=0.3)
        assert made.history(ids)[ids[0]].state == Completed(3)
        assert str(directory) not in Path(request.stdout_path).read_text()
        made.forget(ids)
        wrong = create(
            "htcondor-ce",
            {
                "environment": pool.environment,
                "bin_directory": str(pool.bin),
                **options,
                "authentication": "SSL",
            },
        )
        with pytest.raises(GridError):
            wrong.check()


class TestHtcondor(GridBehaviour):
    refused = {"extra_lines": ("no such line",)}
    held = {"extra_lines": ("hold = true",)}

    @pytest.fixture
    def system(self, pool: HtcondorSystem) -> Iterator[HtcondorSystem]:
        with as_user_in(pool.root / "work"):
            yield pool

    def controller_pid(self, system: System) -> int:
        assert isinstance(system, HtcondorSystem)
        return system.controller_pid()

    def test_amounts_reach_htcondor(self, work: Work, system: HtcondorSystem) -> None:
        asked = work.request(
            "j",
            "sleep 30",
            cores=2,
            memory_mib=700,
            disk_mib=50,
            gpus=2,
            priority=-7,
            extra_lines=("hold = true",),
        )
        (grid_job_id,) = work.submit(asked)
        names = ("RequestCpus", "RequestMemory", "RequestDisk", "RequestGPUs", "JobPrio")
        shown = system.run("condor_q", grid_job_id, "-af", *names).split()
        assert shown == ["2", "700", "51200", "2", "-7"]

    def test_the_wall_time_ends_it_after_a_word(self, work: Work) -> None:
        script = "trap 'echo told; exit 0' TERM; while :; do sleep 0.2; done"
        request = work.request("j", script, walltime_s=10)  # From the start of its shadow, not its own.
        (grid_job_id,) = work.submit(request)
        end = work.until_ended([grid_job_id])[grid_job_id]
        assert isinstance(end.state, Failed) and "wall time" in end.state.reason
        assert "told" in Path(request.stdout_path).read_text()

    def test_an_operators_removal_is_a_removal(self, work: Work, system: HtcondorSystem) -> None:
        (grid_job_id,) = work.submit(work.request("j", "sleep 250"))
        work.until_running(grid_job_id)
        system.run("condor_rm", grid_job_id)
        assert isinstance(work.until_ended([grid_job_id])[grid_job_id].state, Removed)

    def test_ends_outlive_the_plugin(self, work: Work, system: HtcondorSystem) -> None:
        ids = work.submit(*(work.request(f"j{n}", f"exit {n}") for n in range(4)))
        work.until_ended(ids)
        ends = system.grid().history(ids)
        assert [ends[name].state for name in ids] == [Completed(n) for n in range(4)]
