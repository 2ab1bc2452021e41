"""Three (or more) real site nodes on this machine's loopback, each with its own directory, for `iceprod demo`.

Everything an operator would type is really run: `iceprod-node init`, `cluster invite`, `iceprod-node join`, `start`,
`cluster promote`.  Nothing is shared between the sites but the loopback interface.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iceprod_cli.free_ports import free_ports
from iceprod_p2p.base.errors import ConfigError, IceProdError, Unavailable
from iceprod_p2p.client.connection import Connection, request_id
from iceprod_p2p.client.contexts import load_context
from iceprod_p2p.wire.pb import control_pb2

SITE_NAMES = ("madison", "zeuthen", "uppsala", "brussels", "berkeley", "chiba", "adelaide")
SITES_MIN, SITES_MAX = 3, len(SITE_NAMES)
MARK = ".iceprod-demo"  # Only a directory with this file is ever emptied.
GRACE_S = 20  # A demonstration does not wait ten minutes for a dead site.
WAIT_S = 120.0  # For a machine that is busy with other things, too.
PROMOTE_S = 60
STOP_S = 30.0
_QUIET: Any = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "start_new_session": True,
}


@dataclass(slots=True)
class DemoSite:
    """One site: its directory, addresses and, while it runs, its process."""

    name: str
    directory: Path
    address: str
    enrol_address: str
    gpu: bool
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """Its `site.toml`."""
        return self.directory / "site.toml"


class DemoCluster:
    """Founds, starts, watches and stops the sites; every wait is bounded."""

    def __init__(self, directory: Path, *, sites: int, slots: int, say: Callable[[str], None]) -> None:
        """`slots` are the tasks that each site runs at once."""
        self.directory = directory
        self._slots = slots
        self._say = say
        _prepare(directory)
        ports = free_ports(2 * sites)
        self.sites = [
            DemoSite(
                name,
                directory / name,
                f"127.0.0.1:{ports[2 * i]}",
                f"127.0.0.1:{ports[2 * i + 1]}",
                gpu=i == 2,
            )
            for i, name in enumerate(SITE_NAMES[:sites])
        ]

    @property
    def context_directory(self) -> Path:
        """The first administrator's context, as `iceprod-node init` wrote it."""
        return self.sites[0].directory / "data" / "admin"

    def found(self) -> None:
        """Found the cluster at the first site, and let the others join and become voters."""
        founder, *others = self.sites
        for site in self.sites:
            site.directory.mkdir(mode=0o700)
            site.config.write_text(self.site_toml(site))
        self._node(founder, "init", "--config", str(founder.config))
        self._say(f"founded cluster 'demo' at {founder.name}")
        self.start(founder)
        with self.connect() as connection:
            self._wait("the founder leads", lambda: _status(connection).leader != "")
            for site in others:
                request = control_pb2.InviteRequest(site=site.name, lifetime_s=300, request_id=request_id())
                line = connection.call("Invite", request).line
                self._node(site, *_join_arguments(line), "--config", str(site.config))
                self.start(site)
                self._wait(f"{site.name} has caught up", lambda name=site.name: _caught_up(connection, name))  # type: ignore[misc]
                node_id = next(m.node_id for m in _status(connection).members if m.site == site.name)
                promote = control_pb2.ControlMemberRequest(
                    node_id=node_id, verb="promote", request_id=request_id(), wait_s=PROMOTE_S
                )
                connection.call("ControlMember", promote, timeout_s=PROMOTE_S + 20)
                self._say(f"{site.name} joined by invitation and votes")
            self._wait("every node votes and agrees", lambda: _all_vote(_status(connection), len(self.sites)))
            connection.remember_nodes(_status(connection))

    def site_toml(self, site: DemoSite) -> str:
        """Return the text of a site's configuration; a cluster over other batch systems writes its own."""
        return _site_toml(site, slots=self._slots)

    def connect(self) -> Connection:
        """Return a new connection as the first administrator."""
        return Connection(load_context(f"{self.context_directory}/"))

    def start(self, site: DemoSite) -> None:
        """Start a site's node in a session of its own; its log is `node.log` in its directory."""
        log = (site.directory / "node.log").open("ab")
        command = [
            sys.executable,
            "-m",
            "iceprod_p2p.daemon",
            "start",
            "--foreground",
            "--config",
            str(site.config),
        ]
        site.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=site.directory,
        )
        log.close()

    def kill_leader(self) -> str:
        """Kill the leader's node with SIGKILL, measure how long the others need, and start it again.

        Returns a sentence with the time from the kill to the next acknowledged command.
        """
        with self.connect() as connection:
            leader = _status(connection).leader
            site = next(
                s
                for s in self.sites
                if any(m.site == s.name and m.node_id == leader for m in _status(connection).members)
            )
        assert site.process is not None
        other = next(s for s in self.sites if s is not site)
        with Connection(load_context(f"{self.context_directory}/"), node=other.name) as connection:
            site.process.send_signal(signal.SIGKILL)
            site.process.wait()
            killed_at = time.monotonic()
            connection.call("ListDatasets", control_pb2.ListDatasetsRequest(limit=1), timeout_s=15)
            silent_s = time.monotonic() - killed_at
        self.start(site)
        return f"killed the leader at {site.name}: the cluster answered again after {silent_s:.1f} s"

    def stop(self) -> None:
        """Stop every node and end its pilots: politely, then the nodes by SIGKILL.

        Pilots end within their grace; the local grid's supervisors a few seconds after their last grid job.
        """
        started = [site for site in self.sites if site.process is not None]
        stops = [subprocess.Popen(_stop_command(site), **_QUIET) for site in started]
        deadline = time.monotonic() + STOP_S
        for site, stop in zip(started, stops, strict=True):
            assert site.process is not None
            for process in (stop, site.process):
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _node(self, site: DemoSite, *arguments: str) -> None:
        command = [sys.executable, "-m", "iceprod_p2p.daemon", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=WAIT_S, check=False, cwd=site.directory
        )
        if done.returncode != 0:
            raise IceProdError(
                f"`iceprod-node {arguments[0]}` at {site.name} ended with {done.returncode}: {done.stderr.strip()}"
            )

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        last = ""
        while time.monotonic() < deadline:
            for site in self.sites:
                if site.process is not None and site.process.poll() is not None:
                    raise IceProdError(
                        f"the node of {site.name} ended with {site.process.returncode}",
                        remedy=f"its log is {site.directory}/node.log",
                    )
            try:
                if holds():
                    return
            except Unavailable as silent:
                last = f"; the last answer was: {silent.message}"
            time.sleep(0.1)
        raise Unavailable(
            f"after {WAIT_S:.0f} s it does not hold that {what}{last}", remedy=f"logs: {self.directory}"
        )


def _status(connection: Connection) -> control_pb2.ClusterStatusReply:
    request = control_pb2.ClusterStatusRequest(read=control_pb2.Read(stale=True))
    reply: control_pb2.ClusterStatusReply = connection.call("ClusterStatus", request)
    return reply


def _caught_up(connection: Connection, site: str) -> bool:
    return any(
        m.site == site and m.reachable and m.applied_index > 0 and m.lag < 50
        for m in _status(connection).members
    )


def _all_vote(status: control_pb2.ClusterStatusReply, sites: int) -> bool:
    voters = [m for m in status.members if m.role == "voter" and m.reachable]
    if status.health != "healthy" and status.problems:
        raise Unavailable("; ".join(status.problems))  # Said if it stays so.
    return len(voters) == sites and status.digests_equal and status.health == "healthy"


def _join_arguments(line: str) -> list[str]:
    words = shlex.split(line)
    return words[words.index("join") :] if "join" in words else ["join", line]


def _stop_command(site: DemoSite) -> list[str]:
    return [sys.executable, "-m", "iceprod_p2p.daemon", "stop", "--pilots", "--config", str(site.config)]


def _prepare(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARK).exists():
            raise ConfigError(
                f"{directory} is not empty and was not made by a demo",
                remedy="give another directory with --directory",
            )
        shutil.rmtree(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (directory / MARK).touch()
    except OSError as failure:
        raise ConfigError(
            f"cannot write in {directory}: {failure.strerror}",
            remedy="give another directory with --directory",
        ) from None


def _site_toml(site: DemoSite, *, slots: int) -> str:
    gpu_class = (
        f"""
[[queue.class]]
name = "gpu"
slots = {slots}
gpus = 1
gpu_emulation = true  # There is no GPU here: photons are propagated on CPUs, and the site says so.
memory_mib = 1500
"""
        if site.gpu
        else f"""
[[queue.class]]
name = "cpu"
slots = {slots}
memory_mib = 1500
"""
    )
    return f"""# A site of the demonstration: local processes as its batch system, timings of a demonstration.
[node]
site = "{site.name}"
id = "{site.name}-1"
cluster = "demo"
data_dir = "{site.directory / "data"}"
listen = "{site.address}"
enrol_listen = "{site.enrol_address}"
site_grace_s = {GRACE_S}  # The default is 600; a demonstration does not wait that long for a dead site.
heartbeat_s = 2
claim_interval_s = 0.3
pilot_poll_s = 0.5

[queue]
plugin = "local"
grid_jobs_max = 1
interval_s = 1
idle_end_s = 30
claims_ahead = 1
{gpu_class}
[system]
attributes = ["{"gpu-site" if site.gpu else "cpu-site"}"]
"""


def slots_for(machine_cpus: int | None = None) -> int:
    """Return how many tasks each site runs at once on a machine with so many CPUs."""
    cpus = machine_cpus or len(os.sched_getaffinity(0))
    return max(1, min(4, cpus // 2 + cpus % 2))
