"""Real sites whose pilots run through a real batch system: what they are configured with, and how to trip them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iceprod_cli.commands.site import site_rows
from iceprod_cli.demo_cluster import DemoCluster, DemoSite

from iceprod_p2p.grids.base import Grid, GridJobStatus, Running
from tests.grids.arc_system import ArcSystem
from tests.grids.conftest import PACKAGES, reachable_python
from tests.grids.daemons import until
from tests.grids.owners import owner_of
from tests.grids.users import USER, user_ids
from tests.integration.production import Production

GPU_TASKS = Path(__file__).parent / "gpu_tasks" / "gpu_tasks.yaml"
NODE_LOG = "node.log"
GATED = """
version: 3.2
tasks:
  - name: gated
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.2}
    trays:
      - modules:
          - {name: gated, src: gated.sh}
"""


class GridCluster(DemoCluster):
    """Like the demonstration's, with another batch system at the sites that `queues` names.

    `queues` has, per site, the plugin and the text of `[queue.options]`.
    """

    def __init__(
        self,
        directory: Path,
        queues: Mapping[str, tuple[str, str]],
        *,
        sites: int,
        owner: tuple[int, int] | None = None,
        queue_lines: str = "",
        variables: Mapping[str, str] | None = None,
        slots: int = 1,
    ) -> None:
        """`owner` is the user and group whose the sites' directories are; without, our own.

        `queue_lines` go into [queue]; `variables` are the site's for its payloads.
        """
        self._queue_lines = queue_lines
        self._slots_of_cpu = slots
        lines = [f'{name} = "{value}"' for name, value in (variables or {}).items()]
        self._environment = "\n".join(["[environment.variables]", *lines])
        super().__init__(directory, sites=sites, slots=1, say=print)
        self._queues = queues
        self._owner = owner
        if owner:
            directory.chmod(0o755)

    def site_toml(self, site: DemoSite) -> str:
        if self._owner:
            os.chown(site.directory, *self._owner)
        if site.name not in self._queues:
            return super().site_toml(site)
        plugin, options = self._queues[site.name]
        return f"""
[node]
site = "{site.name}"
id = "{site.name}-1"
cluster = "demo"
data_dir = "{site.directory / "data"}"
listen = "{site.address}"
enrol_listen = "{site.enrol_address}"
site_grace_s = 60
heartbeat_s = 2
claim_interval_s = 0.3
pilot_poll_s = 0.5

[queue]
plugin = "{plugin}"
grid_jobs_max = 4
interval_s = 1
idle_end_s = 8
claims_ahead = 1
{self._queue_lines}

[queue.options]
{options}

[[queue.class]]
name = "cpu"
slots = {self._slots_of_cpu}
memory_mib = 1200
disk_mib = 200
walltime_s = 2400
pilots_max = 2

[[queue.class]]
name = "gpu"
gpus = 1
memory_mib = 1200
disk_mib = 200
walltime_s = 2400
pilots_max = 2

[system]
attributes = ["cpu-site", "gpu-site"]
{self._environment}
"""


class GridProduction(Production):
    """A cluster whose first site, at least, speaks to a real batch system."""

    def __init__(
        self,
        directory: Path,
        queues: Mapping[str, tuple[str, str]],
        *,
        sites: int,
        owner: tuple[int, int] | None = None,
        queue_lines: str = "",
        variables: Mapping[str, str] | None = None,
        slots: int = 1,
    ) -> None:
        super().__init__(directory, sites=sites)
        self.cluster = GridCluster(
            directory,
            queues,
            sites=sites,
            owner=owner,
            queue_lines=queue_lines,
            variables=variables,
            slots=slots,
        )

    @property
    def first(self) -> DemoSite:
        """The site on the batch system."""
        return self.cluster.sites[0]

    def records(self) -> list[dict[str, Any]]:
        """What the first site has noted of its grid jobs."""
        pilots = self.first.directory / "data" / "pilots"
        return [json.loads(path.read_text()) for path in sorted(pilots.glob("*/grid_job.json"))]

    def kill_node(self) -> None:
        """Kill the first site's node and nothing else."""
        assert self.first.process is not None
        self.first.process.kill()
        self.first.process.wait()

    def restart_node(self) -> None:
        """Start the first site's node, which must have ended."""
        assert self.first.process is not None
        self.first.process.wait(10)
        self.cluster.start(self.first)

    def grid_job_ids(self) -> list[str]:
        """The grid jobs that the first site knows; what was noted and never submitted has none."""
        return [record["grid_job_id"] for record in self.records() if record["grid_job_id"]]

    def done(self, dataset: str) -> int:
        """How many tasks of a dataset are complete."""
        return self.counts(dataset).get("complete", 0)

    def assert_whole(self, dataset: str, tasks: int, *, losses_most: int = 0) -> None:
        """Everything is complete and verified, no task is blamed, and the ledger agrees with itself.

        `losses_most` are the attempts that the sites may have lost.
        """
        from iceprod_p2p.wire.pb import control_pb2

        assert self.counts(dataset) == {"complete": tasks}
        assert self.bad_copies(dataset) == []
        assert [row for row in self.tasks(dataset) if row.get("failures")] == []
        assert sum(row.get("failures", 0) for row in site_rows(self.session)) <= losses_most
        assert list(self.session.call("CheckCluster", control_pb2.CheckClusterRequest()).violations) == []


@contextmanager
def site_on_grid(
    directory: Path,
    plugin: str,
    options: str,
    *,
    others: int = 0,
    owner: tuple[int, int] | None = None,
    queue_lines: str = "",
    variables: Mapping[str, str] | None = None,
    slots: int = 1,
) -> Iterator[GridProduction]:
    """One site on a batch system, and `others` on the local grid; its log is printed when a test fails."""
    running = GridProduction(
        directory,
        {"madison": (plugin, options)},
        sites=1 + others,
        owner=owner,
        queue_lines=queue_lines,
        variables=variables,
        slots=slots,
    )
    try:
        running.found()
        yield running
    except BaseException:
        for site in running.cluster.sites:
            log = site.directory / NODE_LOG
            if log.exists():
                print(f"--- {site.name} ---", log.read_text(errors="replace")[-6_000:], sep="\n")
        print(json.dumps(running.records(), indent=1)[-6_000:])
        raise
    finally:
        running.stop()


@contextmanager
def site_through_arc(directory: Path, element: ArcSystem) -> Iterator[GridProduction]:
    """Run a site of the tests' user whose pilots a computing element carries, by the element's proxy."""
    account = user_ids(USER)
    lines = (
        f'shared_directory = false\nworker_python = "{reachable_python(*account)}"\n'
        f'credential = "{element.proxy}"'
    )
    with site_on_grid(
        directory,
        "arc",
        element.site_options(),
        owner=account,
        queue_lines=lines,
        variables={"PYTHONPATH": str(PACKAGES)},
    ) as running:
        yield running


def trip_wire(directory: Path, command: str, node_pid: Path, *, submits: bool) -> tuple[Path, Path]:
    """Make a `command` that kills the node, once, around a submission; return its directory and its trigger.

    While the trigger exists, the next call removes it and kills the node: after the batch system took the grid
    job and before the node could read the answer (`submits`), or before it was asked at all.
    """
    directory.mkdir()
    trigger = directory / "armed"
    script = directory / command
    kill = f'kill -9 "$(cut -d" " -f1 {node_pid})"'
    real = f'PATH=/usr/bin:/bin exec {command} "$@"'
    after = f'PATH=/usr/bin:/bin {command} "$@" >/dev/null; {kill}; exit 0'
    script.write_text(
        f"#!/bin/sh\nif rm {trigger} 2>/dev/null; then {after if submits else f'{kill}; exit 1'}; fi\n{real}\n"
    )
    script.chmod(0o755)
    return directory, trigger


def ours(grid: Grid, running: GridProduction) -> list[GridJobStatus]:
    """Every grid job of the first site's node that the batch system still knows."""
    return grid.our_jobs(owner_of(running.first.config))


def a_running_one(grid: Grid, running: GridProduction) -> GridJobStatus:
    """Wait until a grid job of the first site's node runs, and return it."""
    found: list[GridJobStatus] = []

    def runs() -> bool:
        found.extend(job for job in ours(grid, running) if isinstance(job.state, Running))
        return bool(found)

    until(runs, "a grid job runs", limit_s=150.0, pause_s=0.2)
    return found[0]


def a_running_task(running: GridProduction, gate: Path) -> str:
    """Submit one task that runs until `gate` is there, wait until it runs, and return its dataset.

    It is what goes on while a batch system is away, however fast everything else is done.
    """
    steering = gate.with_suffix(".yaml")
    steering.write_text(GATED)
    steering.with_name("gated.sh").write_text(f"#!/bin/sh\nwhile [ ! -e {gate} ]; do sleep 0.2; done\n")
    dataset = running.submit(steering, jobs=1)
    wait(lambda: running.counts(dataset) == {"processing": 1}, "the task runs")
    return dataset


def until_ended(running: GridProduction, grid_job_id: str) -> None:
    """Wait until the first site has noted the end of a grid job."""

    def has_ended() -> bool:
        return any(
            record["grid_job_id"] == grid_job_id and record["phase"] in ("ended", "vanished")
            for record in running.records()
        )

    wait(has_ended, "the end of the grid job is known")


def until_done(running: GridProduction, dataset: str, least: int, *, limit_s: float = 240.0) -> None:
    """Wait until so many tasks are complete."""
    until(lambda: running.done(dataset) >= least, f"{least} tasks complete", limit_s=limit_s, pause_s=0.3)


def wait(holds: Callable[[], bool], what: str, *, limit_s: float = 150.0) -> None:
    """Wait for something that a look at files or the batch system tells."""
    until(holds, what, limit_s=limit_s, pause_s=0.2)
