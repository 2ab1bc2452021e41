"""Thousands of pilots at one node: what each costs that is connected, and what exchanges of many tasks cost.

The node is the real `iceprod-node`, a process of its own with its store on disk; the pilots are `crowd`'s, in two
processes on the same machine.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from iceprod_cli.commands.dataset import detail_of
from iceprod_cli.demo_cluster import DemoCluster, DemoSite
from iceprod_cli.session import Session

from benchmarks import machine
from benchmarks.children import Child, Say, ask_all
from benchmarks.crowd import SLOTS
from benchmarks.grid_ours import PROGRAM, STEERING
from benchmarks.numbers import milliseconds, percentile
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.wire.pb import control_pb2

PILOTS: Final = 10_000
PROCESSES: Final = 2
SETTLE_S: Final = 3.0
IDLE_S: Final = 40.0  # Twice as long as 10,000 pilots are told to be silent.
TASKS_MOST: Final = 16_000
LIMIT_S: Final = 400.0
CLUSTER: Final = "demo"


class OneSite(DemoCluster):
    """One site that claims as if it could have many pilots, and whose batch system starts none."""

    def __init__(self, directory: Path, *, say: Say) -> None:
        super().__init__(directory, sites=1, slots=SLOTS, say=say)

    def site_toml(self, site: DemoSite) -> str:
        return f"""
[node]
site = "{site.name}"
id = "{site.name}-1"
cluster = "{CLUSTER}"
data_dir = "{site.directory / "data"}"
listen = "{site.address}"
enrol_listen = "{site.enrol_address}"
claim_interval_s = 0.1

[queue]
plugin = "declarative"
grid_jobs_max = 1000
per_submit = 1
interval_s = 60

[queue.options]
bin_directory = "/bin"
submit = ["date", "+%s"]
submit_id = '^(?P<id>\\d+)$'
status = ["true"]
status_line = '^(?P<id>\\d+) (?P<name>\\S+) (?P<state>\\S+)$'
states = {{ "*" = "queued" }}
remove = ["true", "{{ids}}"]

[[queue.class]]
name = "cpu"
slots = {SLOTS}
memory_mib = 64
disk_mib = 64
"""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the node and its pilots."""

    at_s: float
    cpu_s: float
    anonymous_bytes: int
    entries: int
    calls: int
    with_tasks: int
    taken: int
    turned_away: int


class Bench:
    """The node, the crowd, and what is seen of them."""

    def __init__(self, directory: Path, *, say: Say) -> None:
        self.directory = directory
        self.site = OneSite(directory / "cluster", say=say)
        self.children: list[Child] = []
        self.latencies_us: list[int] = []

    def start(self) -> None:
        """Found the cluster and start the processes of the crowd."""
        self.site.found()
        (site,) = self.site.sites
        for number in range(PROCESSES):
            config = self.directory / f"crowd-{number}.json"
            about = {"name": "ab"[number], "site": site.name, "node": f"{site.name}-1", "cluster": CLUSTER}
            about |= {"data": str(site.directory / "data"), "address": site.address}
            config.write_text(json.dumps(about), encoding="utf-8")
            log = self.directory / f"crowd-{number}.log"
            self.children.append(Child("benchmarks.crowd", str(config), log=log))

    def stop(self) -> None:
        """End everything."""
        for child in self.children:
            child.kill()
            child.stop()
        self.site.stop()

    def all(self, **request: Any) -> list[dict[str, Any]]:
        """Ask every process of the crowd."""
        return ask_all(self.children, [request] * len(self.children))

    @property
    def node_pid(self) -> int:
        """The node's process."""
        process = self.site.sites[0].process
        assert process is not None
        return process.pid

    def look(self, session: Session) -> Look:
        """Look at the node, then at its pilots."""
        status = session.call("ClusterStatus", control_pb2.ClusterStatusRequest())
        counts = self.all(do="counts")
        self.latencies_us = [us for one in counts for us in one["latencies_us"]]
        return Look(
            time.perf_counter(),
            _cpu_s(self.node_pid),
            machine.anonymous_bytes(self.node_pid),
            status.members[0].applied_index,
            *(sum(one[name] for one in counts) for name in ("calls", "with_tasks", "taken", "turned_away")),
        )


def measure(directory: Path, *, pilots: int = PILOTS, idle_s: float = IDLE_S, say: Say) -> list[str]:
    """Return what was measured, as lines; RuntimeError when pilots or tasks do not come to their end."""
    bench = Bench(directory, say=say)
    steering = directory / "spawn.yaml"
    steering.write_text(STEERING % PROGRAM, encoding="utf-8")
    tasks = min(TASKS_MOST, pilots * SLOTS)
    try:
        bench.start()
        with closing(Session(context_name=f"{bench.site.context_directory}/")) as session:
            time.sleep(SETTLE_S)
            alone = bench.look(session)
            answers = bench.all(do="connect", count=pilots // PROCESSES)
            took_s = max(answer["seconds"] for answer in answers)
            time.sleep(SETTLE_S)
            connected = bench.look(session)
            say(f"{pilots} pilots connected in {took_s:.0f} s")
            bench.all(do="start")
            time.sleep(idle_s)
            idle = bench.look(session)
            say("they have waited for work")
            dataset = str(submit_file(session.connection, steering, jobs=tasks, seed=1311).dataset)
            _until_complete(session, dataset, tasks)
            worked = bench.look(session)
    finally:
        bench.stop()
    return _lines(pilots, tasks, took_s, alone, connected, idle, worked, bench.latencies_us)


def _until_complete(session: Session, dataset: str, tasks: int) -> None:
    began_s = time.perf_counter()
    while True:
        counts = {count.state: count.count for count in detail_of(session, dataset).row.tasks if count.count}
        if counts == {"complete": tasks}:
            return
        if time.perf_counter() - began_s > LIMIT_S:
            raise RuntimeError(f"after {LIMIT_S:.0f} s not all of {tasks} tasks are complete: {counts}")
        time.sleep(0.2)


def _cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lines(
    pilots: int,
    tasks: int,
    took_s: float,
    alone: Look,
    connected: Look,
    idle: Look,
    worked: Look,
    latencies_us: list[int],
) -> list[str]:
    waited_s, worked_s = idle.at_s - connected.at_s, worked.at_s - idle.at_s
    each_kib = (connected.anonymous_bytes - alone.anonymous_bytes) / pilots / 1_024
    later_kib = (idle.anonymous_bytes - alone.anonymous_bytes) / pilots / 1_024
    ticks = (idle.entries - connected.entries) / waited_s  # Entries that come whether pilots call or not.
    entries = max(0.0, worked.entries - idle.entries - ticks * worked_s)
    exchanges = worked.with_tasks - idle.with_tasks
    cpu_ms = 1e3 * (worked.cpu_s - idle.cpu_s) / tasks
    slow = [milliseconds(percentile(latencies_us, percent)) for percent in (50, 99)]
    return [
        f"- {pilots:,} pilots connected, by mutual TLS with a key each, in {took_s:.0f} s"
        f" ({(connected.cpu_s - alone.cpu_s) / pilots * 1e3:.1f} ms of the node's processor time each)",
        f"- memory of the node (RssAnon): {alone.anonymous_bytes / 2**20:.0f} MiB alone; {each_kib:.0f} KiB more"
        f" per connected pilot, {later_kib:.0f} KiB per pilot that has waited for work",
        f"- waiting for work: {(idle.calls - connected.calls) / waited_s:.0f} calls a second in all,"
        f" {100 * (idle.cpu_s - connected.cpu_s) / waited_s:.0f} % of one processor",
        f"- then {tasks:,} tasks, taken and reported by {exchanges:,} exchanges ({tasks / max(1, exchanges):.1f}"
        f" ends each): {tasks / worked_s:.0f} tasks a second, {entries / max(1, exchanges):.2f} log entries per"
        f" exchange, {cpu_ms:.2f} ms of the node's processor time per task; an exchange that reports takes"
        f" {slow[0]} ms (p50), {slow[1]} ms (p99); {worked.turned_away:,} calls were turned away and repeated",
    ]
