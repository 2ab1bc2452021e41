"""A private NorduGrid ARC on this machine: A-REX with its REST interface, over processes of its own ("fork") or over a
private Slurm, with a certificate authority and, on request, a token issuer that live as long as the test.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import tarfile
from pathlib import Path

from iceprod_cli.free_ports import free_ports

from iceprod_p2p.grids.base import Grid
from iceprod_p2p.grids.registry import create, load
from tests.grids.daemons import Daemons, need_root_and, private_directory, until
from tests.grids.users import USER, as_root_again, user_ids
from tests.people.issuer import Issuer

load("arc")  # The test's user may not be able to read this Python's own files later.
COMMANDS = ("arched", "arcctl", "arcproxy")
SHARE = Path("/usr/share/arc")
WS_START = SHARE / "arc-arex-ws-start"
AUTHORITIES = Path("/etc/grid-security/certificates")
CA = "iceprodtest"
PERSON = "Pilot One"
SUBJECT = f"/DC=org/DC=nordugrid/DC=ARC/O=TestCA/CN={PERSON}"
TOKEN_SUBJECT = "pilot-factory"
TOKEN_SCOPE = "compute.create"
KEYS = ("hostcert.pem", "hostkey.pem", "usercert.pem", "userkey.pem")


class ArcSystem:
    """One private computing element; `start` it, give `site_options` to a site, `stop` it."""

    def __init__(self, *, slurm_conf: str = "", tokens: bool = False) -> None:
        """With `slurm_conf`, jobs go to that Slurm, otherwise they are processes of this machine.

        With `tokens`, those of `issuer` that name this element as their audience are taken as well.
        """
        need_root_and(*COMMANDS)
        self.root = private_directory("arc")
        self._slurm_conf = slurm_conf
        self._port = free_ports(1)[0]
        self.url = f"https://localhost:{self._port}/arex"
        self.certificates = self.root / "ca"
        self.environment = {
            "ARC_CONFIG": str(self.root / "arc.conf"),
            **({"SLURM_CONF": slurm_conf} if slurm_conf else {}),
        }
        for name in ("log", "daemons"):
            (self.root / name).mkdir()
        self.daemons = Daemons(self.root / "daemons", self.environment)
        self.proxy = self.root / "credentials" / "proxy.pem"
        self.token = self.root / "credentials" / "token"
        self.issuer = Issuer(self.root) if tokens else None

    def grid(self, **options: object) -> Grid:
        """Make the plugin for it."""
        given = {"url": self.url, "credential": str(self.proxy), "certificates": str(self.certificates)}
        return create("arc", {**given, **options})

    def site_options(self) -> str:
        """Return `[queue.options]` of a site on it."""
        return f'url = "{self.url}"\ncredential = "{self.proxy}"\ncertificates = "{self.certificates}"\n'

    def start(self) -> None:
        """Start A-REX and wait until it answers."""
        try:
            self._make_certificates()
            self._write_files()
            self.make_proxy()
            self.make_token()
            self.daemons.start("arex", ("/bin/bash", str(SHARE / "arc-arex-start"), "-f"))
            self.start_controller()
            until(lambda: self.daemons.alive("arex") and self._has_begun(), "A-REX works", limit_s=150)
        except BaseException as failed:
            failed.add_note(self._messages())
            self.stop()
            raise

    def stop(self) -> None:
        """End everything it runs, and remove the directory."""
        self.daemons.stop_all()
        if self.issuer is not None:
            self.issuer.close()
        for path in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if Path(os.readlink(path)).is_relative_to(self.root):
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except OSError:
                continue
        shutil.rmtree(self.root, ignore_errors=True)

    def start_controller(self) -> None:
        """Start the web service and wait until it answers."""
        with as_root_again():
            self.daemons.start("ws", (*self._with_authorities(), "/bin/bash", str(WS_START), "-f"))
        until(lambda: self.daemons.alive("ws") and self._answers(), "A-REX answers", limit_s=150)

    def _with_authorities(self) -> tuple[str, ...]:
        """Return what starts a program that finds our authorities where it looks for those of token issuers.

        That place is fixed, so our directory is laid over it, for the program alone.
        """
        if self.issuer is None:
            return ()
        AUTHORITIES.mkdir(parents=True, exist_ok=True)
        lay = f'mount --bind {self.certificates} {AUTHORITIES} && exec "$0" "$@"'
        return ("unshare", "--mount", "sh", "-c", lay)

    def stop_controller(self) -> None:
        """End the web service; jobs go on."""
        with as_root_again():
            self.daemons.stop("ws")

    def make_proxy(self, *, validity: str = "12H") -> None:
        """Make a proxy of the pilots' certificate, as `arcproxy` does for a person; it belongs to the test user."""
        keys = self.root / "credentials"
        environment = {
            **os.environ,
            "X509_CERT_DIR": str(self.certificates),
            "X509_USER_CERT": str(keys / "usercert.pem"),
            "X509_USER_KEY": str(keys / "userkey.pem"),
            "HOME": str(keys),
        }
        new = self.proxy.with_name("new.pem")
        line = ["arcproxy", "-P", str(new), "-c", f"validityPeriod={validity}"]
        subprocess.run(line, env=environment, check=True, capture_output=True, timeout=30)
        os.chown(new, *user_ids(USER))
        new.replace(self.proxy)

    def make_token(self, **claims: object) -> None:
        """Make a token for this element, with `claims` in addition or instead; it belongs to the test user."""
        if self.issuer is None:
            return
        said = {"sub": TOKEN_SUBJECT, "aud": self.url, "scope": TOKEN_SCOPE, **claims}
        self.token.write_text(self.issuer.token(**said))
        self.token.chmod(0o600)
        os.chown(self.token, *user_ids(USER))

    def freeze(self, *, frozen: bool) -> None:
        """Stop the web service in its tracks, or let it go on."""
        with as_root_again():
            os.kill(self.controller_pid(), signal.SIGSTOP if frozen else signal.SIGCONT)

    def controller_pid(self) -> int:
        """Return the web service's process id."""
        return self.daemons.pid("ws")

    def _has_begun(self) -> bool:
        log = self.root / "log" / "arex.log"
        return log.exists() and "Starting jobs processing thread" in log.read_text(errors="replace")

    def _answers(self) -> bool:
        context = ssl.create_default_context(capath=str(self.certificates))
        context.load_cert_chain(self.proxy)
        try:
            with (
                socket.create_connection(("localhost", self._port), timeout=2) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(
                    b"GET /arex/rest/1.0/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                return b" 200 " in secure.recv(64)
        except OSError:
            return False

    def _make_certificates(self) -> None:
        self.certificates.mkdir()
        ca = ("arcctl", "test-ca", "--ca-id", CA, "--ca-dir", str(self.certificates))
        for line in (
            ("init",),
            ("hostcert", "-n", "localhost", "-t"),
            ("usercert", "-n", PERSON, "-t", "--no-auth"),
        ):
            subprocess.run((*ca, *line), check=True, capture_output=True, timeout=60, cwd=self.root)
        keys = self.root / "credentials"
        keys.mkdir(mode=0o755)
        for path in self.root.glob("*.tar.gz"):
            with tarfile.open(path) as archive:
                for member in archive.getmembers():
                    name = Path(member.name).name
                    content = archive.extractfile(member) if member.isfile() else None
                    if content is not None and name in KEYS:
                        (keys / name).write_bytes(content.read())
                        (keys / name).chmod(0o644 if "cert" in name else 0o400)

    def _write_files(self) -> None:
        b, keys = self.root, self.root / "credentials"
        lrms = "slurm\nslurm_use_sacct = no\nslurm_wakeupperiod = 2" if self._slurm_conf else "fork"
        tokens = group = mapped = ""
        if self.issuer is not None:
            authority = self.certificates / f"{_subject_hash(self.issuer.ca_file)}.0"
            authority.write_bytes(self.issuer.ca_file.read_bytes())
            said = f"{TOKEN_SUBJECT} {self.issuer.url} {self.url} {TOKEN_SCOPE} *"
            tokens = f"[authtokens]\n\n[authgroup: bearers]\nauthtokens = {said}\n"
            group, mapped = " bearers", f"map_to_user = bearers {USER}:{USER}"
        for name in ("control", "session", "run", "tmp"):
            (b / name).mkdir()
        # Without this file its start script spends minutes of processor time, in the background, to make one.
        parameters = ("openssl", "dhparam", "-dsaparam", "-out", str(b / "control" / "dhparam.pem"), "2048")
        subprocess.run(parameters, check=True, capture_output=True, timeout=120)
        (b / "session").chmod(0o777)
        (b / "tmp").chmod(0o1777)
        (b / "arc.conf").write_text(f"""
[common]
hostname = localhost
x509_host_cert = {keys}/hostcert.pem
x509_host_key = {keys}/hostkey.pem
x509_cert_dir = {self.certificates}
x509_voms_dir = {b}/tmp
voms_processing = noerrors

[authgroup: pilots]
subject = {SUBJECT}

{tokens}
[mapping]
map_to_user = pilots {USER}:{USER}
{mapped}
policy_on_nomap = stop

[lrms]
lrms = {lrms}

[arex]
controldir = {b}/control
sessiondir = {b}/session
pidfile = {b}/run/arex.pid
logfile = {b}/log/arex.log
loglevel = INFO
tmpdir = {b}/tmp
wakeupperiod = 1
shared_filesystem = yes
joblog = {b}/log/jobs.log
delegationdb = sqlite
watchdog = no
infoproviders_timelimit = 60

[arex/jura]
loglevel = ERROR

[arex/ws]
wsurl = {self.url}
logfile = {b}/log/ws.log
pidfile = {b}/run/ws.pid

[arex/ws/jobs]
allowaccess = pilots{group}

[infosys]
logfile = {b}/log/infoprovider.log
loglevel = ERROR

[infosys/glue2]
admindomain_name = ci

[infosys/cluster]
alias = ci
nodecpu = test
nodememory = 16000
defaultmemory = 500
homogeneity = true

[queue: main]
comment = test
""")

    def _messages(self) -> str:
        logs = [*self.root.glob("log/*"), *self.root.glob("daemons/*")]
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs if path.is_file()
        )


def _subject_hash(certificate: Path) -> str:
    line = ("openssl", "x509", "-noout", "-subject_hash", "-in", str(certificate))
    return subprocess.run(line, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
