"""The physics production through pilots of a real HTCondor, by a node and pilots that are an ordinary user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from iceprod_cli.commands.dataset import statistics_rows
from iceprod_cli.commands.site import site_rows

from tests.grids.htcondor_system import HtcondorSystem
from tests.grids.site_on_grid import GPU_TASKS, GridProduction, site_on_grid, until_done, wait
from tests.grids.users import USER, user_ids

JOBS = 3
TASKS = 7 * JOBS

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def pool() -> Iterator[HtcondorSystem]:
    made = HtcondorSystem()
    made.start()
    yield made
    made.stop()


def test_a_users_production_runs_through_htcondor_whose_schedd_stops_and_whose_pilots_are_removed(
    pool: HtcondorSystem, place: Path
) -> None:
    with site_on_grid(place / "cluster", "htcondor", pool.site_options(), owner=user_ids(USER)) as running:
        dataset = running.submit(jobs=JOBS)
        looks = running.submit(GPU_TASKS, jobs=2)
        until_done(running, dataset, 1)
        # One that was noted to run may have ended since.
        wait(lambda: any(pool.removes(one) for one in _running(running)), "a running pilot is removed")
        until_done(running, dataset, 3)
        pool.stop_controller()
        pool.start_controller()
        assert running.watch(dataset) == "complete"
        assert running.watch(looks) == "complete"
        # The victim's task, and those of pilots that lost their schedd.
        running.assert_whole(dataset, TASKS, losses_most=5)
        assert running.counts(looks) == {"complete": 4}
        assert next(row for row in site_rows(running.session))["grid"] == "htcondor"
        _assert_gpus(running, looks)
        wait(
            lambda: all(record["phase"] == "ended" for record in running.records()),
            "idle pilots have ended and are accounted for",
            limit_s=150,
        )


def _running(running: GridProduction) -> list[str]:
    return [record["grid_job_id"] for record in running.records() if record["phase"] == "running"]


def _assert_gpus(running: GridProduction, dataset: str) -> None:
    sums = {(row["task"], row["name"]): row["sum"] for row in statistics_rows(running.session, dataset)}
    assert sums["look", "gpus"] == 2 and sums["none", "gpus"] == 0
