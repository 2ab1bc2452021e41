"""The file of credentials for storages that a pilot uses: the site's at its path, or what the site's node handed out.

What is handed out lies in the pilot's own state directory, mode 0600, is fetched anew before it is old, so that tokens
and proxies may be renewed at the site, and goes with the pilot.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.wire.pb import pilot_pb2

_LOG = get_logger("pilot.storage_credentials")
REFRESH_S: Final = 300.0
NAME: Final = "credentials.toml"
STORAGE: Final = "storage"  # The directory in the pilot's state where it lies.


class StorageCredentials:
    """Gives the path of a file that `transfers.credentials.load` reads.  Thread-safe.

    `fetch` asks a node of the pilot's own site; with None, `path` is the site's own file, empty for none.
    """

    def __init__(
        self,
        path: str,
        *,
        fetch: Callable[[], pilot_pb2.CredentialsReply] | None,
        directory: Path,
        clock: Clock,
    ) -> None:
        self._path = path
        self._fetch = fetch
        self._directory = directory
        self._clock = clock
        self._lock = threading.Lock()
        self._fetched_s: float | None = None
        self.generation = 0  # Grows when the file was written anew.

    def path(self) -> str:
        """Return the file's path, empty for none; what a node is asked for raises as its call does."""
        fetch = self._fetch
        if fetch is None:
            return self._path
        with self._lock:
            now_s = self._clock.monotonic_s()
            if self._fetched_s is None or now_s - self._fetched_s >= REFRESH_S:
                try:
                    reply = fetch()
                except Unavailable as away:
                    if self._fetched_s is None:
                        raise
                    _LOG.warning("credentials for storages not fetched anew", why=away.message)
                else:
                    self._write(reply)
                    self._fetched_s = now_s
                    self.generation += 1
            return str(self._directory / NAME)

    def close(self) -> None:
        """Remove what was handed out; harmless when repeated."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _write(self, reply: pilot_pb2.CredentialsReply) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = []
        for number, server in enumerate(reply.servers):
            lines += [
                "[[server]]",
                f"urls = {_toml(list(server.urls))}",
                f"read_back = {_toml(server.read_back)}",
            ]
            lines += [f"{name} = {_toml(value)}" for name, value in sorted(server.texts.items())]
            for name, content in sorted(server.files.items()):
                place = self._directory / f"{number}-{name}"
                _write_private(place, content)
                lines.append(f"{name} = {_toml(str(place))}")
        _write_private(self._directory / NAME, ("\n".join(lines) + "\n").encode())


def _toml(value: object) -> str:
    """Return a text, list of texts or switch as TOML: JSON's spelling, which TOML reads alike."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write_private(path: Path, content: bytes) -> None:
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    scratch.replace(path)
