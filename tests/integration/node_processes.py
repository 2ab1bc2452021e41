"""Real node processes on loopback for tests: founded or joined, started, stopped or killed, by process id."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from iceprod_cli.free_ports import free_ports

from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.contexts import load_context
from iceprod_p2p.wire.pb import control_pb2

ROOT = Path(__file__).resolve().parents[2]
COMMAND_S = 120.0  # Of any command: it starts a Python, which takes a while where several others do.


def run_command(
    *arguments: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `iceprod-node ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "iceprod_p2p.daemon", *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
    )


@dataclass
class NodeProcess:
    """One node with its own directory and configuration."""

    directory: Path
    site: str
    slots: int = 2
    idle_end_s: float = 20
    site_grace_s: float = 20
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    process: subprocess.Popen[bytes] | None = None
    program: str = "iceprod_p2p.daemon"

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config = self.directory / "site.toml"
        self.data = self.directory / "data"
        self.log_path = self.directory / "node.log"
        self.config.write_text(self.text())

    @property
    def node_id(self) -> str:
        return f"{self.site}-1"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    def text(self) -> str:
        """The configuration: quick timings, one class."""
        return f"""\
[node]
site = "{self.site}"
id = "{self.node_id}"
cluster = "demo"
data_dir = "{self.data}"
listen = "{self.address}"
enrol_listen = "127.0.0.1:{self.ports[1]}"
raft_heartbeat_ms = 50
election_ms_least = 400
election_ms_most = 800
tick_ms = 200
heartbeat_s = 1
site_grace_s = {self.site_grace_s}
claim_interval_s = 0.2
pilot_poll_s = 0.3
[queue]
plugin = "local"
grid_jobs_max = 1
interval_s = 0.5
idle_end_s = {self.idle_end_s}
[[queue.class]]
name = "cpu"
slots = {self.slots}
memory_mib = 500
"""

    def command(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `iceprod-node` with this node's configuration."""
        return run_command(
            *arguments, "--config", str(self.config), cwd=self.directory, environment=environment
        )

    def start(self, *, environment: Mapping[str, str] | None = None) -> None:
        """Start in the foreground, as a supervisor would."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    self.program,
                    "start",
                    "--foreground",
                    "--config",
                    str(self.config),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.directory,
                env={**os.environ, **(environment or {})},
            )

    def log(self) -> str:
        """What it has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self) -> int:
        """SIGTERM, and wait; return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pilots(self, word: str = "") -> list[psutil.Process]:
        """Every other process that lives in this node's directory: pilots, payloads, the grid's supervisor.

        With `word`: those with it in their command lines.
        """
        own = {os.getpid(), self.process.pid if self.process is not None else -1}
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if str(self.directory) in words and word in words and process.pid not in own:
                found.append(process)
        return found

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for process in self.pilots():
            for one in [*_children(process), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()

    def connect(self, founder: NodeProcess | None = None, *, give_up_s: float = 60) -> Connection:
        """A connection to this node as the first administrator."""
        context = load_context(f"{(founder or self).data / 'admin'}/")
        return Connection(context, give_up_s=give_up_s)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for(what: str, holds: Callable[[], Any], *, timeout_s: float = 90.0) -> Any:
    """Wait until `holds()` is true and return it."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = holds()
        if value:
            return value
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still not: {what}"
        time.sleep(0.05)


def status_of(connection: Connection) -> control_pb2.ClusterStatusReply:
    """The cluster's status from one node's own tables."""
    request = control_pb2.ClusterStatusRequest(read=control_pb2.Read(stale=True))
    reply: control_pb2.ClusterStatusReply = connection.call("ClusterStatus", request)
    return reply


def leads(connection: Connection) -> bool:
    """Whether the cluster has a leader."""
    return bool(status_of(connection).leader)


def promote(connection: Connection, node_id: str) -> None:
    """Make a node a voter, with a minute's patience until it has caught up."""
    request = control_pb2.ControlMemberRequest(node_id=node_id, verb="promote", wait_s=60)
    connection.call("ControlMember", request, timeout_s=80)


def task_counts(connection: Connection, dataset: int) -> dict[str, int]:
    """Tasks of a dataset by state."""
    detail = connection.call("GetDataset", control_pb2.GetDatasetRequest(dataset=str(dataset)))
    return {count.state: count.count for count in detail.row.tasks if count.count}
