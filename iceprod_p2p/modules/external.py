"""Fetches external modules: files by https, files and trees of repositories by git over https.

What is fetched is bounded in bytes and time, and comes from an address that was judged (`outbound`), redirects
included.  Nothing of a repository is run: no hooks, no filters, no submodules, and its configuration is not read.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.base.errors import BadInput, IceProdError, NotFound, Unavailable
from iceprod_p2p.model.external import External, parse_external
from iceprod_p2p.modules.archive import inspect, pack, unpack
from iceprod_p2p.modules.outbound import Address, OutboundPolicy, connect, resolve, tls_context

REDIRECTS_MAX: Final = 5
PIECE_BYTES: Final = 65_536
SILENCE_S: Final = 20.0
GIT_SAID_CHARS_MAX: Final = 400
GIT_LOOK_S: Final = 0.2
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one external module may cost: what comes over the line, what it unpacks to, and how long it takes."""

    size_bytes_max: int = 64 * 1024 * 1024
    time_s: float = 60.0


def fetch(
    external: External,
    target: Path,
    *,
    policy: OutboundPolicy,
    bounds: Bounds,
    clock: Clock | None = None,
) -> str:
    """Write the content to `target` and return what it is exactly: a commit, or the address that it came from.

    NotAllowed for an address that may not be connected to; NotFound when there is nothing; Unavailable when the
    server cannot be reached or takes too long; BadInput for what is too large or no module.  Nothing is left of a
    fetch that failed.  Blocks: not for an event loop.
    """
    deadline = _Deadline(clock or SystemClock(), bounds.time_s, external.host)
    try:
        if external.is_git:
            return _Git(external, policy, bounds, deadline).fetch(target)
        came_from = _download(external, target, policy, bounds, deadline)
        if external.is_archive:
            inspect(target)
        return came_from
    except BaseException:
        target.unlink(missing_ok=True)
        raise


class _Deadline:
    def __init__(self, clock: Clock, time_s: float, host: str) -> None:
        self._clock = clock
        self._end_s = clock.monotonic_s() + time_s
        self.host = host

    def left_s(self) -> float:
        """Return the seconds left; Unavailable when there are none."""
        left_s = self._end_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise Unavailable(
                f"{self.host!r} takes too long", remedy="try again later, or ship the module yourself"
            )
        return left_s


class _Connection(http.client.HTTPSConnection):
    """An https connection to a judged address, whatever the name resolves to by now."""

    def __init__(
        self,
        external: External,
        addresses: Sequence[Address],
        policy: OutboundPolicy,
        context: ssl.SSLContext,
    ) -> None:
        super().__init__(external.host, external.port, timeout=SILENCE_S, context=context)
        self._external = external
        self._addresses = addresses
        self._policy = policy
        self._tls = context

    def connect(self) -> None:
        """Connect, and verify that the server is who it should be."""
        raw = connect(self._addresses, self._external.port, timeout_s=SILENCE_S, policy=self._policy)
        self.sock = self._tls.wrap_socket(
            raw, server_hostname=self._external.host, do_handshake_on_connect=False
        )
        self.sock.do_handshake()  # By now the time limit knows which socket to end.


def _download(
    external: External, target: Path, policy: OutboundPolicy, bounds: Bounds, deadline: _Deadline
) -> str:
    context = tls_context(policy)
    for _ in range(REDIRECTS_MAX + 1):
        addresses = resolve(external.host, external.port, policy, timeout_s=deadline.left_s())
        connection = _Connection(external, addresses, policy, context)
        try:
            with _cut_off(connection, deadline):
                aim = _ask(connection, external, target, bounds, deadline)
        except (ssl.SSLError, ssl.CertificateError) as fault:
            raise Unavailable(f"{external.host!r} is not who it should be: {fault}") from fault
        except (OSError, http.client.HTTPException) as fault:
            deadline.left_s()
            raise Unavailable(
                f"the fetch from {external.host!r} broke off: {fault or type(fault).__name__}"
            ) from fault
        finally:
            connection.close()
        if not aim:
            return external.url
        moved = parse_external(urljoin(external.url, aim))
        # What it is called was settled before; where it lies may change.
        external = External(
            False, moved.url, moved.host, moved.port, moved.revision, moved.path, external.file_name
        )
    raise BadInput(f"{external.host!r} redirects more than {REDIRECTS_MAX} times")


def _ask(
    connection: _Connection, external: External, target: Path, bounds: Bounds, deadline: _Deadline
) -> str:
    """Ask for the content and write it; return where it is instead when the server redirects."""
    parts = urlsplit(external.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.putrequest("GET", path, skip_accept_encoding=True)
    connection.putheader("Accept-Encoding", "identity")
    connection.putheader("User-Agent", "iceprod")
    connection.endheaders()
    response = connection.getresponse()
    if response.status in _REDIRECTS:
        aim = response.getheader("Location")
        if not aim:
            raise Unavailable(f"{external.host!r} redirects to nowhere")
        return aim
    if response.status in (404, 410):
        raise NotFound(f"there is no {external.url[:200]}", remedy="check the address")
    if response.status != 200:
        raise Unavailable(
            f"{external.host!r} answers {response.status} {response.reason} to {external.url[:200]}"
        )
    if (response.length or 0) > bounds.size_bytes_max:
        raise _too_large(external, bounds)
    size = 0
    with target.open("wb") as file:
        while piece := response.read(PIECE_BYTES):
            deadline.left_s()
            size += len(piece)
            if size > bounds.size_bytes_max:
                raise _too_large(external, bounds)
            file.write(piece)
    if response.length:
        raise Unavailable(f"the fetch from {external.host!r} ended {response.length} bytes too early")
    return ""


@contextlib.contextmanager
def _cut_off(connection: _Connection, deadline: _Deadline) -> Iterator[None]:
    """End the connection when the time is over, whatever it waits for then."""

    def end() -> None:
        if connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(deadline.left_s(), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _too_large(external: External, bounds: Bounds) -> BadInput:
    return BadInput(
        f"{external.url[:200]} is larger than the {bounds.size_bytes_max} bytes that an external module may have",
        remedy="publish large things as software: iceprod software publish",
    )


class _Git:
    """One fetch from a repository, in a directory of its own."""

    def __init__(
        self, external: External, policy: OutboundPolicy, bounds: Bounds, deadline: _Deadline
    ) -> None:
        self._external = external
        self._policy = policy
        self._bounds = bounds
        self._deadline = deadline

    def fetch(self, target: Path) -> str:
        """Fetch one revision and write what was asked for of it; return the commit."""
        external = self._external
        addresses = resolve(external.host, external.port, self._policy, timeout_s=self._deadline.left_s())
        with tempfile.TemporaryDirectory(prefix="iceprod-git-", dir=target.parent) as scratch:
            self._home = Path(scratch)
            self._git("init", "--quiet", "--bare", "repository")
            self._git(
                *self._way(addresses[0]),
                "fetch",
                *("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-commit-graph"),
                external.url,
                external.revision,
                in_repository=True,
            )
            commit = self._git("rev-parse", "--verify", "FETCH_HEAD^{commit}", in_repository=True).strip()
            self._write(commit, target)
        return commit

    def _way(self, address: Address) -> list[str]:
        """Return the options that lead git to the judged address and nowhere else."""
        external = self._external
        shown = f"[{address}]" if address.version == 6 else str(address)
        options = {
            "http.curloptResolve": f"{external.host}:{external.port}:{shown}",
            "http.followRedirects": "false",
            "http.proxy": "",
            "http.sslVerify": "true",
            "http.lowSpeedLimit": "1",
            "http.lowSpeedTime": str(int(SILENCE_S)),
            "credential.helper": "",
            **({"http.sslCAInfo": self._policy.ca_file} if self._policy.ca_file else {}),
        }
        return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]

    def _write(self, commit: str, target: Path) -> None:
        path = self._external.path
        where = f"{commit}:{path}" if path else commit
        kind = (
            self._git("cat-file", "-t", where, in_repository=True, missing=path).strip() if path else "tree"
        )
        if kind == "blob":
            size = int(self._git("cat-file", "-s", where, in_repository=True))
            if size > self._bounds.size_bytes_max:
                raise _too_large(self._external, self._bounds)
            self._git("cat-file", "blob", where, in_repository=True, output=target)
            return
        if not self._external.is_archive:
            raise BadInput(
                f"{path!r} of {self._external.url} is a directory", remedy="name a file in it, or the whole"
            )
        # Packed anew, equal trees give equal bytes, whatever this git's version; and it is what pilots would unpack.
        plain, tree = self._home / "plain.tar", self._home / "tree"
        self._git("archive", "--format=tar", where, in_repository=True, output=plain)
        unpack(plain, tree, size_max_bytes=self._bounds.size_bytes_max)
        pack(target, ["."], root=tree)

    def _git(
        self, *words: str, in_repository: bool = False, output: Path | None = None, missing: str = ""
    ) -> str:
        """Run git to its end and return what it prints, or write that to `output`."""
        line = ["git", *(("-C", "repository") if in_repository else ()), *words]
        limit = shutil.which("prlimit")
        if limit:  # No single file may grow past the bound, however fast.
            line = [limit, f"--fsize={2 * self._bounds.size_bytes_max}", "--core=0", *line]
        said, printed = self._home / "said", self._home / "printed"
        with said.open("wb") as err, (output or printed).open("wb") as out:
            try:
                process = subprocess.Popen(
                    line,
                    cwd=self._home,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except OSError as fault:
                raise Unavailable(
                    f"git cannot be run on this node: {fault.strerror}", remedy="install git, or use https://"
                ) from fault
            try:
                self._watch(process)
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            raise self._failure(said, missing)
        return "" if output else printed.read_text("utf-8", "replace")

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        while True:
            try:
                process.wait(min(GIT_LOOK_S, self._deadline.left_s()))
                return
            except subprocess.TimeoutExpired:
                self._deadline.left_s()
            if _size_of(self._home) > 3 * self._bounds.size_bytes_max:
                raise _too_large(self._external, self._bounds)

    def _failure(self, said: Path, missing: str) -> IceProdError:
        words = " / ".join(said.read_text("utf-8", "replace").strip().splitlines())
        shown = "".join(c if c.isprintable() else "?" for c in words)[-GIT_SAID_CHARS_MAX:]
        external = self._external
        if missing:
            return NotFound(f"{external.url} has no {missing!r} at {external.revision}")
        if "couldn't find remote ref" in shown or "not our ref" in shown:
            return NotFound(
                f"{external.url} has no revision {external.revision!r}", remedy="check the revision"
            )
        return Unavailable(f"git could not fetch {external.url}: {shown or 'it did not say why'}")

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._home),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_ALLOW_PROTOCOL": "https",
            "GIT_TEMPLATE_DIR": "",
        }


def _size_of(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
