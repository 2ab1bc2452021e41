"""How slurmrestd is spoken to: over a socket of this machine, loopback, or https through a proxy of the site.

slurmrestd itself speaks plain HTTP, so nothing leaves the machine unless it is https.  A call blocks; a node makes it
in a worker thread, one at a time.  Proxy variables of the environment have no say.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.grids.errors import GridDown, GridError, GridTimeout
from iceprod_p2p.security.credentials import CredentialKind, read_credential

ANSWER_BYTES_MAX: Final = 256 << 20  # Some 5 KB for each job that Slurm knows, strangers' too.
REMEDY: Final = "check slurmrestd and slurmctld; the site tries again"


@dataclass(frozen=True, slots=True)
class SlurmAnswer:
    """What slurmrestd answered; `document` is empty where it was no JSON object."""

    call: str
    status: int
    document: Mapping[str, Any]
    said: str


class SlurmHttp:
    """One slurmrestd at ``unix:///path``, ``http://127.0.0.1:6820`` or ``https://host/path``.

    `token` is a file with a JSON web token that may be renewed at any time, or empty where the socket tells who calls.
    """

    def __init__(
        self, url: str, *, user: str, token: str = "", authorities: str = "", timeout_s: float = 60.0
    ) -> None:
        parts = urlsplit(url)
        local = parts.scheme == "unix" and parts.path.startswith("/")
        if not local and not (parts.hostname and parts.scheme in ("http", "https")):
            raise ConfigError(
                f"rest {url!r} is no address of a slurmrestd",
                remedy="write unix:///path/of/socket, http://127.0.0.1:6820 or https://host/path",
            )
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise ConfigError(
                f"rest {url!r} would carry the token over the network in the open", remedy="use https"
            )
        self.url = url.rstrip("/")
        self._parts = parts
        self._base = "" if local else parts.path.rstrip("/")
        self._user = user
        self._token = token
        self._authorities = authorities
        self._timeout_s = timeout_s

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, changes: bool = False
    ) -> SlurmAnswer:
        """Make one call on a connection of its own.

        GridDown when slurmrestd was not reached; when it was and gave no answer, GridTimeout where the call `changes`
        something, else GridDown.
        """
        name = f"{method} {self.url}{path}"
        headers = self._headers()
        content = None if body is None else json.dumps(body).encode()
        connection = self._connected(name)
        try:
            connection.request(method, self._base + path, content, headers)
            reply = connection.getresponse()
            answer = reply.read(ANSWER_BYTES_MAX + 1)
        except (http.client.HTTPException, OSError) as broken:
            kind = GridTimeout if changes else GridDown
            raise kind(
                f"{name} gave no answer: {broken or type(broken).__name__}", command=name, remedy=REMEDY
            ) from broken
        finally:
            connection.close()
        if len(answer) > ANSWER_BYTES_MAX:
            raise GridError(f"{name} was answered with more than {ANSWER_BYTES_MAX >> 20} MiB", command=name)
        if reply.status in (401, 403):
            raise GridError(
                f"{name} was refused ({reply.status} {reply.reason})",
                command=name,
                remedy="is the token in date, and of this user? see [queue] credential",
            )
        return _read(name, reply.status, answer)

    def _opened(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "localhost", self._parts.port
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path, timeout_s=self._timeout_s)
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        context = ssl.create_default_context(cafile=self._authorities or None)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            credential = read_credential(Path(self._token).expanduser())
            if credential.kind is CredentialKind.X509:
                raise ConfigError(f"{self._token} is no token", remedy="scontrol token makes one")
            headers |= {"X-SLURM-USER-NAME": self._user, "X-SLURM-USER-TOKEN": credential.token}
        return headers

    def _connected(self, name: str) -> http.client.HTTPConnection:
        connection = self._opened()
        try:
            connection.connect()
        except OSError as silent:
            raise GridDown(f"{self.url} cannot be reached: {silent}", command=name, remedy=REMEDY) from silent
        return connection


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path: str, *, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(call: str, status: int, answer: bytes) -> SlurmAnswer:
    text = answer.decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    said = " / ".join(text.split("\n"))[:300] or "nothing"
    return SlurmAnswer(call, status, document if isinstance(document, dict) else {}, said)
