"""``gsiftp``: GridFTP with the Grid's certificates, by `globus-url-copy`; gfal's tools, where they are, tell the rest.

`globus-url-copy` can neither look at a file nor ask for its checksum.  `gfal-stat`, `gfal-sum` and `gfal-rm` can;
without them a file's size is learnt by reading it, what was written is verified by reading it back, and an upload that
broke off begins anew.

Uploads go in one stream, so what a broken one left is the file's beginning.  The next attempt asks the server for that
file's size and checksum; if they are those of our own beginning, the rest alone is sent (``ESTO A`` with an offset).
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed, NotFound, Unavailable
from iceprod_p2p.transfers import url as urls
from iceprod_p2p.transfers.command import Call, CommandReading, run, tool
from iceprod_p2p.transfers.credentials import Credentials
from iceprod_p2p.transfers.limits import Limits
from iceprod_p2p.transfers.storage import Reading, Stat, Storage, check_size
from iceprod_p2p.transfers.sums import LENGTHS, RECORDED, Measured, measure_file
from iceprod_p2p.transfers.url import Url

PACKAGE: Final = "globus-gass-copy-progs"
GFAL_PACKAGES: Final = "gfal2-util-scripts gfal2-plugin-gridftp python3-gfal2-util"
_MISSING: Final = ("No such file", "PATH_NOT_FOUND", "Not a directory")
_FORBIDDEN: Final = (
    "Permission denied",
    "Login incorrect",
    "530 ",
    "PERMISSION_DENIED",
    "Authentication Error",
)
_NO_PROXY: Final = ("Valid credentials could not be found", "credential has expired", "proxy has expired")
_EXPIRED: Final = "certificate has expired"
_PASSING: Final = (
    "Unable to connect",
    "Connection refused",
    "Connection reset",
    "onnection timed out",
    "end-of-file",
    "End of file",
    "an end of file was reached",
    "Broken pipe",
    "421 ",
    "425 ",
    "426 ",
    "450 ",
    "timed out",
    "Communication error",
    "stall",
    "Temporary",
)


@dataclass(frozen=True, slots=True)
class _Begun:
    """An upload of which a part may have arrived."""

    path: Path
    size_bytes: int
    limits: Limits


class GridftpStorage(Storage):
    """GridFTP servers."""

    schemes = ("gsiftp",)

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        self._begun: dict[str, _Begun] = {}  # By URL.

    def stat(self, url: Url, limits: Limits) -> Stat:
        """Ask with `gfal-stat`; without it nothing is known."""
        if not _has_gfal():
            return Stat()
        fields: dict[str, str] = {}
        for line in self._gfal("gfal-stat", url, limits, url.text):
            name, separator, value = line.strip().partition(": ")
            if separator:
                fields[name] = value
        size = fields.get("Size", "").split()
        if "directory" in size:
            raise NotFound(f"{url} is a directory")
        known = bool(size) and size[0].isdigit()
        return Stat(int(size[0]) if known else -1, fields.get("Modify", ""))

    def open(self, url: Url, limits: Limits, *, part_of: Stat, offset: int = 0) -> Reading:
        """Read through `globus-url-copy`, in one stream, so that what has come is whole up to its end."""
        stat = self.stat(url, limits)
        check_size(url, stat.size_bytes, limits)
        if stat != part_of or not stat.version or (0 <= stat.size_bytes <= offset):
            offset = 0
        arguments = [tool("globus-url-copy", PACKAGE), "-q"]
        arguments += ["-off", str(offset)] if offset else []
        call = Call([*arguments, url.text, "-"], self._environment(url), limits, f"reading {url}", data=True)
        return CommandReading(call, stat, offset, lambda code, words: _raise(url, words))

    def store(self, path: Path, url: Url, measured: Measured, limits: Limits) -> bool:
        """Copy, making directories; where an earlier attempt broke off, the rest."""
        begun = _Begun(path, measured.size_bytes, limits)
        with self._lock:
            before = self._begun.pop(url.text, None)
            self._begun[url.text] = begun
        offset = self._arrived(before, url) if before and before.size_bytes == begun.size_bytes else 0
        if offset == begun.size_bytes > 0:
            return True  # All that was missing was the last word.
        names = [urls.of_path(path).text, url.text]
        if offset:
            try:
                self._copy(["-off", str(offset), *names], url, limits, begun.size_bytes)
            except (BadInput, NotFound):
                offset = 0  # This server does not write into files; or somebody removed it.
        if not offset:
            self._copy(["-cd", *names], url, limits, begun.size_bytes)
        with self._lock:
            self._begun.pop(url.text, None)
        return False

    def give_up(self, url: Url) -> None:
        """Remove what the last attempt left, if it is a part of our file and gfal's tools are here."""
        with self._lock:
            begun = self._begun.pop(url.text, None)
        if begun is None or not _has_gfal() or begun.limits.wait(0.0):
            return
        limits = replace(begun.limits, timeout_s=min(10.0, begun.limits.timeout_s))
        try:
            if 0 <= self._arrived(replace(begun, limits=limits), url, nothing=-1) < begun.size_bytes:
                self.remove(url, limits)
        except IceProdError:
            return  # The server is away, or there is nothing.

    def sums(self, url: Url, algorithms: Sequence[str], limits: Limits) -> Mapping[str, str]:
        """Ask with `gfal-sum`, one algorithm after the other."""
        if not _has_gfal():
            return {}
        for algorithm in algorithms:
            try:
                lines = self._gfal("gfal-sum", url, limits, url.text, algorithm)
            except (BadInput, Unavailable):
                continue  # The server does not know that one.
            digest = lines[-1].split()[-1].lower() if lines and lines[-1].split() else ""
            if 0 < len(digest) <= LENGTHS[algorithm] and set(digest) <= set("0123456789abcdef"):
                return {algorithm: digest.zfill(LENGTHS[algorithm])}
        return {}

    def copy(self, source: Url, destination: Url, limits: Limits) -> bool:
        """Have one server send to the other; both must take the same certificate."""
        if {source.scheme, destination.scheme} != {"gsiftp"}:
            return False
        size_bytes = max(0, self.stat(source, limits).size_bytes) or limits.size_max_bytes
        self._copy(["-cd", source.text, destination.text], destination, limits, size_bytes)
        return True

    def remove(self, url: Url, limits: Limits) -> None:
        """Remove with `gfal-rm`."""
        self._gfal("gfal-rm", url, limits, url.text)

    def _arrived(self, begun: _Begun, url: Url, *, nothing: int = 0) -> int:
        """Return how many of an upload's bytes are there, from its beginning on; `nothing` when other bytes are."""
        limits = begun.limits
        try:
            size_bytes = self.stat(url, limits).size_bytes
            if size_bytes == 0 < begun.size_bytes:
                return 0
            if not 0 < size_bytes <= begun.size_bytes:
                return nothing
            said = self.sums(url, RECORDED, limits.for_reading(size_bytes))
        except (BadInput, NotFound, NotAllowed):
            return nothing
        ours = measure_file(begun.path, said, size_bytes=size_bytes).sums
        return size_bytes if said and ours == said else nothing

    def _copy(self, arguments: Sequence[str], url: Url, limits: Limits, size_bytes: int) -> None:
        silence_s = str(max(1, int(limits.timeout_s)))
        code, _, words = run(
            [tool("globus-url-copy", PACKAGE), "-q", "-st", silence_s, *arguments],
            self._environment(url),
            limits,
            f"copying {url}",
            longest_bytes=size_bytes,
        )
        if code:
            _raise(url, words)

    def _gfal(self, name: str, url: Url, limits: Limits, *words: str) -> list[str]:
        arguments = [tool(name, GFAL_PACKAGES), "-t", str(max(2, int(limits.timeout_s))), *words]
        code, lines, said = run(arguments, self._environment(url), limits, f"asking {url}")
        if code < 0:  # gfal's tools crash now and then as they end, with the answer given or not.
            raise Unavailable(f"{url}: {name} was ended by signal {-code}")
        if code:
            _raise(url, said)
        return lines

    def _environment(self, url: Url) -> dict[str, str]:
        more = {"GFAL_PYTHONBIN": os.environ.get("GFAL_PYTHONBIN", "/usr/bin/python3")}
        return more | self._credentials.of(url).environment()


def _has_gfal() -> bool:
    return shutil.which("gfal-stat") is not None and shutil.which("gfal-sum") is not None


def _raise(url: Url, words: str) -> None:
    raise judged(url, words)


def judged(url: Url, words: str) -> IceProdError:
    """Return the error that the tool's words mean."""
    if not words.strip():
        return Unavailable(f"{url}: the tool failed without a word")
    said = f"{url}: {words[-400:]}"
    if any(word in words for word in _NO_PROXY):
        return NotAllowed(f"{url}: there is no valid proxy certificate", remedy="renew the site's proxy")
    if _EXPIRED in words:
        return NotAllowed(
            f"{url}: a certificate has expired, ours or the server's: {words[-200:]}",
            remedy="renew the site's proxy",
        )
    if any(word in words for word in _MISSING):
        return NotFound(f"{url} does not exist")
    if any(word in words for word in _FORBIDDEN):
        return NotAllowed(f"{url}: no permission: {words[-300:]}")
    if any(word in words for word in _PASSING):
        return Unavailable(said)
    return BadInput(said)
