"""The one door to batch systems that speak HTTPS: a credential file, time limits, bounded answers.

A call blocks; a node makes it in a worker thread, one at a time.  Proxy variables and certificate bundles of the
node's environment have no say.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.grids.errors import GridDown, GridError, GridTimeout
from iceprod_p2p.security.credentials import Credential, CredentialKind, read_credential

ANSWER_BYTES_MAX: Final = 64 << 20
SAID_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered, whatever its status."""

    call: str
    status: int
    body: bytes
    location: str = ""

    @property
    def said(self) -> str:
        """The answer on one short line."""
        return " / ".join(self.body.decode("utf-8", "replace").split("\n"))[:SAID_MAX] or "nothing"

    def json(self) -> Any:
        """Return the answer's document, None for an empty one; GridError for anything else."""
        if not self.body.strip():
            return None
        try:
            return json.loads(self.body)
        except ValueError as wrong:
            raise GridError(
                f"{self.call} was answered with no JSON but: {self.said}", command=self.call
            ) from wrong


class Rest:
    """One service; `credential` is a file that may be renewed at any time, `certificates` a directory of authorities
    by their hashes, or empty for the system's.
    """

    def __init__(self, url: str, *, credential: str, certificates: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ConfigError(f"{url!r} is no address of a service", remedy="write https://host:port/path")
        self.url = url.rstrip("/")
        self._host, self._port = parts.hostname, parts.port or 443
        self._base = parts.path.rstrip("/")
        self._credential = Path(credential)
        self._certificates = certificates
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPSConnection | None = None
        self._changed_ns = 0
        self._token = ""

    def get(self, path: str) -> Answer:
        """Ask; GridDown when there is no answer, for nothing was changed."""
        try:
            return self._again("GET", path)
        except GridTimeout as late:
            raise GridDown(late.message, command=late.command, remedy=late.remedy) from late

    def change(self, method: str, path: str, body: bytes | Path = b"", *, content_type: str = "") -> Answer:
        """Ask for a change, once; a `Path` is sent as its content.

        GridDown when the service was not reached, GridTimeout when it was and gave no answer.
        """
        self._close()
        return self._call(method, path, body, content_type)

    def repeat(self, method: str, path: str, body: bytes | Path = b"", *, content_type: str = "") -> Answer:
        """Ask for a change that may be made twice; raises as `change`."""
        return self._again(method, path, body, content_type)

    def credential(self) -> Credential:
        """Read the credential as it is now."""
        return read_credential(self._credential)

    def _again(self, method: str, path: str, body: bytes | Path = b"", content_type: str = "") -> Answer:
        reused = self._connection is not None
        try:
            return self._call(method, path, body, content_type)
        except GridTimeout:
            if not reused:
                raise
            return self._call(method, path, body, content_type)  # The old connection had ended meanwhile.

    def _call(self, method: str, path: str, body: bytes | Path, content_type: str) -> Answer:
        call = f"{method} {self.url}{path}"
        connection = self._connected(call)
        headers = {"Accept": "application/json", **({"Content-Type": content_type} if content_type else {})}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            content = body.read_bytes() if isinstance(body, Path) else body
            connection.request(method, self._base + path, content or None, headers)
            reply = connection.getresponse()
            answer = reply.read(ANSWER_BYTES_MAX + 1)
            location = reply.getheader("Location", "")
        except (http.client.HTTPException, OSError) as broken:
            self._close()
            raise GridTimeout(
                f"{call} gave no answer: {broken or type(broken).__name__}",
                command=call,
                remedy="check the service; the site tries again",
            ) from broken
        if len(answer) > ANSWER_BYTES_MAX:
            self._close()
            raise GridError(f"{call} was answered with more than {ANSWER_BYTES_MAX >> 20} MiB", command=call)
        if reply.will_close:
            self._close()
        if reply.status in (401, 403):
            raise GridError(
                f"{call} was refused ({reply.status} {reply.reason})",
                command=call,
                remedy="is the credential in date, and mapped to an account by the service?",
            )
        return Answer(call, reply.status, answer, location)

    def _connected(self, call: str) -> http.client.HTTPSConnection:
        changed_ns = self._mark()
        if self._connection is not None and changed_ns == self._changed_ns:
            return self._connection
        self._close()
        context = self._context()
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_s, context=context
        )
        try:
            connection.connect()
        except (OSError, socket.gaierror) as silent:
            raise GridDown(
                f"{self._host}:{self._port} cannot be reached: {silent}",
                command=call,
                remedy="check the service and the directory of authorities; the site tries again",
            ) from silent
        self._connection, self._changed_ns = connection, changed_ns
        return connection

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(capath=self._certificates or None)
        credential = self.credential()
        self._token = credential.token
        if credential.kind is CredentialKind.X509:
            try:
                context.load_cert_chain(self._credential)
            except (OSError, ssl.SSLError) as wrong:
                raise ConfigError(
                    f"{self._credential} cannot be used: {wrong}", remedy="make the proxy anew"
                ) from wrong
        return context

    def _mark(self) -> int:
        try:
            return self._credential.stat().st_mtime_ns
        except OSError as missing:
            raise GridError(
                f"the credential {self._credential} cannot be read: {missing.strerror}",
                remedy="make it with the site's credential_command, or by hand",
            ) from missing

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
