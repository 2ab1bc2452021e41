"""The physics production through pilots of a real Slurm, undisturbed and disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from iceprod_cli.commands.dataset import statistics_rows
from iceprod_cli.commands.site import site_rows

from tests.grids.site_on_grid import (
    GPU_TASKS,
    GridProduction,
    a_running_one,
    a_running_task,
    ours,
    site_on_grid,
    trip_wire,
    until_done,
    until_ended,
    wait,
)
from tests.grids.slurm_system import SlurmSystem
from tests.grids.unmonitored import assert_unmonitored_jobs_run

JOBS = 3
TASKS = 7 * JOBS

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmSystem]:
    made = SlurmSystem()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def running(slurm: SlurmSystem, tmp_path: Path) -> Iterator[GridProduction]:
    with site_on_grid(tmp_path / "cluster", "slurm", slurm.site_options()) as made:
        yield made
    slurm.cancel_all()


def test_a_production_runs_through_slurm_and_gpus_are_given_to_their_tasks(
    running: GridProduction, slurm: SlurmSystem
) -> None:
    dataset = running.submit(jobs=JOBS)
    looks = running.submit(GPU_TASKS, jobs=4)
    assert running.watch(dataset) == "complete"
    assert running.watch(looks) == "complete"
    running.assert_whole(dataset, TASKS)
    running.assert_whole(looks, 8)
    assert {row["site"] for row in running.tasks(dataset)} == {"madison"}
    assert next(row for row in site_rows(running.session))["grid"] == "slurm"
    sums = {(row["task"], row["name"]): row["sum"] for row in statistics_rows(running.session, looks)}
    assert sums["look", "gpus"] == 4 and sums["none", "gpus"] == 0
    assert {name for task, name in sums if task == "look"} <= {"gpus", "gpu_0", "gpu_1"}
    wait(
        lambda: all(record["phase"] == "ended" for record in running.records()),
        "idle pilots have ended",
        limit_s=150,
    )
    assert {record["reason"] for record in running.records()} == {"ended with exit code 0"}
    assert all(record["host"] for record in running.records())


def test_a_controller_that_stops_and_starts_loses_nothing(
    running: GridProduction, slurm: SlurmSystem, tmp_path: Path
) -> None:
    dataset = running.submit(jobs=JOBS)
    until_done(running, dataset, 2)
    waiting = a_running_task(running, tmp_path / "gate")
    slurm.stop_controller()
    try:
        (tmp_path / "gate").touch()
        until_done(running, waiting, 1)
    finally:
        slurm.start_controller()
    assert running.watch(dataset) == "complete"
    running.assert_whole(dataset, TASKS)
    ids = running.grid_job_ids()
    assert len(set(ids)) == len(ids)


def test_a_cancelled_pilot_costs_its_task_an_attempt_and_no_fault(
    running: GridProduction, slurm: SlurmSystem
) -> None:
    dataset = running.submit(jobs=JOBS)
    until_done(running, dataset, 1)
    victim = a_running_one(slurm.grid(), running)
    slurm.run("scancel", victim.grid_job_id)
    assert running.watch(dataset) == "complete"
    running.assert_whole(dataset, TASKS, losses_most=1)
    until_ended(running, victim.grid_job_id)


@pytest.mark.parametrize("submits", [True, False], ids=["after-sbatch", "before-sbatch"])
def test_a_node_that_dies_around_a_submission_submits_nothing_twice(
    slurm: SlurmSystem, tmp_path: Path, submits: bool
) -> None:
    pid_file = tmp_path / "cluster" / "madison" / "data" / "node.pid"
    directory, trigger = trip_wire(tmp_path / "bin", "sbatch", pid_file, submits=submits)
    for command in ("squeue", "scancel", "scontrol"):
        (directory / command).symlink_to(f"/usr/bin/{command}")
    lines = f'bin_directory = "{directory}"\n{slurm.site_options()}'
    with site_on_grid(tmp_path / "cluster", "slurm", lines) as running:
        trigger.touch()
        dataset = running.submit(jobs=JOBS)
        assert running.first.process is not None
        running.first.process.wait(150)
        assert not trigger.exists()
        noted = [record for record in running.records() if record["phase"] == "noted"]
        assert noted and not any(record["grid_job_id"] for record in noted)
        pilots = {job.tag.grid_job for job in ours(slurm.grid(), running) if job.tag is not None}
        assert bool(pilots & {record["pilot"] for record in noted}) is submits
        running.restart_node()
        assert running.watch(dataset) == "complete"
        running.assert_whole(dataset, TASKS)
        jobs = ours(slurm.grid(), running)
        assert len({job.tag for job in jobs}) == len(jobs)
        there = {job.grid_job_id for job in jobs}
        wait(lambda: there <= set(running.grid_job_ids()), "the site knows every grid job that Slurm has")
    slurm.cancel_all()


def test_unmonitored_jobs_run_through_slurm_without_a_cluster(slurm: SlurmSystem, tmp_path: Path) -> None:
    assert_unmonitored_jobs_run(tmp_path / "unmonitored", "slurm", slurm.site_options())
