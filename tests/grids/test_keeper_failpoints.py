"""The keeper's hardest steps again on a real Grid Engine, a real HTCondor and (where there is one) a real OpenPBS,
which remember ended jobs elsewhere than Slurm: no grid job is lost, none is submitted twice.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.grids.base import Tag
from tests.grids.htcondor_system import HtcondorSystem
from tests.grids.openpbs_system import OpenPbsSystem
from tests.grids.owners import owner_of
from tests.grids.sge_system import SgeSystem
from tests.grids.users import USER, user_ids
from tests.integration.chaos.working_node import Work, WorkingNode, assert_complete, records, works
from tests.integration.node_processes import wait_for

pytestmark = [pytest.mark.timeout(600)]
CRASHES = (  # "find" is passed by the start after the one before: the batch system had taken the job.
    "keeper.submit.after",
    "keeper.find.before",
    "keeper.end.before",
    "keeper.forget.before",
)


@pytest.fixture
def sge() -> Iterator[SgeSystem]:
    """One of its own for each try, as it remembers what ended."""
    made = SgeSystem()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def pool() -> Iterator[HtcondorSystem]:
    """One of its own for each try, as it remembers what ended."""
    made = HtcondorSystem()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def openpbs() -> Iterator[OpenPbsSystem]:
    """One of its own for each try, as it remembers what ended."""
    made = OpenPbsSystem()
    made.start()
    yield made
    made.stop()


def dies_at_each_step(node: WorkingNode, system: SgeSystem | HtcondorSystem | OpenPbsSystem) -> None:
    """Kill the node on its way through several datasets; in the end each pilot was one grid job, and is known."""
    try:
        assert node.command("init").returncode == 0
        work = Work(node)
        for name in CRASHES:
            works(node, work, name)
        node.start()
        assert_complete(node, work)
        submitted = {r["pilot"]: r["grid_job_id"] for r in records(node) if r["grid_job_id"]}
        tags = [tag for record in records(node) if (tag := Tag.parse(record["tag"]))]
        grid = system.grid()
        found = wait_for(
            "the batch system tells of every pilot that it had",
            lambda: len(seen := grid.find_by_tag(tags)) >= len(submitted) and seen,
        )
        assert {tag.grid_job: job.grid_job_id for tag, job in found.items()} == submitted
        left = {job.grid_job_id for job in grid.our_jobs(owner_of(node.config))}
        assert left <= set(submitted.values()), "there is a grid job that the site does not know"
    finally:
        node.end()


def make_node(directory: Path, plugin: str, options: str) -> WorkingNode:
    """A site of one slot per pilot on a batch system."""
    return WorkingNode(
        directory, "madison", slots=1, idle_end_s=1, site_grace_s=60, plugin=plugin, options=options
    )


def test_no_crash_around_a_submission_or_an_end_costs_or_doubles_a_job_of_grid_engine(
    sge: SgeSystem, tmp_path: Path
) -> None:
    dies_at_each_step(make_node(tmp_path / "madison", "sge", sge.site_options()), sge)


def test_no_crash_around_a_submission_or_an_end_costs_or_doubles_a_job_of_htcondor(
    pool: HtcondorSystem, place: Path
) -> None:
    node = make_node(place / "madison", "htcondor", pool.site_options())
    os.chown(node.directory, *user_ids(USER))
    shutil.chown(node.config, USER, USER)
    dies_at_each_step(node, pool)


@pytest.mark.unpackaged
def test_no_crash_around_a_submission_or_an_end_costs_or_doubles_a_job_of_openpbs(
    openpbs: OpenPbsSystem, place: Path
) -> None:
    node = make_node(place / "madison", "pbs", openpbs.site_options())
    os.chown(node.directory, *user_ids(USER))
    shutil.chown(node.config, USER, USER)
    dies_at_each_step(node, openpbs)
