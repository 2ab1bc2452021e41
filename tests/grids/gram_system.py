"""A private Globus GRAM5 on this machine: a gatekeeper of the tests' user over processes of its own ("fork"), with a
certificate authority that lives as long as the test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iceprod_cli.free_ports import free_ports

from iceprod_p2p.grids.base import Grid
from iceprod_p2p.grids.registry import create, load
from tests.grids.daemons import Daemons, need_root_and, private_directory, until
from tests.grids.users import USER, as_root_again, user_ids

load("gram")  # The test's user may not be able to read this Python's own files later.
COMMANDS = ("globus-gatekeeper", "globus-job-manager", "globusrun", "grid-proxy-init", "openssl")
JOB_MANAGER = "globus-job-manager"
AUTHORITY, PERSON = "/O=IceProd tests/CN=Authority", "/O=IceProd tests/CN=Pilot One"
POLICY = f"""access_id_CA X509 '{AUTHORITY}'
pos_rights globus CA:sign
cond_subjects globus '"/O=IceProd tests/*"'
"""


class GramSystem:
    """One private gatekeeper; `start` it, give `site_options` to a site, `stop` it."""

    def __init__(self) -> None:
        need_root_and(*COMMANDS)
        self.root = private_directory("gram")
        self._port = free_ports(1)[0]
        self.contact = f"localhost:{self._port}/jobmanager:{PERSON}"
        self.proxy = self.root / "keys" / "proxy.pem"
        for name in ("ca", "keys", "log", "services"):
            (self.root / name).mkdir()
        for name in ("home", "state", "jobs", "spool"):
            (self.root / name).mkdir()
            os.chown(self.root / name, *user_ids(USER))
        self.environment = {
            "GLOBUS_HOSTNAME": "localhost",
            "HOME": str(self.root / "home"),
            "LOGNAME": USER,
            "USER": USER,
            "X509_CERT_DIR": str(self.root / "ca"),
            "X509_USER_PROXY": str(self.proxy),
        }
        self.daemons = Daemons(self.root / "log", self.environment)

    def grid(self, **options: object) -> Grid:
        """Make the plugin for it."""
        given = {
            "contact": self.contact,
            "spool": str(self.root / "spool"),
            "environment": self.environment,
            "beat_s": 1.0,
        }
        return create("gram", {**given, **options})

    def site_options(self) -> str:
        """Return `[queue.options]` of a site on it; `HOME` and the like are of no use to it."""
        environment = ", ".join(f'{name} = "{value}"' for name, value in self.environment.items())
        return f'contact = "{self.contact}"\nenvironment = {{ {environment} }}\nbeat_s = 2\n'

    def start(self) -> None:
        """Start the gatekeeper and wait until it answers."""
        try:
            self._make_certificates()
            self.make_proxy()
            self._write_files()
            self.start_controller()
        except BaseException as failed:
            failed.add_note(self.daemons.tail())
            self.stop()
            raise

    def stop(self) -> None:
        """End everything it runs, and remove the directory."""
        self.daemons.stop_all()
        for pid in self._ours():
            _end(pid)
        shutil.rmtree(self.root, ignore_errors=True)

    def start_controller(self) -> None:
        """Start the gatekeeper and wait until it answers."""
        line = ("globus-gatekeeper", "-conf", str(self.root / "gatekeeper.conf"))
        with as_root_again():
            self.daemons.start("gatekeeper", line, user=USER)
        until(lambda: self.daemons.alive("gatekeeper") and self._answers(), "the gatekeeper answers")

    def stop_controller(self) -> None:
        """End the gatekeeper; job managers and jobs go on."""
        with as_root_again():
            self.daemons.stop("gatekeeper")

    def controller_pid(self) -> int:
        """Return the gatekeeper's process id."""
        return self.daemons.pid("gatekeeper")

    def submit(self, description: Path) -> str:
        """Submit a file of RSL without the plugin; return GRAM's name for it."""
        said = self._run("globusrun", "-F", "-r", self.contact, "-f", str(description), as_user=True)
        return next(line for line in said.splitlines() if line.startswith("https://"))

    def word(self, contact: str) -> str:
        """Return GRAM's word for a job."""
        return self._run("globusrun", "-status", contact, as_user=True).strip()

    def job_managers(self) -> list[int]:
        """Return the process ids of the job managers that run now, and of their scripts."""
        return [pid for pid in self._ours() if b"job-manager" in _file(pid, "cmdline")]

    def end_jobs(self) -> None:
        """Kill all jobs at once, which GRAM would take five seconds for."""
        with as_root_again():
            for pid in self._ours():
                if b"GLOBUS_GRAM_JOB_CONTACT=" in _file(pid, "environ"):
                    _end(pid)

    def end_job_managers(self) -> None:
        """Kill them, and only them; their jobs go on, and nobody knows of them."""
        with as_root_again():
            for pid in self.job_managers():
                _end(pid)
            until(lambda: not self.job_managers(), "job managers have ended")

    def make_proxy(self) -> None:
        """Make a proxy of the pilots' certificate, as a person does; it belongs to the test user."""
        keys, new = self.root / "keys", self.root / "home" / "new.pem"
        line = ("grid-proxy-init", "-q", "-bits", "2048", "-valid", "24:00", "-out", str(new))
        self._run(*line, "-cert", str(keys / "cert.pem"), "-key", str(keys / "key.pem"), as_user=True)
        new.replace(self.proxy)

    def _make_certificates(self) -> None:
        ca, keys = self.root / "ca", self.root / "keys"
        private = self.root / "log" / "authority.key"
        ask = ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-sha256")
        made = ("-x509", "-days", "3", "-subj", AUTHORITY, "-keyout", str(private), "-out", f"{ca}/ca.pem")
        self._run(*ask, *made)
        self._run(*ask, "-subj", PERSON, "-keyout", f"{keys}/key.pem", "-out", f"{keys}/asked.pem")
        sign = ("openssl", "x509", "-req", "-sha256", "-days", "2", "-set_serial", "1")
        by = ("-CA", f"{ca}/ca.pem", "-CAkey", str(private))
        self._run(*sign, *by, "-in", f"{keys}/asked.pem", "-out", f"{keys}/cert.pem")
        for kind in ("-subject_hash", "-subject_hash_old"):
            name = self._run("openssl", "x509", "-noout", kind, "-in", f"{ca}/ca.pem").strip()
            shutil.copy(ca / "ca.pem", ca / f"{name}.0")
            (ca / f"{name}.signing_policy").write_text(POLICY)
        (keys / "key.pem").chmod(0o400)
        for path in (keys, keys / "key.pem", keys / "cert.pem"):
            os.chown(path, *user_ids(USER))

    def _write_files(self) -> None:
        b = self.root
        (b / "gridmap").write_text(f'"{PERSON}" {USER}\n')
        manager = shutil.which(JOB_MANAGER)
        service = f"stderr_log,local_cred - {manager} {JOB_MANAGER} -conf {b}/jobmanager.conf\n"
        (b / "services" / "jobmanager").write_text(service)
        (b / "jobmanager.conf").write_text(f"""-home /usr
-type fork
-globus-gatekeeper-host localhost
-globus-gatekeeper-port {self._port}
-globus-gatekeeper-subject "{PERSON}"
-globus-host-cputype x86_64
-globus-host-manufacturer unknown
-globus-host-osname Linux
-globus-host-osversion 6
-state-file-dir {b}/state
-globus-job-dir {b}/jobs
-x509-cert-dir {b}/ca
-globus-toolkit-version 6
-service-tag test
""")
        (b / "gatekeeper.conf").write_text(f"""-gridmap {b}/gridmap
-home /usr
-e /usr/sbin
-logfile {b}/home/gatekeeper.log
-grid_services {b}/services
-port {self._port}
-d
-f
""")

    def _answers(self) -> bool:
        line = ("globusrun", "-a", "-r", self.contact)
        with as_root_again():
            done = subprocess.run(line, env=self._all(), capture_output=True, timeout=30, **_of_user())
        return done.returncode == 0

    def _run(self, *line: str, as_user: bool = False) -> str:
        more = _of_user() if as_user else {}
        with as_root_again():
            done = subprocess.run(line, env=self._all(), capture_output=True, text=True, timeout=60, **more)
        assert done.returncode == 0, f"{line[0]}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    def _all(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def _ours(self) -> Iterator[int]:
        """Yield what the gatekeeper and its jobs have started: they know this certificate directory."""
        mark = f"X509_CERT_DIR={self.root}/ca".encode()
        for path in Path("/proc").glob("[0-9]*"):
            pid = int(path.name)
            if pid != os.getpid() and mark in _file(pid, "environ").split(b"\0"):
                yield pid


def _of_user() -> dict[str, Any]:
    uid, gid = user_ids(USER)
    return {"user": uid, "group": gid, "extra_groups": [], "cwd": "/"}


def _file(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
