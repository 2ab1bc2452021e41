"""What every kind of storage can do: the interface behind `file`, `https`, `gsiftp`, `root`, `s3` and what sites add.

A storage makes one attempt and says in the type of its error whether another may help: Unavailable passes, everything
else does not.  Repeating, pausing, resuming and verifying are the engine's work, the same for all.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from iceprod_p2p.base.errors import BadInput, Unavailable
from iceprod_p2p.transfers.limits import Limits
from iceprod_p2p.transfers.sums import CHUNK_BYTES, Measured
from iceprod_p2p.transfers.url import Url


@dataclass(frozen=True, slots=True)
class Stat:
    """What a server says of a file.

    Its size in bytes, -1 when the server does not say; `version`, a text that changes with the content (an ETag, a
    time), empty when there is none; checksums by algorithm, as far as they come without being asked for.
    """

    size_bytes: int = -1
    version: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Partial:
    """A download under way: the file that holds what has come so far, and what it is a part of."""

    path: Path
    stat: Stat = field(default_factory=Stat)

    @property
    def size_bytes(self) -> int:
        """How much has come."""
        return self.path.stat().st_size if self.path.exists() else 0

    def drop(self) -> None:
        """Forget what has come."""
        self.path.unlink(missing_ok=True)
        self.stat = Stat()


class Reading(abc.ABC):
    """A file being read, from byte `offset` on; a context manager.  `stat` is of the whole file."""

    stat: Stat
    offset: int

    @abc.abstractmethod
    def read(self, size_bytes: int) -> bytes:
        """Return up to so many bytes, none at the end; Unavailable when the transfer breaks."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the connection; harmless when repeated.  May raise Unavailable for what is known at the end."""

    def __enter__(self) -> Reading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Storage(abc.ABC):
    """One kind of storage.  Thread-safe; every call is one attempt, bounded by `limits`.

    All raise NotFound, NotAllowed, BadInput for what will not pass, Unavailable for what may.
    """

    schemes: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def stat(self, url: Url, limits: Limits) -> Stat:
        """Ask for a file's size and version."""

    @abc.abstractmethod
    def open(self, url: Url, limits: Limits, *, part_of: Stat, offset: int = 0) -> Reading:
        """Begin to read at `offset` if the file is still `part_of`, else (or where it cannot be) at the beginning."""

    @abc.abstractmethod
    def store(self, path: Path, url: Url, measured: Measured, limits: Limits) -> bool:
        """Write a file, making what lies above it where the storage has such; whole or not at all where it can.

        Return whether the server has confirmed checksums of all of it, so that nothing is left to compare.
        """

    def fetch(self, url: Url, partial: Partial, limits: Limits) -> None:
        """Bring a file, going on with what `partial` holds already; Unavailable when it ends early."""
        with self.open(url, limits, part_of=partial.stat, offset=partial.size_bytes) as reading:
            partial.stat = reading.stat
            with partial.path.open("r+b" if partial.path.exists() else "wb") as file:
                file.truncate(reading.offset)
                file.seek(reading.offset)
                total = reading.offset
                while data := reading.read(CHUNK_BYTES):
                    total += len(data)
                    check_size(url, total, limits)
                    file.write(data)
        if 0 <= reading.stat.size_bytes != total:
            raise Unavailable(f"{url} ended after {total} of {reading.stat.size_bytes} bytes")

    def sums(self, url: Url, algorithms: Sequence[str], limits: Limits) -> Mapping[str, str]:
        """Ask the server itself for checksums, any of `algorithms`; empty when it keeps none."""
        return {}

    def copy(self, source: Url, destination: Url, limits: Limits) -> bool:
        """Have the servers copy between themselves; False when they cannot, and the bytes must come through here."""
        return False

    def remove(self, url: Url, limits: Limits) -> None:
        """Remove a file; NotFound when there is none."""
        raise BadInput(f"files of {url.scheme} cannot be removed from here")

    def give_up(self, url: Url) -> None:
        """Hear that no further attempt to store this will be made; harmless when there is nothing to clear away."""
        return


def check_size(url: Url, size_bytes: int, limits: Limits) -> None:
    """Raise BadInput when a file is larger than allowed."""
    if size_bytes > limits.size_max_bytes:
        raise BadInput(f"{url} is larger than the {limits.size_max_bytes} bytes allowed")
