"""The physics production through pilots of a real Grid Engine, with its master stopped in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from iceprod_cli.commands.dataset import statistics_rows
from iceprod_cli.commands.site import site_rows

from tests.grids.sge_system import SgeSystem
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
from tests.grids.unmonitored import assert_unmonitored_jobs_run

JOBS = 3
TASKS = 7 * JOBS

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def sge() -> Iterator[SgeSystem]:
    made = SgeSystem()
    made.start()
    yield made
    made.stop()


def test_a_production_runs_through_grid_engine_whose_master_stops_and_whose_pilots_are_deleted(
    sge: SgeSystem, tmp_path: Path
) -> None:
    with site_on_grid(tmp_path / "cluster", "sge", sge.site_options()) as running:
        dataset = running.submit(jobs=JOBS)
        looks = running.submit(GPU_TASKS, jobs=2)
        until_done(running, dataset, 1)
        victim = a_running_one(sge.grid(), running)
        sge.run("qdel", victim.grid_job_id)
        until_done(running, dataset, 3)
        until_ended(running, victim.grid_job_id)
        waiting = a_running_task(running, tmp_path / "gate")
        sge.stop_controller()
        try:
            (tmp_path / "gate").touch()
            until_done(running, waiting, 1)
        finally:
            sge.start_controller()
        assert running.watch(dataset) == "complete"
        assert running.watch(looks) == "complete"
        running.assert_whole(dataset, TASKS, losses_most=1)
        assert running.counts(looks) == {"complete": 4}
        assert next(row for row in site_rows(running.session))["grid"] == "sge"
        sums = {(row["task"], row["name"]): row["sum"] for row in statistics_rows(running.session, looks)}
        assert sums["look", "gpus"] == 2 and sums["none", "gpus"] == 0
        wait(
            lambda: all(record["phase"] in ("ended", "vanished") for record in running.records()),
            "idle pilots have ended and are accounted for",
            limit_s=150,
        )


def test_a_node_that_dies_right_after_qsub_submits_nothing_twice(sge: SgeSystem, tmp_path: Path) -> None:
    pid_file = tmp_path / "cluster" / "madison" / "data" / "node.pid"
    directory, trigger = trip_wire(tmp_path / "bin", "qsub", pid_file, submits=True)
    for command in ("qstat", "qdel", "qacct", "qconf"):
        (directory / command).symlink_to(f"/usr/bin/{command}")
    with site_on_grid(
        tmp_path / "cluster", "sge", f'bin_directory = "{directory}"\n{sge.site_options()}'
    ) as running:
        trigger.touch()
        dataset = running.submit(jobs=JOBS)
        assert running.first.process is not None
        running.first.process.wait(150)
        noted = {record["pilot"] for record in running.records() if not record["grid_job_id"]}
        (lost,) = noted & {job.tag.grid_job for job in ours(sge.grid(), running) if job.tag is not None}
        running.restart_node()
        assert running.watch(dataset) == "complete"
        running.assert_whole(dataset, TASKS)
        wait(lambda: _has_run(running, lost), "the pilot of the lost answer is known and has enrolled")
        ids = running.grid_job_ids()
        assert len(set(ids)) == len(ids)


def _has_run(running: GridProduction, pilot: str) -> bool:
    found = next(record for record in running.records() if record["pilot"] == pilot)
    return bool(found["grid_job_id"] and found["enrolled_key"])


def test_unmonitored_jobs_run_through_grid_engine_without_a_cluster(sge: SgeSystem, tmp_path: Path) -> None:
    assert_unmonitored_jobs_run(tmp_path / "unmonitored", "sge", sge.site_options())
