"""Productions on worker nodes that share no file system with the node: pilots come as bundles."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.grids.base import Completed
from iceprod_p2p.grids.request import GridRequest, Tag
from iceprod_p2p.site import bundle
from tests.grids.behaviour import Work
from tests.grids.conftest import PACKAGES, reachable_python
from tests.grids.htcondor_system import HtcondorSystem
from tests.grids.site_on_grid import GridProduction, site_on_grid, wait
from tests.grids.slurm_system import SlurmSystem
from tests.grids.users import USER, user_ids

JOBS = 1
TASKS = 7 * JOBS
PHYSICS = {
    "PYTHONPATH": str(PACKAGES)
}  # What the site's worker nodes have for payloads; pilots have none of it.

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def pool() -> Iterator[HtcondorSystem]:
    made = HtcondorSystem(jobs_as_nobody=True)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of this host alone."""
    return tmp_path_factory.mktemp("apart")


@pytest.fixture(scope="module")
def slurm(apart: Path) -> Iterator[SlurmSystem]:
    made = SlurmSystem(hidden=apart, kill_wait_s=20)
    made.start()
    yield made
    made.stop()


LONG = """
version: 3.2
tasks:
  - name: long
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.2}
    trays:
      - modules:
          - {name: long, src: long.sh}
"""


def worker_lines(slurm: SlurmSystem) -> str:
    """What a site says of these worker nodes; the bundle is laid where they see it."""
    program = slurm.root / bundle.FILE_NAME
    if not program.exists():
        bundle.write_file(bundle.gather(), program)
    python = reachable_python(os.getuid(), os.getgid())
    return f'shared_directory = false\nworker_bundle = "{program}"\nworker_python = "{python}"'


def complete(running: GridProduction) -> None:
    dataset = running.submit(jobs=JOBS)
    assert running.watch(dataset) == "complete"
    running.assert_whole(dataset, TASKS)
    wait(lambda: all(record["phase"] == "ended" for record in running.records()), "pilots have ended")


def scratches(directory: Path) -> list[str]:
    """The pilots whose scratch lies in a directory, as far as it is not just being removed: others may work there."""
    found = []
    for path in directory.glob("iceprod-????????/pilot.json"):
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(path.read_text())["pilot"])
    return found


def test_htcondor_carries_the_bundle_and_nobody_runs_it(pool: HtcondorSystem, place: Path) -> None:
    """The node's directory is its user's alone, and jobs are the user nobody's: all comes by file transfer."""
    account = user_ids(USER)
    lines = f'shared_directory = false\nworker_python = "{reachable_python(*account)}"'
    with site_on_grid(
        place / "cluster",
        "htcondor",
        pool.site_options(),
        owner=account,
        queue_lines=lines,
        variables=PHYSICS,
    ) as running:
        complete(running)
        logs = [path.read_text() for path in running.first.directory.glob("data/pilots/*/grid/grid.err")]
        nobody, _ = user_ids("nobody")
        started = [line for log in logs for line in log.splitlines() if "pilot starts" in line]
        assert started and all(f"uid={nobody}" in line for line in started), logs


def test_slurm_scripts_carry_the_secret_and_worker_nodes_have_the_bundle(
    slurm: SlurmSystem, apart: Path
) -> None:
    lines = worker_lines(slurm)
    options = f'{slurm.site_options()}worker_log = "{slurm.root}/pilot-%j.log"\n'
    with site_on_grid(apart / "cluster", "slurm", options, queue_lines=lines, variables=PHYSICS) as running:
        complete(running)
        logs = list(slurm.root.glob("pilot-*.log"))
        assert logs and all("pilot ends" in path.read_text() for path in logs)
        pilots = {record["pilot"] for record in running.records()}
        assert pilots
        wait(lambda: not pilots & set(scratches(Path("/tmp"))), "the scratch of every pilot is cleared")
    slurm.cancel_all()


def test_a_cancelled_pilot_of_two_slots_gives_its_tasks_back_and_leaves_nothing(
    slurm: SlurmSystem, apart: Path
) -> None:
    """Slurm warns by TERM; within its grace the pilot reports, ends what runs, and clears its scratch."""
    (apart / "long").mkdir()
    steering = apart / "long" / "long.yaml"
    steering.write_text(LONG)
    (apart / "long" / "long.sh").write_text("#!/bin/sh\nsleep 300\n")
    scratch = slurm.root / "scratch"
    scratch.mkdir()
    lines = worker_lines(slurm) + "\ngrace_s = 4"
    options = f'{slurm.site_options()}worker_log = "{slurm.root}/ended-%j.log"\n'
    environment = (
        f'environment = {{ SLURM_CONF = "{slurm.environment["SLURM_CONF"]}", TMPDIR = "{scratch}" }}\n'
    )
    options = environment + options.partition("\n")[2]
    with site_on_grid(apart / "ended", "slurm", options, queue_lines=lines, slots=2) as running:
        dataset = running.submit(steering, jobs=2)
        wait(lambda: running.counts(dataset).get("processing") == 2, "both tasks run", limit_s=150)
        (pilot,) = [record for record in running.records() if record["phase"] == "running"]
        wait(lambda: bool(list(scratch.glob("iceprod-*/work/*/*/work"))), "a task has a directory")
        slurm.run("scancel", pilot["grid_job_id"])
        log = slurm.root / f"ended-{pilot['grid_job_id']}.log"
        wait(lambda: log.exists() and "pilot ends" in log.read_text(), "the pilot has ended in peace")
        said = [row["message"] for row in running.tasks(dataset)]
        assert all("had to end" in message for message in said), said
        wait(lambda: pilot["pilot"] not in scratches(scratch), "its scratch is cleared")
    slurm.cancel_all()


def test_a_slurm_script_carries_a_whole_bundle_where_slurm_takes_it(slurm: SlurmSystem, apart: Path) -> None:
    program = bundle.kept_file(apart / "made")
    request = GridRequest(
        Tag("apart", "p1"),
        reachable_python(os.getuid(), os.getgid()),
        str(apart / "work"),
        (program.name, "--version"),
        files_in=(str(program),),
        carry=True,
    )
    (refused,) = slurm.grid().submit([request])
    assert "max_script_size" in refused.reason  # type: ignore[union-attr]
    grid = slurm.grid(script_mib_max=32, worker_log=f"{slurm.root}/version.log")
    work = Work(slurm, apart, "apart")
    work.grid = grid
    (grid_job_id,) = work.submit(request)
    assert work.until_ended([grid_job_id])[grid_job_id].state == Completed(0)
    assert "iceprod-pilot" in (slurm.root / "version.log").read_text()
