"""Our side of the comparison with batch systems: three sites on loopback, whole lives of tasks that run one program.

Each node is the real `iceprod-node` with its store on disk, each site's tasks are run by one real pilot through the
local plugin.  A dataset before the measured one starts the pilots, so that what is measured is work, not starting up.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceprod_cli.commands.dataset import detail_of
from iceprod_cli.demo_cluster import DemoCluster, DemoSite
from iceprod_cli.session import Session

from benchmarks.children import Say
from iceprod_p2p.client.submission import submit_file

PROGRAM: Final = "/bin/true"
POLL_S: Final = 0.1
LIMIT_S: Final = 150.0
STEERING: Final = """\
version: 3.2
tasks:
  - name: spawn
    requirements: {cpu: 1, memory: 0.016, disk: 0.016, time: 0.1}
    trays:
      - modules:
          - name: spawn
            class: Executable
            parameters: {executable: %s}
"""


@dataclass(frozen=True, slots=True)
class Lives:
    """So many tasks went through their whole life in so many seconds."""

    tasks: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds


class Sites(DemoCluster):
    """Three sites whose pilots run `slots` tasks at once."""

    def __init__(self, directory: Path, *, slots: int, say: Say) -> None:
        super().__init__(directory, sites=3, slots=slots, say=say)

    def site_toml(self, site: DemoSite) -> str:
        return f"""
[node]
site = "{site.name}"
id = "{site.name}-1"
cluster = "demo"
data_dir = "{site.directory / "data"}"
listen = "{site.address}"
enrol_listen = "{site.enrol_address}"
claim_interval_s = 0.1

[queue]
plugin = "local"
isolation = "none"
grid_jobs_max = 1
interval_s = 1
idle_end_s = 120
claims_ahead = 1

[queue.options]
slots = {self._slots}

[[queue.class]]
name = "cpu"
slots = {self._slots}
memory_mib = 64
disk_mib = 64
"""


def measure(directory: Path, *, tasks: int, slots: int, say: Say) -> Lives:
    """Run `tasks` tasks to their recorded ends; RuntimeError when they do not end well, or not in time."""
    cluster = Sites(directory, slots=slots, say=say)
    steering = directory / "spawn.yaml"
    steering.write_text(STEERING % PROGRAM, encoding="utf-8")
    try:
        cluster.found()
        with closing(Session(context_name=f"{cluster.context_directory}/")) as session:
            _complete(session, steering, 3 * slots * 20)
            say("pilots run")
            return _complete(session, steering, tasks)
    finally:
        cluster.stop()


def _complete(session: Session, steering: Path, tasks: int) -> Lives:
    began_s = time.perf_counter()
    dataset = str(submit_file(session.connection, steering, jobs=tasks, seed=1311).dataset)
    while True:
        counts = {count.state: count.count for count in detail_of(session, dataset).row.tasks if count.count}
        took_s = time.perf_counter() - began_s
        if counts == {"complete": tasks}:
            break
        if took_s > LIMIT_S:
            raise RuntimeError(f"after {took_s:.0f} s not all of {tasks} tasks are complete: {counts}")
        time.sleep(POLL_S)
    return Lives(tasks, took_s)
