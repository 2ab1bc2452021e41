"""Three sites on loopback for tests of recovery: all vote, and a finished dataset is there that must never be lost."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.contexts import load_context
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.node_processes import (
    COMMAND_S,
    ROOT,
    NodeProcess,
    leads,
    promote,
    status_of,
    task_counts,
    wait_for,
)

HELLO = ROOT / "examples" / "hello" / "hello.yaml"
# Where `test_rejoin` and `test_restore` end a process.
REJOINING = (
    "node.rejoin.before",
    "node.rejoin.admitted",
    "node.succession.raft",
    "node.succession.keys",
    "node.succession.config",
)
RESTORING = ("node.restore.before", "backup.rename.before")
SITES = ("madison", "geneva", "zeuthen")


class Site(NodeProcess):
    """A node whose id may change."""

    @property
    def present_id(self) -> str:
        """The id in its site.toml now."""
        return str(tomllib.loads(self.config.read_text())["node"]["id"])

    @property
    def raft(self) -> Path:
        """Its part of the ledger."""
        return self.data / "raft"

    @property
    def runs(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def log_size(self) -> int:
        """How much it has logged: what comes later is news."""
        return len(self.log())

    def refused_start(self) -> str:
        """Start it in the foreground, where it must end by itself; return what it said."""
        done = self.command("start", "--foreground")
        assert done.returncode != 0, "it started"
        assert "Traceback" not in done.stderr, done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith("iceprod-node: ")]
        assert len(said) == 1, done.stderr
        return done.stderr[done.stderr.index("iceprod-node: ") :]

    def command_with(self, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `iceprod-node` with this node's configuration and variables of the environment."""
        command = [sys.executable, "-m", "iceprod_p2p.daemon", *arguments, "--config", str(self.config)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            cwd=self.directory,
            env={**os.environ, **environ},
        )

    def rejoin(self, *arguments: str) -> str:
        """Run `rejoin`, again while the others have no quorum; return the new id."""

        def readmitted() -> bool:
            done = self.command("rejoin", "--yes", *arguments)
            assert done.returncode in (0, 5), done.stderr
            return done.returncode == 0

        wait_for("the others readmit it", readmitted, timeout_s=90)
        return self.present_id


class Trio:
    """The cluster: the first site is the founder's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sites = {name: Site(directory / name, name, idle_end_s=2) for name in SITES}
        self.founder = self.sites["madison"]
        self.dataset = 0

    def build(self) -> None:
        """Found it, let the others join and vote, and run a dataset to its end."""
        assert self.founder.command("init").returncode == 0
        self.founder.start()
        with self.connect() as connection:
            wait_for("the founder leads", lambda: leads(connection))
            for name in SITES[1:]:
                site = self.sites[name]
                line = self.founder.command("invite", name).stdout.split()[-1]
                done = site.command("join", line)
                assert done.returncode == 0, done.stderr
                site.start()
                wait_for("it has caught up", lambda name=name: self.has_caught_up(connection, name))
                promote(connection, site.present_id)
            self.dataset = submit_file(connection, HELLO, jobs=2, seed=7).dataset
            wait_for("all is complete", lambda: self.is_whole(connection))
        self.wait_healthy()

    def connect(self) -> Connection:
        """A connection as the administrator, to any node."""
        context = load_context(f"{self.founder.data / 'admin'}/")
        connection = Connection(context, give_up_s=30)
        return connection

    def remember(self, connection: Connection) -> None:
        """Note who is there now."""
        connection.remember_nodes(status_of(connection))

    def has_caught_up(self, connection: Connection, site: str) -> bool:
        """Whether a site's node answers and has applied something."""
        rows = status_of(connection).members
        return any(row.site == site and row.reachable and row.applied_index for row in rows)

    def is_whole(self, connection: Connection) -> bool:
        """Whether the dataset is there as it was acknowledged."""
        return task_counts(connection, self.dataset) == {"complete": 4}

    def wait_healthy(self) -> control_pb2.ClusterStatusReply:
        """Start whoever does not run, wait until three vote and agree, and check the ledger's invariants."""
        for site in self.sites.values():
            if not site.runs:
                site.start()
        with self.connect() as connection:

            def healthy() -> control_pb2.ClusterStatusReply | None:
                status = status_of(connection)
                three = [row.role for row in status.members] == ["voter"] * 3
                return status if three and status.health == "healthy" and status.digests_equal else None

            status: control_pb2.ClusterStatusReply = wait_for("three vote and agree", healthy, timeout_s=90)
            connection.remember_nodes(status)
            assert self.is_whole(connection)
            assert not connection.call("CheckCluster", control_pb2.CheckClusterRequest()).violations
        return status

    def leader(self) -> Site:
        """The site whose node leads."""
        with self.connect() as connection:
            leader = wait_for("somebody leads", lambda: status_of(connection).leader)
        return next(site for site in self.sites.values() if site.present_id == leader)

    def follower(self) -> Site:
        """A site whose node follows, and which is not the founder's."""
        leader = self.leader()
        return next(site for name, site in self.sites.items() if site is not leader and name != "madison")

    def end(self) -> None:
        """Leave nothing behind."""
        for site in self.sites.values():
            site.end()
