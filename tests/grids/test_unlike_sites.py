"""One dataset over four sites, each on another real batch system, with a dead node and a dead master in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from iceprod_p2p.wire.pb import control_pb2
from tests.grids.htcondor_system import HtcondorSystem
from tests.grids.sge_system import SgeSystem
from tests.grids.site_on_grid import GridProduction, until_done
from tests.grids.slurm_system import SlurmSystem
from tests.grids.users import USER, user_ids

JOBS = 8
TASKS = 7 * JOBS

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture
def systems() -> Iterator[tuple[SlurmSystem, SgeSystem, HtcondorSystem]]:
    """The three, started one after the other: together in some fifteen seconds."""
    made = (SlurmSystem(), SgeSystem(), HtcondorSystem())
    with ExitStack() as stack:
        for system in made:
            system.start()
            stack.callback(system.stop)
        yield made


def tried(running: GridProduction, site: str) -> set[str]:
    """How the steps of a test of a site's batch system went, asked of another site's node."""
    request = control_pb2.TestSiteRequest(site=site, wait_s=100)
    steps = list(running.session.connection.stream("TestSite", request))
    assert "worker" in {step.name for step in steps}, steps
    return {step.result for step in steps}


def test_one_dataset_crosses_four_batch_systems_and_survives_the_loss_of_two(
    systems: tuple[SlurmSystem, SgeSystem, HtcondorSystem], place: Path
) -> None:
    slurm, sge, htcondor = systems
    queues = {
        "madison": ("slurm", slurm.site_options()),
        "zeuthen": ("sge", sge.site_options()),
        "uppsala": ("htcondor", htcondor.site_options()),
    }
    running = GridProduction(place / "cluster", queues, sites=4, owner=user_ids(USER))
    try:
        running.found()
        dataset = running.submit(jobs=JOBS)
        until_done(running, dataset, 3)
        sge.stop_controller()
        running.kill_node()
        until_done(running, dataset, min(TASKS, running.done(dataset) + 2))  # The others may be that fast.
        sge.start_controller()
        running.restart_node()
        assert running.watch(dataset) == "complete"
        running.assert_whole(dataset, TASKS, losses_most=TASKS)
        rows = running.tasks(dataset)
        assert len({row["site"] for row in rows}) >= 3, rows
        assert "brussels" not in {row["site"] for row in rows if row["name"] == "photons"}
        for site in (*queues, "brussels"):
            assert tried(running, site) <= {"ok", "warning"}, site
    except BaseException:
        for site in running.cluster.sites:
            log = site.directory / "node.log"
            print(
                f"--- {site.name} ---",
                log.read_text(errors="replace")[-4_000:] if log.exists() else "",
                sep="\n",
            )
        raise
    finally:
        running.stop()
