"""Copies of files outside the cluster, read again by URL with this site's credentials."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import IceProdError, NotAllowed, NotFound
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.transfers.credentials import load
from iceprod_p2p.transfers.engine import Transfers
from iceprod_p2p.transfers.limits import Limits
from iceprod_p2p.transfers.local import path_of
from iceprod_p2p.transfers.registry import Registry
from iceprod_p2p.transfers.url import parse

READS_MAX: Final = 4  # At once: whole files come over the network.
ATTEMPTS: Final = 3
log = get_logger("url_copies")


class UrlCopies:
    """Reads copies by URL; `read` on the event loop, the reading on threads.

    `credentials` is the site's file for storages, empty for none; it is read anew for each round of reading.
    `private` is the node's own directory: no file in it is a copy of anything, whatever a task has recorded.
    """

    def __init__(self, credentials: str, *, private: Path) -> None:
        self._credentials = credentials
        self._private = Path(os.path.realpath(private))
        self._room = asyncio.Semaphore(READS_MAX)

    async def read(self, url: str) -> str:
        """Return the SHA-256 of what is at a URL, empty when nothing is; any other error when it cannot be read."""
        over = threading.Event()
        async with self._room:
            try:
                return await asyncio.to_thread(self._read, url, over)
            finally:
                over.set()  # Whoever asked may have left: the thread shall not read on.

    def _read(self, url: str, over: threading.Event) -> str:
        place = parse(url)
        if place.scheme == "file" and Path(os.path.realpath(path_of(place))).is_relative_to(self._private):
            raise NotAllowed("the file is the node's own, and no copy")
        limits = Limits(attempts=ATTEMPTS, wait=over.wait)
        transfers = Transfers(Registry(load(Path(self._credentials)) if self._credentials else None))
        try:
            return transfers.measure(url, algorithms=("sha256",), limits=limits).sha256
        except NotFound:
            return ""


def unread(failure: IceProdError) -> str:
    """Return what is said of a copy that could not be read: nothing unread is called good, or bad."""
    return f"not read: {failure.message}"
