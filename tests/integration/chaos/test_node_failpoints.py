"""A node dies at each durable step of its site's work while it runs a production, and comes back: every dataset ends
complete, once, and the batch system has every grid job once.

One node, one production: it is started with one failpoint on, given more work, dies there, is started with the
next one.  What the crash left unclear is cleared up while the next crashes happen.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from iceprod_p2p.base import failpoints
from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.wire.pb import control_pb2
from tests.integration import recovery_cluster
from tests.integration.chaos import test_failpoints, test_founding_failpoints
from tests.integration.node_processes import NodeProcess, leads, task_counts, wait_for
from tests.integration.test_people import PASSWORD, Cluster

pytestmark = [pytest.mark.timeout(600)]
WORK = """\
version: 3.2
description: Take a while, and leave something behind
tasks:
  - name: nap
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.1}
    data:
      - {type: permanent, movement: output, remote: nap.txt, local: nap.txt}
    trays:
      - modules:
          - {name: nap, src: nap.sh, args: "SECONDS"}
"""
PASSED_BY_WORK = (  # In about the order in which one dataset passes them.
    "submit.propose.before",
    "submit.propose.after",
    "volunteer.claim.after",
    "keeper.note.before",
    "keeper.submit.before",
    "local.add.before",
    "local.add.after",
    "keeper.submit.after",
    "keeper.find.before",
    "keeper.note.after",
    "enrol.pilot.before",
    "enrol.pilot.after",
    "pilot.start.before",
    "pilot.start.after",
    "blob.sync.before",
    "blob.rename.before",
    "blob.rename.after",
    "blob.sync.after",
    "pilot.report.before",
    "pilot.report.after",
    "file.rename.before",
    "file.rename.after",
    "keeper.end.before",
    "keeper.end.after",
    "keeper.forget.before",
)
PASSED_ELSEWHERE = (
    "lost.settle.before",
    "keeper.remove.before",
    "keeper.remove.after",
    "issued.note.before",
    "issued.note.after",
    "blob.delete.before",
)
ORPHAN = "0" * 64  # No record names it.


class WorkingNode(NodeProcess):
    """A founder whose pilots come and go: many short ones, two at once."""

    def text(self) -> str:
        quick = super().text().replace("grid_jobs_max = 1", "grid_jobs_max = 12\nclaims_ahead = 4")
        return f"{quick}\n[queue.options]\nslots = 2\ninterval_s = 0.2\n"


class Work:
    """Everything that is submitted: by threads, for the node dies under them and they repeat."""

    def __init__(self, node: WorkingNode) -> None:
        self.node = node
        self._threads = ThreadPoolExecutor(8)
        self.submitted: list[Future[int]] = []
        (node.directory / "nap.sh").write_text('#!/bin/sh\nsleep "$1"\necho rested >nap.txt\n')

    def submit(self, *, jobs: int = 1, nap_s: float = 0.1) -> None:
        """Submit one dataset; its number comes when the node has lived long enough to say it."""
        steering = self.node.directory / f"nap-{len(self.submitted)}.yaml"
        steering.write_text(WORK.replace("SECONDS", str(nap_s)))

        def repeat() -> int:
            with self.node.connect(give_up_s=120) as connection:
                return submit_file(connection, steering, jobs=jobs, seed=7).dataset

        self.submitted.append(self._threads.submit(repeat))

    def numbers(self) -> list[int]:
        """The numbers of all datasets."""
        return [future.result(120) for future in self.submitted]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WorkingNode]:
    made = WorkingNode(tmp_path / "madison", "madison", slots=1, idle_end_s=1, site_grace_s=60)
    assert made.command("init").returncode == 0
    yield made
    made.end()


def dies(node: WorkingNode, name: str, *, within_s: float = 60.0) -> None:
    """Wait for the node's death at the failpoint."""
    assert node.process is not None
    assert node.process.wait(within_s) == -signal.SIGKILL, node.log()[-3_000:]
    assert f"failpoint {name}: kill" in node.log()[-400:]


def start_armed(node: WorkingNode, name: str) -> None:
    node.start(environment={failpoints.VARIABLE: f"{name}=kill"})


def pilots(node: WorkingNode) -> list[psutil.Process]:
    found = []
    for process in node.pilots():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "iceprod_pilot.main" in " ".join(process.cmdline()):
                found.append(process)
    return found


def records(node: WorkingNode) -> list[dict[str, str]]:
    """What the node has noted of its grid jobs."""
    return [json.loads(path.read_text()) for path in (node.data / "pilots").glob("*/grid_job.json")]


def works(node: WorkingNode, work: Work, name: str) -> None:
    """One more dataset, and the death of the node on its way to the end."""
    start_armed(node, name)
    work.submit()
    dies(node, name)


def loses_pilots(node: WorkingNode, work: Work, name: str) -> None:
    """Pilots die with their node; what they ran is reported lost, and run again."""
    node.start()
    work.submit(nap_s=4)
    with node.connect(give_up_s=60) as connection:
        number = work.submitted[-1].result(60)
        wait_for("it runs", lambda: task_counts(connection, number) == {"processing": 1}, timeout_s=60)
    node.kill()
    for pilot in pilots(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (*pilot.children(recursive=True), pilot):
                process.kill()
    start_armed(node, name)
    dies(node, name)


def removes(node: WorkingNode, work: Work) -> None:
    """A site that drains takes its queued pilots back."""
    start_armed(node, "keeper.remove.before")
    work.submit(jobs=5, nap_s=8)  # Two run, the others' pilots wait for room.

    def queued() -> bool:
        return any(record["phase"] == "queued" and record["grid_job_id"] for record in records(node))

    with node.connect(give_up_s=60) as connection:
        number = work.submitted[-1].result(60)
        wait_for(
            "two of five run", lambda: task_counts(connection, number).get("processing") == 2, timeout_s=60
        )
        wait_for("others wait", queued)
        control(node, "drain")
        dies(node, "keeper.remove.before")
        start_armed(node, "keeper.remove.after")
        dies(node, "keeper.remove.after")


def control(node: WorkingNode, verb: str) -> None:
    with node.connect(give_up_s=60) as connection:
        connection.call("ControlSite", control_pb2.ControlSiteRequest(site=node.site, verb=verb))


def logs_in(node: WorkingNode) -> None:
    """A certificate that was issued is noted before anybody has it."""
    people = Cluster(node, node, node.directory)
    line = people.account("eve").split()
    for name in ("issued.note.before", "issued.note.after"):
        start_armed(node, name)
        with node.connect(give_up_s=60) as connection:
            wait_for("it leads", lambda connection=connection: leads(connection))
        assert people.login("eve", *line, password=PASSWORD).returncode != 0
        dies(node, name)
    node.start()
    with node.connect(give_up_s=60) as connection:
        wait_for("it leads", lambda: leads(connection))
    assert people.login("eve", *line, password=PASSWORD).returncode == 0
    assert (node.data / "authority" / "issued").read_text().count(" eve\n") == 2, "the first was never noted"
    node.kill()


def cleans_up(node: WorkingNode) -> None:
    orphan = node.data / "blobs" / ORPHAN[:2] / ORPHAN[2:4] / ORPHAN
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"left by an upload whose report never came")
    two_days_ago_s = time.time() - 2 * 86_400
    os.utime(orphan, (two_days_ago_s, two_days_ago_s))
    start_armed(node, "blob.delete.before")
    dies(node, "blob.delete.before")
    assert orphan.exists()
    node.start()
    wait_for("what nobody needs is gone", lambda: not orphan.exists())


def test_a_site_that_dies_at_every_durable_step_ends_its_production_complete_and_once(
    node: WorkingNode,
) -> None:
    work = Work(node)
    for name in PASSED_BY_WORK:
        began_s = time.monotonic()
        works(node, work, name)
        print(f"{name}: {time.monotonic() - began_s:.1f} s", flush=True)
    loses_pilots(node, work, "lost.settle.before")
    removes(node, work)
    logs_in(node)
    cleans_up(node)
    control(node, "resume")
    numbers = work.numbers()
    assert len(set(numbers)) == len(numbers)
    with node.connect(give_up_s=60) as connection:
        for number in numbers:
            jobs = connection.call("GetDataset", control_pb2.GetDatasetRequest(dataset=str(number))).row.jobs
            wait_for(
                f"dataset {number} is complete",
                lambda number=number, jobs=jobs: task_counts(connection, number) == {"complete": jobs},
                timeout_s=120,
            )
        assert_once(node, connection, numbers)
    print(f"{len(numbers)} datasets complete and once across {len(PASSED_BY_WORK) + 6} crashes")


def assert_once(node: WorkingNode, connection: Connection, numbers: list[int]) -> None:
    """No dataset, file or grid job is there twice, and none is lost."""
    listed = connection.call("ListDatasets", control_pb2.ListDatasetsRequest(limit=1_000)).datasets
    assert len(listed) == len(numbers), "a repeated submission made a dataset of its own"
    assert list(connection.call("CheckCluster", control_pb2.CheckClusterRequest()).violations) == []
    for number in numbers:
        request = control_pb2.ListFilesRequest(dataset=str(number), job=-2)
        names = [(file.job, file.name) for file in connection.call("ListFiles", request).files]
        assert len(set(names)) == len(names) and names, names
        verified = connection.stream(
            "VerifyFiles", control_pb2.VerifyFilesRequest(dataset=str(number), job=-2)
        )
        assert all(reply.good for reply in verified)
    wait_for(
        "every pilot is accounted for",
        lambda: all(record["phase"] == "ended" and record["settled"] for record in records(node)),
        timeout_s=90,
    )
    ids = [record["grid_job_id"] for record in records(node) if record["grid_job_id"]]
    assert len(set(ids)) == len(ids)
    wait_for("no pilot lives that nobody knows", lambda: not pilots(node))
    never = [record["reason"] for record in records(node) if not record["grid_job_id"]]
    assert set(never) <= {"it was never submitted"}, never


def test_every_failpoint_has_a_scene_in_which_a_real_process_dies_there() -> None:
    scenes = {
        *test_failpoints.SCENES,
        *test_founding_failpoints.FOUNDING,
        *test_founding_failpoints.JOINING,
        *test_founding_failpoints.ADMITTING,
        *PASSED_BY_WORK,
        *PASSED_ELSEWHERE,
        *recovery_cluster.REJOINING,
        *recovery_cluster.RESTORING,
    }
    assert scenes == set(failpoints.NAMES)
