"""A private Son of Grid Engine on this machine: a master, one execution host with eight slots and two GPUs to
count.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from iceprod_cli.free_ports import free_ports

from iceprod_p2p.grids.base import Grid
from iceprod_p2p.grids.registry import create
from tests.grids.daemons import END_S, need_root_and, private_directory, until

COMMANDS = ("sge_qmaster", "sge_execd", "qsub", "qstat", "qconf", "qacct")
LIBRARY = Path("/usr/lib/gridengine")
SHARE = Path("/usr/share/gridengine")
USER = "gridtest"


class SgeSystem:
    """One private Grid Engine; `start` it, give `environment` to its commands, `stop` it."""

    def __init__(self) -> None:
        need_root_and(*COMMANDS)
        self.root = private_directory("sge")
        self.host = socket.gethostname().partition(".")[0]
        master, execd = free_ports(2)
        self.environment = {
            "SGE_ROOT": str(self.root / "sge"),
            "SGE_CELL": "ci",
            "SGE_QMASTER_PORT": str(master),
            "SGE_EXECD_PORT": str(execd),
        }
        self._cell = self.root / "sge" / "ci"
        self._groups = 100_000 + 100 * (master % 10_000)

    def grid(self, **options: object) -> Grid:
        """Make the plugin for it."""
        return create("sge", {"environment": self.environment, **options})

    def site_options(self) -> str:
        """Return `[queue.options]` of a site on it."""
        pairs = ", ".join(f'{name} = "{value}"' for name, value in self.environment.items())
        # h_vmem limits the address space, of which Python with numpy maps three times what it uses.
        return f'environment = {{ {pairs} }}\nmemory_resource = ""\n'

    def start(self) -> None:
        """Start the daemons and wait until the host takes jobs."""
        try:
            self._write_files()
            self._make_spool()
            self.start_controller()
            self._configure()
            self._start("sge_execd")
            until(self._host_is_up, "Grid Engine's host is up")
        except BaseException as failed:
            failed.add_note(self._messages())
            self.stop()
            raise

    def stop(self) -> None:
        """Delete all jobs, end the daemons by their pid files, and remove the directory."""
        try:
            self._delete_all()
        finally:
            for name in ("execd", "qmaster"):
                self._end(name)
            shutil.rmtree(self.root, ignore_errors=True)

    def start_controller(self) -> None:
        """Start the master and wait until it answers."""
        self._start("sge_qmaster")
        until(lambda: self._try("qconf", "-sh").returncode == 0, "the master answers")

    def stop_controller(self) -> None:
        """End the master; jobs keep running."""
        self._end("qmaster")

    def controller_pid(self) -> int:
        """Return the master's process id."""
        return self._pid("qmaster")

    def run(self, *line: str, user: str | None = None, stdin: str = "") -> str:
        """Run one of Grid Engine's commands to a good end."""
        done = self._try(*line, user=user, stdin=stdin)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}{self._messages()}"
        return done.stdout

    def _try(self, *line: str, user: str | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            line,
            env={**os.environ, **self.environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd="/",
        )

    def _start(self, name: str) -> None:
        """Daemons of Grid Engine go to the background and note their pid; their output must not hold us."""
        with open(self.root / f"{name}.out", "ab") as log:
            subprocess.run(
                [name],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                timeout=30,
                cwd="/",
            )

    def _pid(self, name: str) -> int:
        (path,) = self.root.glob(f"spool/*/{name}.pid")
        return int(path.read_text())

    def _end(self, name: str) -> None:
        try:
            pid = self._pid(name)
            for number in (signal.SIGTERM, signal.SIGKILL):
                os.kill(pid, number)
                deadline_s = time.monotonic() + END_S
                while time.monotonic() < deadline_s:
                    os.kill(pid, 0)
                    if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                        return
                    time.sleep(0.05)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return

    def _delete_all(self) -> None:
        if self._try("qconf", "-sh").returncode != 0:
            return
        self._try("qdel", "-f", "-u", "*")
        deadline_s = time.monotonic() + END_S
        while self._try("qstat", "-u", "*").stdout.strip() and time.monotonic() < deadline_s:
            time.sleep(0.1)

    def _host_is_up(self) -> bool:
        return " lx" in self._try("qhost").stdout and "all.q" in self._try("qstat", "-f").stdout

    def _write_files(self) -> None:
        common = self._cell / "common"
        common.mkdir(parents=True)
        for name in ("bin", "lib", "utilbin", "util"):
            (self.root / "sge" / name).symlink_to(f"/var/lib/gridengine/{name}")
        for name in ("spool", "spool/qmaster", "spool/db"):
            (self.root / name).mkdir()
        text = (SHARE / "default-bootstrap").read_text()
        text = text.replace("/var/spool/gridengine/spooldb", f"{self.root}/spool/db")
        text = text.replace("/var/spool/gridengine/qmaster", f"{self.root}/spool/qmaster")
        lines = [line for line in text.splitlines() if not line.startswith("ignore_fqdn")]
        (common / "bootstrap").write_text("\n".join([*lines, "ignore_fqdn             true", ""]))
        (common / "act_qmaster").write_text(f"{self.host}\n")
        if socket.gethostbyname(self.host).startswith("127."):
            (common / "host_aliases").write_text(f"{self.host} localhost\n")
        for path in (self.root / "sge", *self.root.rglob("*")):
            if not path.is_symlink():
                shutil.chown(path, "sgeadmin", "sgeadmin")

    def _make_spool(self) -> None:
        configuration = (SHARE / "default-configuration").read_text()
        wanted = {
            "execd_spool_dir": f"{self.root}/spool",
            "reporting_params": "accounting=true reporting=false flush_time=00:00:05 joblog=false "
            "sharelog=00:00:00 accounting_flush_time=00:00:00",
            "shell_start_mode": "unix_behavior",
            "min_uid": "0",
            "min_gid": "0",
            # By such a group of its own it finds a job's processes to kill: never those of another one's jobs.
            "gid_range": f"{self._groups}-{self._groups + 99}",
            "execd_params": "NOTIFY_KILL=default",
        }
        lines = [line for line in configuration.splitlines() if line.split(" ")[0] not in wanted]
        path = self.root / "configuration"
        path.write_text("\n".join([*lines, *(f"{name} {value}" for name, value in wanted.items()), ""]))
        resources = SHARE / "util" / "resources"
        tool = str(LIBRARY / "spooldefaults")
        self.run(
            str(LIBRARY / "spoolinit"),
            "berkeleydb",
            "libspoolb",
            f"{self.root}/spool/db",
            "init",
            user="sgeadmin",
        )
        self.run(tool, "configuration", str(path), user="sgeadmin")
        self.run(tool, "complexes", str(resources / "centry"), user="sgeadmin")
        self.run(tool, "usersets", str(resources / "usersets"), user="sgeadmin")
        self.run(tool, "managers", "sgeadmin", "root", user="sgeadmin")

    def _configure(self) -> None:
        self.run("qconf", "-as", self.host)
        self.run("qconf", "-ah", self.host)
        self._file("-Mc", "complex", self.run("qconf", "-sc") + "gpu gpu INT <= YES YES 0 0\n")
        host = f"hostname {self.host}\nload_scaling NONE\ncomplex_values slots=8,gpu=2\n"
        self._file(
            "-Me" if self.host in self._try("qconf", "-sel").stdout else "-Ae",
            "host",
            host + "user_lists NONE\nxuser_lists NONE\nprojects NONE\nxprojects NONE\nusage_scaling NONE\n"
            "report_variables NONE\n",
        )
        self._file(
            "-Ap",
            "pe",
            "pe_name smp\nslots 999\nuser_lists NONE\nxuser_lists NONE\nstart_proc_args NONE\n"
            "stop_proc_args NONE\nallocation_rule $pe_slots\ncontrol_slaves FALSE\njob_is_first_task TRUE\n"
            "urgency_slots min\naccounting_summary FALSE\nqsort_args NONE\n",
        )
        queue = self.run("qconf", "-sq")
        wanted = {
            "qname": "all.q",
            "hostlist": self.host,
            "slots": "8",
            "pe_list": "smp",
            "notify": "00:00:05",
            "shell": "/bin/sh",
            "load_thresholds": "NONE",
        }
        lines = [line for line in queue.splitlines() if line.split(" ")[0] not in wanted]
        self._file("-Aq", "queue", "\n".join([*lines, *(f"{k} {v}" for k, v in wanted.items()), ""]))
        scheduler = self.run("qconf", "-ssconf")
        quick = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        lines = [line for line in scheduler.splitlines() if line.split(" ")[0] not in quick]
        self._file("-Msconf", "scheduler", "\n".join([*lines, *(f"{k} {v}" for k, v in quick.items()), ""]))

    def _file(self, option: str, name: str, text: str) -> None:
        path = self.root / name
        path.write_text(text)
        self.run("qconf", option, str(path))

    def _messages(self) -> str:
        found = [
            *self.root.glob("*.out"),
            *self.root.glob("spool/**/messages"),
            *Path("/tmp").glob("*_messages.*"),
        ]
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-1500:]}" for path in found)
