"""Files of this machine and its shared file systems: ``file:///path``, and plain paths."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed, NotFound, Unavailable
from iceprod_p2p.transfers.limits import Limits
from iceprod_p2p.transfers.storage import Reading, Stat, Storage, check_size
from iceprod_p2p.transfers.sums import CHUNK_BYTES, Measured
from iceprod_p2p.transfers.url import Url


def path_of(url: Url) -> Path:
    """Return the path of a ``file`` URL; BadInput when it names another machine or nothing."""
    if url.host not in ("", "localhost"):
        raise BadInput(f"{url} names a file of another machine", remedy="write file:///path")
    if "\0" in url.path:
        raise BadInput(f"{url} names no file")
    return Path(url.path)


class LocalReading(Reading):
    """A local file being read."""

    def __init__(self, stream: IO[bytes], stat: Stat, offset: int, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self.stat = stat
        self.offset = offset
        stream.seek(offset)

    def read(self, size_bytes: int) -> bytes:
        """Read on; see `Reading`."""
        if self._limits.wait(0.0):
            raise Unavailable("the transfer was ended, it is no longer wanted")
        try:
            return self._stream.read(size_bytes)
        except OSError as broken:
            raise Unavailable(f"reading failed: {broken.strerror}") from broken

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class LocalStorage(Storage):
    """The file system."""

    schemes = ("file",)

    def stat(self, url: Url, limits: Limits) -> Stat:
        """Look at the file."""
        try:
            found = path_of(url).stat()
        except OSError as failure:
            raise os_error(url, failure) from failure
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            # A device or a pipe would be read without end, or waited for.
            raise NotAllowed(f"the file {url.path!r} may not be used: it is no regular file")
        return Stat(found.st_size, f"{found.st_mtime_ns}-{found.st_size}")

    def open(self, url: Url, limits: Limits, *, part_of: Stat, offset: int = 0) -> Reading:
        """Open the file."""
        stat = self.stat(url, limits)
        check_size(url, stat.size_bytes, limits)
        try:
            return LocalReading(
                path_of(url).open("rb"), stat, offset if stat == part_of and offset else 0, limits
            )
        except OSError as failure:
            raise os_error(url, failure) from failure

    def store(self, path: Path, url: Url, measured: Measured, limits: Limits) -> bool:
        """Copy beside the destination and rename."""
        target = path_of(url)
        scratch = target.with_name(f".{target.name[:200]}.{os.getpid()}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as source, scratch.open("wb") as out:
                while data := source.read(CHUNK_BYTES):
                    out.write(data)
                out.flush()
                os.fsync(out.fileno())
            scratch.replace(target)
        except OSError as failure:
            raise os_error(url, failure) from failure
        finally:
            scratch.unlink(missing_ok=True)
        return False

    def remove(self, url: Url, limits: Limits) -> None:
        """Unlink the file."""
        try:
            path_of(url).unlink()
        except OSError as failure:
            raise os_error(url, failure) from failure


def os_error(url: Url, failure: OSError) -> IceProdError:
    """Return the error of this project for one of the operating system's."""
    if isinstance(failure, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return NotFound(f"the file {url.path!r} does not exist")
    if isinstance(failure, PermissionError):
        return NotAllowed(f"the file {url.path!r} may not be used: permission denied")
    return Unavailable(f"the file {url.path!r} cannot be used: {failure.strerror or failure}")
