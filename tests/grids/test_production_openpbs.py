"""The physics production through pilots of a real OpenPBS, by a node and pilots that are an ordinary user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from iceprod_cli.commands.dataset import statistics_rows
from iceprod_cli.commands.site import site_rows

from tests.grids.conftest import reachable_python
from tests.grids.openpbs_system import OpenPbsSystem
from tests.grids.site_on_grid import (
    GPU_TASKS,
    a_running_one,
    a_running_task,
    site_on_grid,
    until_done,
    until_ended,
    wait,
)
from tests.grids.test_production_carried import PHYSICS, complete
from tests.grids.users import USER, user_ids

JOBS = 3
TASKS = 7 * JOBS

pytestmark = [pytest.mark.unpackaged, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def openpbs() -> Iterator[OpenPbsSystem]:
    made = OpenPbsSystem()
    made.start()
    yield made
    made.stop()


def test_a_users_production_runs_through_openpbs_whose_server_stops_and_whose_pilots_are_deleted(
    openpbs: OpenPbsSystem, place: Path
) -> None:
    with site_on_grid(place / "cluster", "pbs", openpbs.site_options(), owner=user_ids(USER)) as running:
        dataset = running.submit(jobs=JOBS)
        looks = running.submit(GPU_TASKS, jobs=2)
        until_done(running, dataset, 1)
        victim = a_running_one(openpbs.grid(), running)
        openpbs.run("qdel", victim.grid_job_id)
        until_done(running, dataset, 3)
        until_ended(running, victim.grid_job_id)
        waiting = a_running_task(running, place / "gate")
        openpbs.stop_controller()
        try:
            (place / "gate").touch()
            until_done(running, waiting, 1)
        finally:
            openpbs.start_controller()
        assert running.watch(dataset) == "complete"
        assert running.watch(looks) == "complete"
        running.assert_whole(dataset, TASKS, losses_most=1)
        assert running.counts(looks) == {"complete": 4}
        assert next(row for row in site_rows(running.session))["grid"] == "pbs"
        sums = {(row["task"], row["name"]): row["sum"] for row in statistics_rows(running.session, looks)}
        assert sums["look", "gpus"] == 2 and sums["none", "gpus"] == 0
        wait(
            lambda: all(record["phase"] == "ended" for record in running.records()),
            "idle pilots have ended and are accounted for",
            limit_s=90,
        )


def test_the_script_carries_the_whole_bundle_to_worker_nodes(openpbs: OpenPbsSystem, place: Path) -> None:
    """The node's directory is out of the pilots' reach as far as they know: they get all by their script."""
    account = user_ids(USER)
    lines = f'shared_directory = false\nworker_python = "{reachable_python(*account)}"'
    options = openpbs.site_options() + f'worker_log = "{openpbs.root}/work/pilot-%j.log"\n'
    (openpbs.root / "work").mkdir()
    (openpbs.root / "work").chmod(0o777)
    with site_on_grid(
        place / "cluster", "pbs", options, owner=account, queue_lines=lines, variables=PHYSICS
    ) as running:
        complete(running)
        logs = list((openpbs.root / "work").glob("pilot-*.log"))
        assert logs and all("pilot ends" in path.read_text() for path in logs)
        assert not list(running.first.directory.glob("data/pilots/*/grid/grid.err"))
