"""A private OpenPBS on this machine: a server, a scheduler, and one execution host with eight cores and two GPUs to
count.

OpenPBS is in no registry of packages: it has to be built from its sources into a prefix (docs/grids/pbs.md), and it
takes no loopback address for its host: tests/grids/own_network.sh gives it another.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from iceprod_cli.free_ports import free_ports

from iceprod_p2p.grids.base import Grid
from iceprod_p2p.grids.registry import create
from tests.grids.daemons import END_S, Daemons, private_directory, until
from tests.grids.users import USER, as_root_again, as_user, user_ids

PREFIX = Path(os.environ.get("ICEPROD_OPENPBS_PREFIX", "/opt/pbs"))
DATA_USER = "postgres"
KILL_DELAY_S = 10
FILES_OF_HOME = {
    "comm_logs": 0o755,
    "server_logs": 0o755,
    "sched_logs": 0o755,
    "mom_logs": 0o755,
    "spool": 0o1777,
    "undelivered": 0o1777,
    "aux": 0o755,
    "checkpoint": 0o700,
    "server_priv": 0o750,
    "server_priv/accounting": 0o755,
    "server_priv/jobs": 0o750,
    "server_priv/users": 0o750,
    "server_priv/hooks": 0o750,
    "server_priv/hooks/tmp": 0o750,
    "sched_priv": 0o750,
    "mom_priv": 0o751,
    "mom_priv/jobs": 0o751,
    "mom_priv/hooks": 0o750,
    "mom_priv/hooks/tmp": 0o750,
}


class OpenPbsSystem:
    """One private OpenPBS; `start` it, give `environment` to its commands, `stop` it."""

    def __init__(self, *, history: bool = True) -> None:
        if os.getuid() != 0:
            pytest.skip("a private batch system needs root")
        if not (PREFIX / "sbin" / "pbs_server.bin").exists():
            pytest.skip(
                f"OpenPBS is not in {PREFIX}, and Debian has none: docs/grids/pbs.md says how to build it"
            )
        self.host = socket.gethostname().partition(".")[0]
        if socket.gethostbyname(self.host).startswith("127."):
            pytest.skip(
                f"OpenPBS takes no loopback address, which {self.host} has: use tests/grids/own_network.sh"
            )
        self._history = history
        self.root = private_directory("openpbs")
        # OpenPBS trusts no home below a directory that everybody can write.
        self.home = Path(tempfile.mkdtemp(prefix="iceprod-openpbs-", dir="/var/lib"))
        self.bin = PREFIX / "bin"
        self.environment = {"PBS_CONF_FILE": str(self.root / "pbs.conf")}
        (self.root / "daemons").mkdir()
        self._user_home = self._make_user_home()
        self.daemons = Daemons(self.root / "daemons", self.environment)

    def grid(self, **options: object) -> Grid:
        """Make the plugin for it; it sees the user's grid jobs, whoever asks."""
        asked = {"environment": self.environment, "bin_directory": str(self.bin), **options}
        if os.getuid() != 0:
            return create("pbs", asked)
        with as_user(*user_ids(USER)):
            return create("pbs", asked)

    def site_options(self) -> str:
        """Return `[queue.options]` of a site on it."""
        return (
            f'bin_directory = "{self.bin}"\n'
            f'environment = {{ PBS_CONF_FILE = "{self.environment["PBS_CONF_FILE"]}" }}\n'
        )

    def start(self) -> None:
        """Start the daemons and wait until the host takes jobs."""
        try:
            self._write_files()
            self._make_data()
            self._start("comm")
            self._start("server", "-t", "create")
            until(lambda: self.daemons.alive("server") and self._answers(), "the server answers", limit_s=60)
            self._configure()
            self._start("mom")
            self._start("sched")
            until(self._host_is_free, "OpenPBS's host is free", limit_s=60)
        except BaseException as failed:
            failed.add_note(self._messages())
            self.stop()
            raise

    def stop(self) -> None:
        """Delete all jobs, end the daemons, and remove the directory."""
        try:
            self._delete_all()
        finally:
            self.daemons.stop_all()
            self._data("stop")
            shutil.rmtree(self.root, ignore_errors=True)
            shutil.rmtree(self.home, ignore_errors=True)
            if self._user_home:
                shutil.rmtree(self._user_home, ignore_errors=True)

    def start_controller(self) -> None:
        """Start the server and wait until it answers."""
        with as_root_again():
            self._start("server")
            until(lambda: self.daemons.alive("server") and self._answers(), "the server answers", limit_s=60)

    def stop_controller(self) -> None:
        """End the server; jobs keep running."""
        with as_root_again():
            self.run("qterm", "-t", "quick")
            until(lambda: not self._answers(), "the server has ended")
            self.daemons.stop("server")

    def controller_pid(self) -> int:
        """Return the server's process id."""
        return self.daemons.pid("server")

    def run(self, *line: str, stdin: str = "") -> str:
        """Run one of OpenPBS's commands to a good end."""
        done = self.attempt(*line, stdin=stdin)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}{self._messages()}"
        return done.stdout

    def attempt(self, name: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one of OpenPBS's commands."""
        return subprocess.run(
            [str(self.bin / name), *arguments],
            env={**os.environ, **self.environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
        )

    @staticmethod
    def _make_user_home() -> Path | None:
        """Make the home of the user whose jobs run, for OpenPBS starts none without; return it where it is ours."""
        uid, gid = user_ids(USER)
        home = Path(pwd.getpwnam(USER).pw_dir)
        if home.exists():
            return None
        home.mkdir(parents=True)
        os.chown(home, uid, gid)
        return home

    def _start(self, name: str, *arguments: str) -> None:
        program = PREFIX / "sbin" / f"pbs_{name}"
        self.daemons.start(name, (str(program), "-N", *arguments))

    def _answers(self) -> bool:
        return self.attempt("qstat", "-B").returncode == 0

    def _host_is_free(self) -> bool:
        self.daemons.alive("mom")
        self.daemons.alive("sched")
        return "state = free" in self.attempt("pbsnodes", "-a").stdout

    def _delete_all(self) -> None:
        ids = self.attempt("qselect").stdout.split()
        if ids:
            self.attempt("qdel", "-W", "force", *ids)
        deadline_s = time.monotonic() + END_S
        while self.attempt("qselect").stdout.strip() and time.monotonic() < deadline_s:
            time.sleep(0.2)

    def _write_files(self) -> None:
        batch, data, comm = free_ports(3)
        mom = _two_ports()
        lines = {
            "PBS_EXEC": PREFIX,
            "PBS_HOME": self.home,
            "PBS_SERVER": self.host,
            "PBS_START_SERVER": 1,
            "PBS_START_SCHED": 1,
            "PBS_START_COMM": 1,
            "PBS_START_MOM": 1,
            "PBS_BATCH_SERVICE_PORT": batch,
            "PBS_BATCH_SERVICE_PORT_DIS": batch,
            "PBS_MOM_SERVICE_PORT": mom,
            "PBS_MANAGER_SERVICE_PORT": mom + 1,
            "PBS_DATA_SERVICE_PORT": data,
            "PBS_COMM_NAME": f"{self.host}:{comm}",
            "PBS_LEAF_ROUTERS": f"{self.host}:{comm}",
            "PBS_CORE_LIMIT": "0",
            "PBS_SCP": "/bin/false",  # Nobody logs in anywhere to bring a file.
        }
        (self.root / "pbs.conf").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        self.home.chmod(0o755)
        for name, mode in FILES_OF_HOME.items():
            (self.home / name).mkdir()
            (self.home / name).chmod(mode)
        (self.home / "pbs_environment").write_text("PATH=/bin:/usr/bin\n")
        (self.home / "server_priv" / "db_user").write_text(DATA_USER)
        (self.home / "server_priv" / "db_user").chmod(0o600)
        for name in ("dedicated", "holidays", "resource_group", "sched_config"):
            target = {"dedicated": "dedicated_time"}.get(name, name)
            shutil.copy(PREFIX / "etc" / f"pbs_{name}", self.home / "sched_priv" / target)
        configuration = self.home / "sched_priv" / "sched_config"
        text = configuration.read_text().replace('resources: "ncpus,', 'resources: "ngpus, ncpus,')
        configuration.write_text(text)
        hooks = next(PREFIX.glob("lib*/python/altair/pbs_hooks"))
        for path in hooks.iterdir():
            if "xeon_phi" not in path.name:
                shutil.copy(path, self.home / "server_priv" / "hooks" / path.name)
        (self.home / "mom_priv" / "config").write_text("$clienthost localhost\n$logevent 0x1ff\n")
        (self.home / "pbs_version").write_text(self.attempt("qstat", "--version").stdout.split()[-1])

    def _make_data(self) -> None:
        """Make the server's data base, which is an ordinary user's."""
        done = subprocess.run(
            [
                "/bin/sh",
                "-c",
                '. "$PBS_EXEC/libexec/pbs_db_env"; exec "$PBS_EXEC/libexec/pbs_db_utility" install_db',
            ],
            env={**os.environ, **self.environment, "PBS_DATA_SERVICE_USER": DATA_USER, **self._variables()},
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _data(self, word: str) -> None:
        subprocess.run(
            [str(PREFIX / "sbin" / "pbs_dataservice"), word],
            env={**os.environ, **self.environment},
            capture_output=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )

    def _variables(self) -> dict[str, str]:
        text = (self.root / "pbs.conf").read_text()
        return dict(line.split("=", 1) for line in text.splitlines())

    def _configure(self) -> None:
        lines = [
            "create queue workq",
            "set queue workq queue_type = Execution",
            "set queue workq enabled = True",
            "set queue workq started = True",
            f"set queue workq kill_delay = {KILL_DELAY_S}",
            "set server default_queue = workq",
            "set server query_other_jobs = True",
            "set server scheduling = True",
            "set server scheduler_iteration = 5",
            f"set server job_history_enable = {self._history}",
            "create resource ngpus type=long, flag=nh",
            f"create node {self.host}",
            f"set node {self.host} resources_available.ncpus = 8",
            f"set node {self.host} resources_available.mem = 16gb",
            f"set node {self.host} resources_available.ngpus = 2",
        ]
        self.run("qmgr", stdin="\n".join([*lines, ""]))

    def _messages(self) -> str:
        logs = [*self.home.glob("*_logs/*")]
        texts = [f"== {path}\n{path.read_text(errors='replace')[-2500:]}" for path in logs]
        return "\n".join([self.daemons.tail(), *texts])


def _two_ports() -> int:
    """Return the first of two free ports that are neighbours, as OpenPBS wants them for its execution daemon."""
    for port in free_ports(50):
        with socket.socket() as tried:
            try:
                tried.bind(("", port + 1))
                return port
            except OSError:
                continue
    raise AssertionError("no two free ports are neighbours")
