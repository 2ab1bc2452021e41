"""The Slurm plugin on a real Slurm of this machine, with and without accounting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.grids.base import (
    Completed,
    Failed,
    Grid,
    GridRequest,
    Held,
    NotSubmitted,
    Removed,
    Submitted,
    Tag,
)
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.registry import create
from iceprod_p2p.grids.slurm import SlurmGrid
from iceprod_p2p.grids.slurm_rest import SlurmRestGrid
from iceprod_p2p.grids.slurm_text import SlurmJob
from tests.grids.behaviour import GridBehaviour, System, Work
from tests.grids.daemons import until
from tests.grids.slurm_system import SlurmSystem
from tests.grids.users import USER, user_ids
from tests.unit.site.one_keeper import Site
from tests.unit.site.one_ledger import NOW_MS, OneLedger


def started(*, accounting: bool, rest: bool = False) -> Iterator[SlurmSystem]:
    made = SlurmSystem(accounting=accounting, rest=rest)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def bare() -> Iterator[SlurmSystem]:
    yield from started(accounting=False)


@pytest.fixture(scope="module")
def accounted() -> Iterator[SlurmSystem]:
    yield from started(accounting=True, rest=True)


@pytest.fixture(scope="module", autouse=True)
def overtime(bare: SlurmSystem) -> tuple[Work, str, Path]:
    """A grid job that stays longer than its minute, submitted before everything else; on n1, as n2 is lost once."""
    work = Work(bare, bare.root / "work", "overtime")
    script = "trap 'echo told; exit 0' TERM; while :; do sleep 0.2; done"
    request = work.request("overtime", script, walltime_s=60, exclude_hosts=("n2",))
    (grid_job_id,) = work.submit(request)
    return work, grid_job_id, Path(request.stdout_path)


class SlurmBehaviour(GridBehaviour):
    refused = {"queue": "nope"}
    held = {"extra_lines": ("--hold",)}

    def controller_pid(self, system: System) -> int:
        assert isinstance(system, SlurmSystem)
        return system.daemons.pid("slurmctld")

    def test_amounts_reach_slurm(self, work: Work, system: SlurmSystem) -> None:
        asked = work.request(
            "j",
            "sleep 30",
            cores=3,
            memory_mib=700,
            gpus=2,
            walltime_s=3_000,
            queue="main",
            priority=-7,
            exclude_hosts=("n1",),
        )
        (grid_job_id,) = work.submit(asked)
        work.until_running(grid_job_id)
        shown = system.run("scontrol", "show", "job", grid_job_id)
        for part in ("NumCPUs=3", "mem=700M", "gres:gpu:2", "TimeLimit=00:50:00", "Nice=70", "NodeList=n2"):
            assert part in shown, shown
        assert work.grid.status([grid_job_id])[grid_job_id].host == "n2"  # type: ignore[union-attr]

    def test_what_no_node_can_run_is_refused(self, work: Work) -> None:
        (result,) = work.grid.submit([work.request("j", "true", gpus=3)])
        assert "node configuration is not available" in result.reason  # type: ignore[union-attr]

    def test_a_lost_node_fails_its_grid_jobs_and_nothing_is_run_again(
        self, work: Work, system: SlurmSystem
    ) -> None:
        (grid_job_id,) = work.submit(work.request("j", "echo run; sleep 250", exclude_hosts=("n1",)))
        out = work.directory / "j" / "grid.out"
        until(lambda: out.exists() and "run" in out.read_text(), "the grid job runs")
        system.lose_node("n2")
        try:
            end = work.until_ended([grid_job_id])[grid_job_id]
        finally:
            system.find_node("n2")
        assert end.state == Failed("its worker node failed (NODE_FAIL)")
        assert out.read_text().count("run") == 1

    def test_a_directory_that_is_gone_on_the_node_is_named(self, work: Work, system: SlurmSystem) -> None:
        asked = work.request("j", "true", extra_lines=("--hold",))
        (grid_job_id,) = work.submit(asked)
        Path(asked.work_directory).rmdir()
        system.run("scontrol", "release", grid_job_id)
        end = work.until_ended([grid_job_id])[grid_job_id]
        assert isinstance(end.state, Failed) and "work directory" in end.state.reason

    def test_an_operators_cancellation_is_a_removal(self, work: Work, system: SlurmSystem) -> None:
        (grid_job_id,) = work.submit(work.request("j", "sleep 250"))
        work.until_running(grid_job_id)
        system.run("scancel", grid_job_id)
        assert isinstance(work.until_ended([grid_job_id])[grid_job_id].state, Removed)


class TestSlurmWithAccounting(SlurmBehaviour):
    @pytest.fixture
    def system(self, accounted: SlurmSystem) -> SlurmSystem:
        return accounted

    def test_ends_outlive_the_controllers_memory(self, work: Work, system: SlurmSystem) -> None:
        assert "accounting: yes" in work.grid.check()
        assert isinstance(work.grid, SlurmGrid)
        ids = work.submit(work.request("j", "exit 7"))
        work.until_ended(ids)
        line = ("sacct", "-nXP", "-j", ids[0], "--format=State,ExitCode")
        until(lambda: system.run(*line).strip() == "FAILED|7:0", "sacct knows the end")
        system.stop_controller()
        try:
            end = work.grid.history(ids)[ids[0]]
        finally:
            system.start_controller()
        assert end.state == Completed(7) and end.host

    def test_a_silent_accounting_is_no_reason_to_lose_an_end(self, work: Work, system: SlurmSystem) -> None:
        ids = work.submit(work.request("j", "exit 8"))
        system.stop_accounting()
        try:
            assert work.until_ended(ids)[ids[0]].state == Completed(8)
            with pytest.raises(GridError):
                work.grid.history(["999999"])
        finally:
            system.start_accounting()

    def test_arrays_of_others_are_read_and_never_ours(self, work: Work, system: SlurmSystem) -> None:
        """Waiting, running and ended tasks of arrays: an account's own, under a name like ours, and a user's."""
        name = f"iceprod.{work.site}.array"
        options = ("--parsable", f"--job-name={name}", "--array=0-3%2", "--chdir=/tmp", "--output=/dev/null")
        script = '--wrap=test "$SLURM_ARRAY_TASK_ID" = 0 || sleep 600'
        array = system.run("sbatch", *options, script).strip()
        user_ids(USER)
        user = system.run(
            "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "sbatch", *options, script
        ).strip()
        (grid_job_id,) = work.submit(work.request("j", "exit 3"))
        assert work.until_ended([grid_job_id])[grid_job_id].state == Completed(3)
        try:
            until(lambda: system.accounted_state(f"{array}_0") == "COMPLETED", "a task has ended")
            until(lambda: "RUNNING" in system.accounted_state(f"{array}_1"), "a task runs")
            assert isinstance(work.grid, SlurmGrid)
            listed = {job.grid_job_id for job in work.grid._squeue("--states=all")}
            assert {f"{array}_0", f"{array}_1"} <= listed and not any(
                name.startswith(user) for name in listed
            )
            assert [job.grid_job_id for job in work.grid.our_jobs(work.site)] == [grid_job_id]
            assert work.grid.find_by_tag([Tag(work.site, "array")]) == {}
            assert work.grid.clean_queue(work.site, []) == []
            expected = {f"{array}_0": Completed(0), grid_job_id: Completed(3)}
            sacct = partial(work.grid._sacct, "--jobs", ",".join(expected))
            # Accounting hears of an end and of its exit code one after the other.
            until(lambda: {job.grid_job_id: job.state for job in sacct()} == expected, "both have ended")
            states = system.run("squeue", "--noheader", f"--jobs={array},{user}", "--format=%T")
            assert "RUNNING" in states and "CANCELLED" not in states
        finally:
            system.run("scancel", array, user)


class ByRest:
    """The same Slurm, spoken to through its slurmrestd."""

    def __init__(self, slurm: SlurmSystem) -> None:
        self._slurm = slurm

    def grid(self, **options: object) -> Grid:
        return self._slurm.grid(**self._slurm.rest_options(), **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._slurm, name)


class TestSlurmByRest(SlurmBehaviour):
    suffix = "_rest"

    @pytest.fixture
    def system(self, accounted: SlurmSystem) -> ByRest:
        return ByRest(accounted)

    def controller_pid(self, system: System) -> int:
        assert isinstance(system, ByRest)
        return int(system.daemons.pid("slurmctld"))

    def test_amounts_reach_slurm(self, work: Work, system: SlurmSystem) -> None:
        asked = work.request(
            "j", "sleep 30", cores=3, memory_mib=700, gpus=2, walltime_s=3_000, queue="main", priority=-7
        )
        (grid_job_id,) = work.submit(asked)
        work.until_running(grid_job_id)
        shown = system.run("scontrol", "show", "job", grid_job_id)
        for part in ("NumCPUs=3", "mem=700M", "gres:gpu:2", "TimeLimit=00:50:00", "Nice=70"):
            assert part in shown, shown

    def test_a_lost_node_fails_its_grid_jobs_and_nothing_is_run_again(
        self, work: Work, system: SlurmSystem
    ) -> None:
        (grid_job_id,) = work.submit(work.request("j", "echo run; sleep 250"))
        out = work.directory / "j" / "grid.out"
        until(lambda: out.exists() and "run" in out.read_text(), "the grid job runs")
        node = system.run("squeue", "--noheader", "--jobs", grid_job_id, "--format=%N").strip()
        system.lose_node(node)
        try:
            end = work.until_ended([grid_job_id])[grid_job_id]
        finally:
            system.find_node(node)
        assert end.state == Failed("its worker node failed (NODE_FAIL)")
        assert out.read_text().count("run") == 1

    def test_while_the_controller_is_away_nothing_is_known_and_nothing_is_lost(self, work: Work) -> None:
        grid_job_id, over = work.begin_one_that_waits()
        work.system.stop_controller()
        try:
            with pytest.raises(GridDown):  # slurmrestd takes ten seconds to say so: one look is enough.
                work.grid.submit([work.request("late", "true")])
            over.touch()  # It ends while nobody can be told.
        finally:
            work.system.start_controller()
        assert work.until_ended([grid_job_id])[grid_job_id].state == Completed(5)
        assert work.grid.find_by_tag([Tag(work.site, "late")]) == {}

    # The same code as by commands, or shown by others of these.
    test_an_operators_cancellation_is_a_removal = None  # type: ignore[assignment]
    test_many_run_and_all_ends_are_known = None  # type: ignore[assignment]
    test_a_directory_that_is_gone_on_the_node_is_named = None  # type: ignore[assignment]

    def test_the_plugin_says_what_it_speaks_to(self, work: Work, system: SlurmSystem) -> None:
        assert "slurmrestd v0.0.38" in work.grid.check() and "user root" in work.grid.check()
        by_socket = create("slurm", system.rest_options(socket_=True))
        assert "unix:///" in by_socket.check()
        (system.root / "bad").touch(0o600)
        (system.root / "bad").write_text("eyJhbGciOiJIUzI1NiJ9.e30.x")
        with pytest.raises(GridError, match="token"):
            create("slurm", {**system.rest_options(), "rest_token": str(system.root / "bad")}).check()

    def test_ends_outlive_the_controllers_memory(self, work: Work, system: SlurmSystem) -> None:
        """By what the accounting says of single ones; slurmrestd of 22.05 tells no exit codes of it."""
        assert isinstance(work.grid, SlurmRestGrid)
        ids = work.submit(work.request("good", "sleep 1"), work.request("bad", "sleep 1; exit 7"))
        assert [work.until_ended([name])[name].state for name in ids] == [Completed(0), Completed(7)]
        grid = work.grid

        def told(what: str) -> list[SlurmJob]:
            return [job for job in grid._accounted(what) if job.history is not None]

        until(lambda: bool(told(f"job/{ids[0]}")) and bool(told(f"job/{ids[1]}")), "both ends are accounted")
        assert told(f"job/{ids[0]}")[0].state == Completed(0)
        assert isinstance(told(f"job/{ids[1]}")[0].state, Failed | Completed)
        tag = Tag(work.site, "bad")
        until(lambda: [job.tag for job in told(f"jobs?job_name={tag}")] == [tag], "its name is accounted")
        assert grid._accounted("job/999999") == []


class TestSlurmWithoutAccounting(SlurmBehaviour):
    @pytest.fixture
    def system(self, bare: SlurmSystem) -> SlurmSystem:
        return bare

    def test_the_plugin_finds_that_there_is_no_accounting(self, work: Work) -> None:
        assert "accounting: no" in work.grid.check()

    def test_the_wall_time_ends_it_after_a_word(self, overtime: tuple[Work, str, Path]) -> None:
        work, grid_job_id, out = overtime
        end = work.until_ended([grid_job_id], limit_s=200)[grid_job_id]
        assert end.state == Failed("its wall time was over (TIMEOUT)")
        assert "told" in out.read_text()


def test_psij_drives_a_real_batch_system(bare: SlurmSystem) -> None:
    pytest.importorskip("psij")
    directory = bare.root / "psij"
    directory.mkdir()
    grid = create("psij", {"executor": "slurm", "spool": str(directory), "environment": bare.environment})
    assert "executor slurm" in grid.check()
    asked = [
        GridRequest(Tag("psij", name), "/bin/sh", str(directory / name), ("-c", script), **more)
        for name, script, more in (
            ("ends", "echo $ICEPROD_GRID_TAG; exit 3", {"walltime_s": 300, "memory_mib": 100}),
            ("waits", "sleep 100", {"extra_lines": ("--begin=now+1hour",), "queue": "main"}),
            ("refused", "true", {"queue": "nope"}),
        )
    ]
    *results, refusal = grid.submit(asked)
    assert isinstance(refusal, NotSubmitted) and "partition" in refusal.reason
    ids = [result.grid_job_id for result in results if isinstance(result, Submitted)]
    assert len(ids) == 2, results
    until(lambda: ids[0] in grid.history([ids[0]]), "it has ended", limit_s=150, pause_s=0.5)
    end = grid.history([ids[0]])[ids[0]]
    assert (end.state, end.host) == (Completed(3), os.uname().nodename)
    assert Path(asked[0].stdout_path).read_text().strip() == "iceprod.psij.ends"
    again = create("psij", {"executor": "slurm", "spool": str(directory), "environment": bare.environment})
    assert [job.grid_job_id for job in again.clean_queue("psij", [asked[0].tag])] == [ids[1]]
    until(lambda: ids[1] in grid.history([ids[1]]), "it is gone", limit_s=150, pause_s=0.5)
    assert isinstance(grid.history([ids[1]])[ids[1]].state, Removed)
    grid.forget(ids)


async def test_two_nodes_of_a_site_leave_each_others_grid_jobs(bare: SlurmSystem) -> None:
    """Each looks for orphans at its start, under one account of one Slurm; pilots are held, so none starts."""
    ledger = OneLedger()
    ledger.found()
    ledger.submit(jobs=2)
    directory, clock = bare.root / "two nodes", ManualClock(wall_ms=NOW_MS)
    nodes = [
        Site(directory / name, ledger, bare.grid(), clock, node_id=name, queue='extra_lines = ["--hold"]')
        for name in ("madison-1", "madison-2")
    ]
    nodes[0].claim(2)
    nodes[1].stock.refresh()
    for node in nodes:
        await node.keeper.step()
    ids = {node.kit.owner: [job.grid_job_id for job in node.book] for node in nodes}
    for owner, (grid_job_id,) in ids.items():
        assert [job.grid_job_id for job in bare.grid().our_jobs(owner)] == [grid_job_id]
        state = partial(bare.grid().status, [grid_job_id])
        until(lambda state=state, name=grid_job_id: isinstance(state().get(name), Held), "it is held")  # type: ignore[misc]
    bare.grid().remove([grid_job_id for (grid_job_id,) in ids.values()])
