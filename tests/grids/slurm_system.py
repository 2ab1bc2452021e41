"""A private Slurm on this machine: munge, a controller, two nodes with two fake GPUs each, and on request
accounting in a private MariaDB.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from iceprod_cli.free_ports import free_ports

from iceprod_p2p.grids.base import Grid
from iceprod_p2p.grids.registry import create
from tests.grids.daemons import Daemons, need_root_and, private_directory, until
from tests.grids.users import USER, user_ids

COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
ACCOUNTING_COMMANDS = ("slurmdbd", "sacct", "mariadbd", "mariadb-install-db")
NODES = ("n1", "n2")
END_JOBS_S = 20.0
JWT_PLUGIN = Path("/usr/lib/x86_64-linux-gnu/slurm-wlm/auth_jwt.so")


class SlurmSystem:
    """One private Slurm; `start` it, give `environment` to its commands, `stop` it."""

    def __init__(
        self,
        *,
        accounting: bool = False,
        rest: bool = False,
        hidden: Path | None = None,
        kill_wait_s: int = 5,
    ) -> None:
        """`hidden` is a directory that worker nodes, unlike this test, find empty: they share no file system.

        With `rest` there is a slurmrestd too, for `rest_options`.
        """
        self._hidden = hidden
        self._kill_wait_s = kill_wait_s
        need_root_and(*COMMANDS, *(ACCOUNTING_COMMANDS if accounting else ()))
        if rest:
            need_root_and("slurmrestd")
            if not JWT_PLUGIN.exists():
                pytest.skip("slurm-wlm-jwt-plugin not installed; run tests/grids/install.sh")
        self.accounting = accounting
        self.rest = rest
        self.root = private_directory("slurm")
        self.environment = {"SLURM_CONF": str(self.root / "slurm.conf")}
        self._host = socket.gethostname().partition(".")[0]
        self._ports = free_ports(5)
        self.daemons = Daemons(self._directory("log", owner="slurm"), self.environment)

    def start(self) -> None:
        """Start all daemons and wait until every node takes jobs."""
        try:
            self._write_files()
            self._start_munge()
            if self.accounting:
                self._start_accounting()
            self.start_controller()
            for name in NODES:
                self.start_node(name)
            if self.rest:
                self._start_rest()
            until(self._nodes_idle, "Slurm's nodes are idle")
        except BaseException as failed:
            failed.add_note(self.daemons.tail())
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel all jobs, end all daemons by pid, and remove the directory."""
        try:
            self.cancel_all()
        finally:
            self.daemons.stop_all()
            shutil.rmtree(self.root, ignore_errors=True)

    def grid(self, **options: object) -> Grid:
        """Make the plugin for it."""
        return create("slurm", {"environment": self.environment, **options})

    def site_options(self) -> str:
        """Return `[queue.options]` of a site on it."""
        return f'environment = {{ SLURM_CONF = "{self.environment["SLURM_CONF"]}" }}\n'

    def rest_options(self, *, socket_: bool = False) -> dict[str, object]:
        """Return the plugin's options for slurmrestd, by its port or its socket."""
        home = self.root / "rest"
        url = f"unix://{home}/socket" if socket_ else f"http://127.0.0.1:{self._rest_port}"
        return {"rest": url, "rest_token": str(self.root / "token")}

    def _start_rest(self) -> None:
        user_ids(USER)
        home = self._directory("rest", owner=USER)
        (self._rest_port,) = free_ports(1)
        apis = ",".join(("openapi/v0.0.38", *(("openapi/dbv0.0.38",) if self.accounting else ())))
        line = ("env", "SLURM_JWT=daemon", "slurmrestd", "-a", "rest_auth/jwt", "-s", apis)
        where = (f"127.0.0.1:{self._rest_port}", f"unix:{home}/socket")
        self.daemons.start("slurmrestd", (*line, "-f", str(self.root / "slurm.conf"), *where), user=USER)
        token = self.root / "token"
        token.touch(0o600)
        token.write_text(
            self.run("scontrol", "token", "username=root", "lifespan=36000").strip().partition("=")[2]
        )
        until(
            lambda: self.daemons.alive("slurmrestd") and self._accepts(self._rest_port), "slurmrestd listens"
        )

    def _accepts(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def start_controller(self) -> None:
        """Start slurmctld and wait until it answers."""
        self.daemons.start("slurmctld", ("slurmctld", "-D", "-f", str(self.root / "slurm.conf")))
        until(
            lambda: self.daemons.alive("slurmctld") and self._answers("scontrol", "ping"), "slurmctld answers"
        )

    def stop_controller(self) -> None:
        """End slurmctld; jobs keep running."""
        self.daemons.stop("slurmctld")

    def start_node(self, name: str) -> None:
        """Start one slurmd."""
        line = ("slurmd", "-D", "-f", str(self.root / "slurm.conf"), "-N", name)
        if self._hidden is not None:
            hide = 'mount -t tmpfs none "$0" && exec "$@"'
            line = ("unshare", "--mount", "sh", "-c", hide, str(self._hidden), *line)
        self.daemons.start(name, line)

    def stop_node(self, name: str) -> None:
        """End one slurmd; what it runs goes on."""
        self.daemons.stop(name)

    def lose_node(self, name: str) -> None:
        """Let the controller believe that a node is lost; it comes back by itself or by `find_node`."""
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=test")

    def find_node(self, name: str) -> None:
        """Bring a lost node back."""
        self._answers("scontrol", "update", f"nodename={name}", "state=resume")
        until(
            lambda: "down" not in (self._said("sinfo", "-h", "-n", name, "-o", "%T") or "down"),
            "the node is back",
        )

    def run(self, *line: str, timeout_s: float = 20.0) -> str:
        """Run one of Slurm's commands to a good end."""
        done = subprocess.run(
            line,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}{self.daemons.tail()}"
        return done.stdout

    def cancel_all(self) -> None:
        """Cancel every job and wait until none is left, as far as the controller answers."""
        if not self._answers("scontrol", "ping"):
            return
        self.run("scancel", "--user=root", "--quiet")
        deadline_s = time.monotonic() + END_JOBS_S
        while self.run("squeue", "--noheader") and time.monotonic() < deadline_s:
            time.sleep(0.1)

    def _answers(self, *line: str) -> bool:
        said = self._said(*line)
        return said is not None and "DOWN" not in said

    def _said(self, *line: str) -> str | None:
        """Return what one of Slurm's commands printed; None when Slurm does not answer now."""
        try:
            done = subprocess.run(
                line,
                env={**os.environ, **self.environment},
                capture_output=True,
                text=True,
                timeout=20,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def _nodes_idle(self) -> bool:
        for name in NODES:
            self.daemons.alive(name)
        states = self._said("sinfo", "--noheader", "--Node", "--format=%T")
        return states is not None and states.split() == ["idle"] * len(NODES)

    def _directory(self, *parts: str, owner: str, mode: int = 0o755) -> Path:
        made = self.root.joinpath(*parts)
        made.mkdir(parents=True, exist_ok=True)
        shutil.chown(made, owner, owner)
        made.chmod(mode)
        return made

    def _start_munge(self) -> None:
        home = self._directory("munge", owner="munge")
        (home / "key").write_bytes(os.urandom(128))
        (home / "key").chmod(0o400)
        shutil.chown(home / "key", "munge", "munge")
        line = ("munged", "--foreground", f"--socket={home}/socket", f"--key-file={home}/key")
        files = (f"--log-file={home}/log", f"--pid-file={home}/pid", f"--seed-file={home}/seed")
        self.daemons.start("munged", (*line, *files), user="munge")
        until(lambda: self.daemons.alive("munged") and (home / "socket").exists(), "munged listens")

    def _start_accounting(self) -> None:
        data = self._directory("mariadb", owner="mysql")
        line = ("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=mysql")
        options = ("--auth-root-authentication-method=normal", "--skip-test-db")
        subprocess.run((*line, *options), check=True, capture_output=True, timeout=60)
        listen = (f"--port={self._ports[4]}", "--bind-address=127.0.0.1", f"--socket={data}/socket")
        small = ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--performance-schema=OFF")
        speed = ("--innodb-flush-log-at-trx-commit=0", f"--pid-file={data}/pid", "--user=mysql")
        self.daemons.start(
            "mariadbd", ("mariadbd", "--no-defaults", f"--datadir={data}", *listen, *small, *speed)
        )
        until(lambda: self.daemons.alive("mariadbd") and self._sql("SELECT 1"), "MariaDB answers")
        assert self._sql(
            "CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'private'; GRANT ALL ON *.* TO slurm@'127.0.0.1'"
        )
        self.start_accounting()
        self.run("sacctmgr", "-i", "add", "cluster", "ci")

    def start_accounting(self) -> None:
        """Start slurmdbd and wait until it answers."""
        self.daemons.start("slurmdbd", ("slurmdbd", "-D"))
        until(
            lambda: self.daemons.alive("slurmdbd") and self._answers("sacctmgr", "-n", "list", "cluster"),
            "slurmdbd answers",
        )

    def stop_accounting(self) -> None:
        """End slurmdbd."""
        self.daemons.stop("slurmdbd")

    def accounted_state(self, grid_job_id: str) -> str:
        """Return what sacct says of a job."""
        return self.run("sacct", "-nXP", "-j", grid_job_id, "--format=State").strip()

    def _sql(self, text: str) -> bool:
        line = ("mariadb", "--no-defaults", f"--socket={self.root}/mariadb/socket", "-e", text)
        return subprocess.run(line, capture_output=True, timeout=10).returncode == 0

    def _write_files(self) -> None:
        for name in NODES:
            self._directory("spool", name, owner="root")
        self._directory("state", owner="slurm", mode=0o700)
        gpus = self._directory("gpu", owner="root")
        for number in range(2):
            os.mknod(gpus / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
        (self.root / "gres.conf").write_text(
            "".join(f"NodeName={name} Name=gpu File={gpus}/gpu[0-1]\n" for name in NODES)
        )
        (self.root / "slurm.conf").write_text(self._slurm_conf())
        if self.rest:
            key = self.root / "state" / "jwt.key"
            key.touch(0o600)
            key.write_bytes(os.urandom(32))
            shutil.chown(key, "slurm", "slurm")
        if self.accounting:
            path = self.root / "slurmdbd.conf"
            path.write_text(self._slurmdbd_conf())
            path.chmod(0o600)
            shutil.chown(path, "slurm", "slurm")

    def _slurm_conf(self) -> str:
        control, daemon, first, *_ = self._ports
        b = self.root
        accounting = (
            f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
            f"AccountingStoragePort={self._ports[3]}\nAccountingStoragePass={b}/munge/socket\n"
            if self.accounting
            else "AccountingStorageType=accounting_storage/none\n"
        )
        second = free_ports(1)[0]
        nodes = "".join(
            f"NodeName={name} NodeHostname={self._host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=8000"
            " Gres=gpu:2 State=UNKNOWN\n"
            for name, port in zip(NODES, (first, second), strict=True)
        )
        return (
            f"ClusterName=ci\nSlurmctldHost={self._host}(127.0.0.1)\nSlurmctldPort={control}\nSlurmdPort={daemon}\n"
            f"AuthType=auth/munge\nAuthInfo=socket={b}/munge/socket\nCredType=cred/munge\nSlurmUser=slurm\n"
            f"StateSaveLocation={b}/state\nSlurmdSpoolDir={b}/spool/%n\n"
            f"SlurmctldPidFile={b}/log/slurmctld.pid\nSlurmdPidFile={b}/spool/%n/slurmd.pid\n"
            f"SlurmctldLogFile={b}/log/slurmctld.log\nSlurmdLogFile={b}/spool/%n/slurmd.log\n"
            "ProctrackType=proctrack/pgid\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n"
            "MpiDefault=none\nSchedulerType=sched/backfill\n"
            "SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=50000,batch_sched_delay=0,"
            "default_queue_depth=2000,max_script_size=33554432\n"
            "SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU_Memory\nReturnToService=2\n"
            f"MaxJobCount=20000\nMaxArraySize=5001\nMinJobAge=3000\nKillWait={self._kill_wait_s}\nInactiveLimit=0\n"
            "GresTypes=gpu\nSlurmdParameters=config_overrides\nMessageTimeout=2\n"
            f"{accounting}{nodes}"
            "PartitionName=main Nodes=ALL Default=YES MaxTime=7-0 DefMemPerCPU=100 State=UP\n"
            f"{self._jwt_lines()}"
        )

    def _jwt_lines(self) -> str:
        key = self.root / "state" / "jwt.key"
        return f"AuthAltTypes=auth/jwt\nAuthAltParameters=jwt_key={key}\n" if self.rest else ""

    def _slurmdbd_conf(self) -> str:
        b = self.root
        return (
            f"AuthType=auth/munge\nAuthInfo=socket={b}/munge/socket\nDbdHost=localhost\nDbdAddr=127.0.0.1\n"
            f"DbdPort={self._ports[3]}\nSlurmUser=slurm\nLogFile={b}/log/slurmdbd.log\n"
            f"PidFile={b}/log/slurmdbd.pid\nStorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\n"
            f"StoragePort={self._ports[4]}\nStorageUser=slurm\nStoragePass=private\nStorageLoc=accounting\n"
            f"{self._jwt_lines()}"
        )
