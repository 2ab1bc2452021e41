"""A private HTCondor pool on this machine: one schedd, one partitionable slot with eight cores and two fake GPUs.

HTCondor is not in Debian 12; `tests/grids/htcondor_prefix.sh` unpacks Debian 13's into a directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from iceprod_cli.free_ports import free_ports

from iceprod_p2p.grids.base import Grid
from iceprod_p2p.grids.registry import create
from tests.grids.daemons import Daemons, private_directory, until
from tests.grids.users import as_root_again, user_ids

PREFIX = Path(os.environ.get("ICEPROD_HTCONDOR_PREFIX", "/var/cache/iceprod-tests/htcondor-23.9"))
USER = "condor"
END_JOBS_S = 20.0


class HtcondorSystem:
    """One private pool; `start` it, give `environment` to its commands, `stop` it."""

    def __init__(self, *, jobs_as_nobody: bool = False) -> None:
        self._as_owner = not jobs_as_nobody
        if os.getuid() != 0:
            pytest.skip("a private batch system needs root")
        if not (PREFIX / ".complete").exists():
            pytest.skip(f"HTCondor is not in {PREFIX}; run tests/grids/install.sh")
        self.root = private_directory("htcondor")
        self.bin = PREFIX / "usr" / "bin"
        self.environment = {"CONDOR_CONFIG": str(self.root / "condor_config")}
        self._port = free_ports(1)[0]
        (self.root / "daemons").mkdir()
        self.daemons = Daemons(self.root / "daemons", self.environment)

    def grid(self, **options: object) -> Grid:
        """Make the plugin for it."""
        return create(
            "htcondor", {"environment": self.environment, "bin_directory": str(self.bin), **options}
        )

    def site_options(self) -> str:
        """Return `[queue.options]` of a site on it."""
        return (
            f'bin_directory = "{self.bin}"\n'
            f'environment = {{ CONDOR_CONFIG = "{self.environment["CONDOR_CONFIG"]}" }}\n'
        )

    def start(self) -> None:
        """Start the pool and wait until its machine takes jobs."""
        try:
            self._write_files()
            self.daemons.start("master", (str(PREFIX / "usr/sbin/condor_master"), "-f"))
            until(lambda: self.daemons.alive("master") and self._pool_is_up(), "the pool is up", limit_s=150)
        except BaseException as failed:
            failed.add_note(self._messages())
            self.stop()
            raise

    def stop(self) -> None:
        """Remove all jobs, end the daemons, and remove the directory."""
        try:
            self.remove_all()
        finally:
            self._end_master()
            shutil.rmtree(self.root, ignore_errors=True)

    def start_controller(self) -> None:
        """Start the schedd and wait until it answers."""
        with as_root_again():
            self.run("condor_on", "-daemon", "schedd")
        until(lambda: self._try("condor_q").returncode == 0, "the schedd answers")

    def stop_controller(self) -> None:
        """End the schedd; running jobs keep running for as long as their lease."""
        with as_root_again():
            self.run("condor_off", "-fast", "-daemon", "schedd")
        until(lambda: self._try("condor_q").returncode != 0, "the schedd has ended")

    @property
    def collector(self) -> str:
        """The central manager's address."""
        return f"127.0.0.1:{self._port}"

    def controller_pid(self) -> int:
        """Return the schedd's process id."""
        return int((self.root / "log" / "schedd.pid").read_text())

    def remove_all(self) -> None:
        """Remove every job and wait until none is left, as far as the schedd answers."""
        if self._try("condor_rm", "-all").returncode != 0:
            return
        deadline_s = time.monotonic() + END_JOBS_S
        while self._try("condor_q", "-af", "ClusterId").stdout.strip() and time.monotonic() < deadline_s:
            time.sleep(0.1)

    def removes(self, grid_job_id: str) -> bool:
        """Remove a job, and return whether there was one."""
        return self._try("condor_rm", grid_job_id).returncode == 0

    def run(self, *line: str) -> str:
        """Run one of HTCondor's commands to a good end."""
        done = self._try(*line)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}{self._messages()}"
        return done.stdout

    def _try(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        place = "usr/sbin" if (PREFIX / "usr/sbin" / name).exists() else "usr/bin"
        return subprocess.run(
            [str(PREFIX / place / name), *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )

    def _pool_is_up(self) -> bool:
        return (
            "slot1@" in self._try("condor_status", "-af", "Name").stdout
            and bool(self._try("condor_status", "-schedd", "-af", "Name").stdout.strip())
            and self._try("condor_q").returncode == 0
        )

    def _end_master(self) -> None:
        try:
            master = self.daemons.pid("master")
        except KeyError:
            return
        os.kill(master, signal.SIGQUIT)
        deadline_s = time.monotonic() + 15
        while time.monotonic() < deadline_s and Path(f"/proc/{master}/task").exists():
            if Path(f"/proc/{master}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.1)
        self.daemons.stop_all()

    def _write_files(self) -> None:
        account = user_ids(USER)
        for name in ("log", "spool", "execute", "lock", "run"):
            path = self.root / name
            path.mkdir()
            os.chown(path, *account)
            path.chmod(0o755)
        (self.root / "condor_config").write_text(self._configuration(account))

    def _configuration(self, account: tuple[int, int]) -> str:
        b, usr = self.root, PREFIX / "usr"
        return f"""
RELEASE_DIR = {usr}
BIN = {usr}/bin
SBIN = {usr}/sbin
LIB = {usr}/lib/condor
LIBEXEC = {usr}/libexec/condor
SHARE = {usr}/share/condor
LOCAL_DIR = {b}
LOG = {b}/log
SPOOL = {b}/spool
EXECUTE = {b}/execute
LOCK = {b}/lock
RUN = {b}/run
CONDOR_IDS = {account[0]}.{account[1]}
DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD
CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:{self._port}
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
ENABLE_IPV6 = False
USE_SHARED_PORT = False
FULL_HOSTNAME = localhost
NO_DNS = True
DEFAULT_DOMAIN_NAME = ci.invalid
UID_DOMAIN = ci.invalid
FILESYSTEM_DOMAIN = ci.invalid
TRUST_UID_DOMAIN = True
SOFT_UID_DOMAIN = True
SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
SEC_DEFAULT_INTEGRITY = OPTIONAL
SEC_DEFAULT_ENCRYPTION = OPTIONAL
ALLOW_READ = *
ALLOW_WRITE = *@ci.invalid, condor@*, root@*
ALLOW_DAEMON = *@ci.invalid, condor@*, root@*
ALLOW_NEGOTIATOR = condor@*, root@*
ALLOW_ADMINISTRATOR = condor@*, root@*
ALLOW_CLIENT = *
use POLICY : Always_Run_Jobs
NUM_CPUS = 8
MEMORY = 16000
NUM_SLOTS = 1
NUM_SLOTS_TYPE_1 = 1
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = True
MACHINE_RESOURCE_GPUs = CUDA0 CUDA1
STARTER_ALLOW_RUNAS_OWNER = {self._as_owner}
BASE_CGROUP =
PROCD_ADDRESS = {b}/run/procd
SCHEDD_ADDRESS_FILE = {b}/spool/.schedd_address
SCHEDD_ARGS = -pidfile {b}/log/schedd.pid
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1
PERIODIC_EXPR_INTERVAL = 2
MAX_PERIODIC_EXPR_INTERVAL = 2
JOB_START_COUNT = 50
JOB_START_DELAY = 0
UPDATE_INTERVAL = 5
KILLING_TIMEOUT = 12
MachineMaxVacateTime = 10
RUNBENCHMARKS = False
DAGMAN_USER_LOG_SCAN_INTERVAL = 1
"""

    def _messages(self) -> str:
        logs = [*self.root.glob("log/*Log"), *self.root.glob("daemons/*")]
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs)
