"""A node dies at each step of its dealings with a real Slurm: no grid job is lost, none is submitted twice."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import Unavailable
from tests.grids.owners import owner_of
from tests.grids.slurm_system import SlurmSystem
from tests.integration.chaos.working_node import (
    PILOTS_END_S,
    Work,
    WorkingNode,
    assert_complete,
    control,
    dies,
    records,
    start_armed,
    works,
)
from tests.integration.node_processes import wait_for

pytestmark = [pytest.mark.timeout(600)]
CRASHES = (  # "find" is passed by the start after the one before: the batch system had taken the job.
    "keeper.note.before",
    "keeper.submit.before",
    "keeper.submit.after",
    "keeper.find.before",
    "keeper.note.after",
    "enrol.pilot.after",
    "keeper.end.before",
    "keeper.end.after",
    "keeper.forget.before",
)


@pytest.fixture
def slurm() -> Iterator[SlurmSystem]:
    """One of its own for each try: Slurm lists ended grid jobs for minutes."""
    made = SlurmSystem()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def node(slurm: SlurmSystem, tmp_path: Path) -> Iterator[WorkingNode]:
    made = WorkingNode(
        tmp_path / "madison",
        "madison",
        slots=1,
        idle_end_s=1,
        site_grace_s=60,
        plugin="slurm",
        options=slurm.site_options(),
    )
    assert made.command("init").returncode == 0
    yield made
    made.end()
    slurm.cancel_all()


def test_no_crash_between_noting_submitting_and_ending_costs_or_doubles_a_grid_job(
    node: WorkingNode, slurm: SlurmSystem
) -> None:
    work = Work(node)
    for name in CRASHES:
        works(node, work, name)
    removes(node, work, slurm)
    node.start()
    control(node, "resume")
    assert_complete(node, work)
    jobs = slurm.grid().our_jobs(owner_of(node.config))
    assert jobs and len({job.tag for job in jobs}) == len(jobs), "a pilot was submitted twice"
    known = {record["grid_job_id"] for record in records(node)}
    assert {job.grid_job_id for job in jobs} <= known, "Slurm has a grid job that the site does not know"


def waits(node: WorkingNode, slurm: SlurmSystem) -> bool:
    """Whether Slurm has a grid job that it has not started and that the site knows to wait."""
    pending = slurm.run("squeue", "--noheader", "--states=PENDING", "--format=%i").split()
    return any(record["phase"] == "queued" and record["grid_job_id"] in pending for record in records(node))


def removes(node: WorkingNode, work: Work, slurm: SlurmSystem) -> None:
    """A site that drains takes back what Slurm has not started, once.

    A pilot that outlived the last death may take what is submitted: there is more whenever it has had the time to
    end, until one waits.
    """
    slurm.run("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=test")  # New grid jobs wait.
    start_armed(node, "keeper.remove.before")
    end_s = time.monotonic() + 120
    while not waits(node, slurm):
        assert time.monotonic() < end_s, f"no pilot waits in Slurm: {records(node)}"
        work.submit(jobs=2)
        work.submitted[-1].result(120)
        with contextlib.suppress(AssertionError):
            wait_for("a pilot waits in Slurm", lambda: waits(node, slurm), timeout_s=2 * PILOTS_END_S)
    with contextlib.suppress(Unavailable):  # It may be dead before it could answer.
        control(node, "drain")
    dies(node, "keeper.remove.before")
    start_armed(node, "keeper.remove.after")
    dies(node, "keeper.remove.after")
    slurm.run("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
