"""``root`` and ``roots`` (XRootD) by its own tools, `xrdcp` and `xrdfs`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed, NotFound, Unavailable
from iceprod_p2p.transfers.command import Call, CommandReading, run, tool
from iceprod_p2p.transfers.credentials import Credentials
from iceprod_p2p.transfers.limits import Limits
from iceprod_p2p.transfers.storage import Partial, Reading, Stat, Storage, check_size
from iceprod_p2p.transfers.sums import LENGTHS, Measured
from iceprod_p2p.transfers.url import Url

PACKAGE: Final = "xrootd-client"
_SCHEMES: Final = {"root": "root", "xroot": "root", "roots": "roots", "xroots": "roots"}
_MISSING: Final = ("[3011]", "no such file", "No such file")
_FORBIDDEN: Final = (
    "[3010]",
    "permission denied",
    "Permission denied",
    "[3030]",
    "Auth failed",
    "not authorized",
)
_PASSING: Final = (
    "Connection error",
    "Operation expired",
    "Operation interrupted",
    "Socket",
    "Stream",
    "[3006]",
    "[3007]",
    "[3012]",
    "[3024]",
    "[3005]",
    "Network",
    "timeout",
    "Invalid address",
    "Invalid session",
)


class XrootdStorage(Storage):
    """XRootD servers."""

    schemes = tuple(_SCHEMES)

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def stat(self, url: Url, limits: Limits) -> Stat:
        """Ask with `xrdfs stat`."""
        lines = self._fs(url, limits, "stat", _name(url))
        fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = fields.get("Size", "")
        if "IsDir" in fields.get("Flags", ""):
            raise NotFound(f"{url} is a directory")
        return Stat(int(size) if size.isdigit() else -1, f"{fields.get('MTime', '')} {size}".strip())

    def open(self, url: Url, limits: Limits, *, part_of: Stat, offset: int = 0) -> Reading:
        """Read through `xrdcp`, from the beginning: it writes to its output only whole files."""
        stat = self.stat(url, limits)
        check_size(url, stat.size_bytes, limits)
        arguments = [tool("xrdcp", PACKAGE), "--nopbar", "--silent", _address(url), "-"]
        call = Call(arguments, self._environment(url, limits), limits, f"reading {url}", data=True)
        return CommandReading(call, stat, 0, lambda code, words: self._raise(url, words))

    def fetch(self, url: Url, partial: Partial, limits: Limits) -> None:
        """Copy with `xrdcp`, going on with what is there if the file is the same."""
        stat = self.stat(url, limits)
        check_size(url, stat.size_bytes, limits)
        if partial.size_bytes and (stat != partial.stat or partial.size_bytes >= stat.size_bytes):
            partial.drop()
        going_on = partial.size_bytes > 0
        partial.stat = stat
        how = ["--continue"] if going_on else ["--force"]
        self._copy([*how, _address(url), os.fspath(partial.path)], url, limits, stat.size_bytes)
        if 0 <= stat.size_bytes != partial.size_bytes:
            raise Unavailable(f"{url} ended after {partial.size_bytes} of {stat.size_bytes} bytes")

    def store(self, path: Path, url: Url, measured: Measured, limits: Limits) -> bool:
        """Copy with `xrdcp`; the server makes the directories, and drops the file if the copy breaks off.

        The tool goes on by itself over a connection that breaks; `--continue` refuses files that are on a server.
        """
        arguments = ["--force", "--posc", os.fspath(path), _address(url)]
        self._copy(arguments, url, limits, measured.size_bytes)
        return False

    def sums(self, url: Url, algorithms: Sequence[str], limits: Limits) -> Mapping[str, str]:
        """Ask with `xrdfs query checksum`, one algorithm after the other."""
        for algorithm in algorithms:
            try:
                lines = self._fs(url, limits, "query", "checksum", f"{_name(url)}?cks.type={algorithm}")
            except (BadInput, Unavailable):
                continue  # It does not keep that one.
            for line in lines:
                name, _, digest = line.strip().lower().partition(" ")
                digest = digest.strip()
                if name == algorithm and 0 < len(digest) <= LENGTHS[algorithm]:
                    return {algorithm: digest.zfill(LENGTHS[algorithm])}
        return {}

    def copy(self, source: Url, destination: Url, limits: Limits) -> bool:
        """Have the servers copy with `xrdcp --tpc only`."""
        if destination.scheme not in _SCHEMES or source.scheme not in _SCHEMES:
            return False
        stat = self.stat(source, limits)
        arguments = ["--tpc", "only", "--force", "--posc", _address(source), _address(destination)]
        try:
            self._copy(arguments, destination, limits, max(0, stat.size_bytes))
        except (BadInput, NotAllowed):
            return False
        except Unavailable as failure:
            if "bytes moved" in failure.message or "no longer wanted" in failure.message:
                raise
            return False
        return True

    def remove(self, url: Url, limits: Limits) -> None:
        """Remove with `xrdfs rm`."""
        self._fs(url, limits, "rm", _name(url))

    def _copy(self, arguments: Sequence[str], url: Url, limits: Limits, size_bytes: int) -> None:
        code, _, words = run(
            [tool("xrdcp", PACKAGE), "--nopbar", "--silent", *arguments],
            self._environment(url, limits),
            limits,
            f"copying {url}",
            longest_bytes=max(0, size_bytes),
        )
        if code:
            self._raise(url, words)

    def _fs(self, url: Url, limits: Limits, *words: str) -> list[str]:
        server = f"{_SCHEMES[url.scheme]}://{url.host}"
        code, lines, said = run(
            [tool("xrdfs", PACKAGE), server, *words], self._environment(url, limits), limits, f"asking {url}"
        )
        if code:
            self._raise(url, said)
        return lines

    def _environment(self, url: Url, limits: Limits) -> dict[str, str]:
        seconds = str(max(2, int(limits.timeout_s)))
        return {
            "XRD_CONNECTIONWINDOW": str(max(2, min(30, int(limits.timeout_s)))),
            "XRD_CONNECTIONRETRY": "1",  # Repeating is the engine's work.
            "XRD_REQUESTTIMEOUT": seconds,
            "XRD_STREAMTIMEOUT": seconds,
            "XRD_STREAMERRORWINDOW": "0",
            "XRD_TIMEOUTRESOLUTION": "1",
            "XRD_CPUSEPGWRTRD": "0",
            **self._credentials.of(url).environment(),
        }

    def _raise(self, url: Url, words: str) -> None:
        raise judged(url, words)


def judged(url: Url, words: str) -> IceProdError:
    """Return the error that the tool's words mean."""
    if not words.strip():
        return Unavailable(f"{url}: the tool failed without a word")
    said = f"{url}: {words[-400:]}"
    if any(word in words for word in _MISSING):
        return NotFound(f"{url} does not exist")
    if any(word in words for word in _FORBIDDEN):
        return NotAllowed(f"{url}: no permission: {words[-300:]}")
    if any(word in words for word in _PASSING):
        return Unavailable(said)
    return BadInput(said)


def _name(url: Url) -> str:
    """Return the path as the tools take it: nothing is encoded, so a question mark cannot be written."""
    path = url.path
    if "?" in path:
        raise BadInput(f"{url}: XRootD has no file names with a question mark", remedy="rename it")
    return "/" + path.lstrip("/")


def _address(url: Url) -> str:
    query = f"?{url.query}" if url.query else ""
    return f"{_SCHEMES[url.scheme]}://{url.host}/{_name(url)}{query}"
