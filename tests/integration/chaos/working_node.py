"""A real node that is given work and dies on its way: for tests that kill it at failpoints, over any batch system."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from iceprod_p2p.base import failpoints
from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.node_processes import NodeProcess, task_counts, wait_for

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
          - {name: nap, src: nap.sh, args: "FIFTHS"}
"""

NAP = """\
#!/bin/sh
left=$1
while [ "$left" -gt 0 ] && [ ! -e "HURRY" ]; do sleep 0.2; left=$((left - 1)); done
echo rested >nap.txt
"""
PILOTS_END_S = 3.0  # Pilots without work end after one second.
LONG_S = 240.0  # A nap that is still going on when a test looks, however slow the machine is.


@dataclass
class WorkingNode(NodeProcess):
    """A founder whose pilots come and go: many short ones, two at once.

    Few are submitted at a time: those that a death left noted take the room of others for half a minute.
    """

    plugin: str = "local"
    options: str = "slots = 2\ninterval_s = 0.2"

    def text(self) -> str:
        """The configuration, with the batch system that was asked for."""
        quick = (
            super()
            .text()
            .replace("grid_jobs_max = 1", "grid_jobs_max = 30\nper_submit = 2\nclaims_ahead = 4")
        )
        quick = quick.replace('plugin = "local"', f'plugin = "{self.plugin}"')
        return f"{quick}\n[queue.options]\n{self.options}\n"


class Work:
    """Everything that is submitted: by threads, for the node dies under them and they repeat."""

    def __init__(self, node: WorkingNode) -> None:
        self.node = node
        self._threads = ThreadPoolExecutor(8)
        self.submitted: list[Future[int]] = []
        self._hurry = node.directory / "hurry"
        (node.directory / "nap.sh").write_text(NAP.replace("HURRY", str(self._hurry)))

    def wake(self) -> None:
        """End every nap, and let later ones be short, until `rest`."""
        self._hurry.touch()

    def rest(self) -> None:
        """Let naps be as long as they were submitted."""
        self._hurry.unlink(missing_ok=True)

    def submit(self, *, jobs: int = 1, nap_s: float = 0.2) -> None:
        """Submit one dataset; its number comes when the node has lived long enough to say it."""
        steering = self.node.directory / f"nap-{len(self.submitted)}.yaml"
        steering.write_text(WORK.replace("FIFTHS", str(int(5 * nap_s))))

        def repeat() -> int:
            with self.node.connect(give_up_s=120) as connection:
                return submit_file(connection, steering, jobs=jobs, seed=7).dataset

        self.submitted.append(self._threads.submit(repeat))

    def check(self) -> None:
        """Raise what a submission has ended with, if one has failed: nobody waits for its work in vain."""
        for future in self.submitted:
            if future.done():
                future.result()

    def numbers(self) -> list[int]:
        """The numbers of all datasets."""
        return [future.result(120) for future in self.submitted]


def dies(node: WorkingNode, name: str, *, within_s: float = 240.0) -> None:
    """Wait for the node's death at the failpoint."""
    assert node.process is not None
    try:
        code = node.process.wait(within_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{within_s:g} s without passing {name}:\n{node.log()[-3_000:]}") from None
    assert code == -signal.SIGKILL, node.log()[-3_000:]
    assert f"failpoint {name}: kill" in node.log()


def start_armed(node: WorkingNode, name: str) -> None:
    """Start the node with one failpoint on."""
    node.start(environment={failpoints.VARIABLE: f"{name}=kill"})


def pilots(node: WorkingNode) -> list[psutil.Process]:
    """Its pilots that live."""
    found = []
    for process in node.pilots():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "iceprod_pilot.main" in " ".join(process.cmdline()):
                found.append(process)
    return found


def records(node: WorkingNode) -> list[dict[str, str]]:
    """What the node has noted of its grid jobs."""
    found = []
    for path in (node.data / "pilots").glob("*/grid_job.json"):
        with contextlib.suppress(FileNotFoundError):  # Forgotten meanwhile.
            found.append(json.loads(path.read_text()))
    return found


def works(node: WorkingNode, work: Work, name: str, *, within_s: float = 240.0) -> None:
    """One more dataset, and the death of the node on its way to the end.

    Pilots that outlived the last death may take the dataset as well, and then nothing is submitted, noted or
    enrolled for it: there is another one whenever they have had the time to end.
    """
    start_armed(node, name)
    assert node.process is not None
    end_s = time.monotonic() + within_s
    while node.process.poll() is None and time.monotonic() < end_s:
        work.submit()
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.process.wait(PILOTS_END_S)
        work.check()
    dies(node, name, within_s=1.0)


def control(node: WorkingNode, verb: str) -> None:
    """Drain or resume its site."""
    with node.connect(give_up_s=60) as connection:
        connection.call("ControlSite", control_pb2.ControlSiteRequest(site=node.site, verb=verb))


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
        timeout_s=180,
    )
    ids = [record["grid_job_id"] for record in records(node) if record["grid_job_id"]]
    assert len(set(ids)) == len(ids)
    wait_for("no pilot lives that nobody knows", lambda: not pilots(node), timeout_s=120)
    never = [record["reason"] for record in records(node) if not record["grid_job_id"]]
    assert set(never) <= {"it was never submitted"}, never


def assert_complete(node: WorkingNode, work: Work) -> list[int]:
    """Every dataset that was ever submitted ends complete, and everything of it is there once."""
    numbers = work.numbers()
    assert len(set(numbers)) == len(numbers)
    with node.connect(give_up_s=60) as connection:
        for number in numbers:
            jobs = connection.call("GetDataset", control_pb2.GetDatasetRequest(dataset=str(number))).row.jobs
            wait_for(
                f"dataset {number} is complete",
                lambda number=number, jobs=jobs: task_counts(connection, number) == {"complete": jobs},
                timeout_s=180,
            )
        assert_once(node, connection, numbers)
    return numbers
