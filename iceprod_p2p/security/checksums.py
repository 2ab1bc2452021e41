"""Checksums of files and streams: SHA-256 always, others beside it where a storage system asks for them.

Memory is bounded by one chunk.  MD5 and Adler-32 are accepted beside a SHA-256 only: alone they prove
nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from iceprod_p2p.base.errors import BadInput, IntegrityError

CHUNK_BYTES: Final = 1024 * 1024
ALGORITHMS: Final = ("sha256", "md5", "adler32", "blake3")
_DIGITS: Final = {"sha256": 64, "md5": 32, "adler32": 8, "blake3": 64}


class Hasher(Protocol):
    """What `hashlib` objects offer."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the sum of all bytes so far."""
        ...


@dataclass(frozen=True, slots=True)
class FileSum:
    """A file's size and SHA-256 in hex; `others` maps further algorithms to their sums in hex."""

    size_bytes: int
    sha256: str
    others: dict[str, str] = field(default_factory=dict)


class StreamSum:
    """Adds up a stream as it passes; not for use from several threads."""

    def __init__(self, others: Iterable[str] = ()) -> None:
        """Begin; BadInput for an algorithm that is unknown or (blake3) not installed."""
        self._sha256 = hashlib.sha256()
        self._others = {name: _hasher(name) for name in others if name != "sha256"}
        self.size_bytes = 0

    def update(self, chunk: bytes) -> None:
        """Take in the next bytes."""
        self.size_bytes += len(chunk)
        self._sha256.update(chunk)
        for hasher in self._others.values():
            hasher.update(chunk)

    def result(self) -> FileSum:
        """Return the sums of what has passed so far."""
        others = {name: hasher.hexdigest() for name, hasher in sorted(self._others.items())}
        return FileSum(self.size_bytes, self._sha256.hexdigest(), others)


def hash_stream(stream: IO[bytes], *, others: Iterable[str] = ()) -> FileSum:
    """Read `stream` to its end and return its sums."""
    total = StreamSum(others)
    for chunk in chunks_of(stream):
        total.update(chunk)
    return total.result()


def hash_file(path: Path, *, others: Iterable[str] = ()) -> FileSum:
    """Return the sums of a file; OSError as `open` and `read` raise it."""
    with open(path, "rb") as stream:
        return hash_stream(stream, others=others)


def check_file(path: Path, expected: FileSum) -> None:
    """Raise IntegrityError unless the file has the expected size and every expected sum."""
    size_bytes = path.stat().st_size
    if size_bytes != expected.size_bytes:  # Cheap, and spares reading a file that is cut short.
        raise IntegrityError(f"{path} has {size_bytes} bytes instead of {expected.size_bytes}")
    found = hash_file(path, others=expected.others)
    if found != expected:
        raise IntegrityError(f"{path} has SHA-256 {found.sha256} instead of {expected.sha256}")


def chunks_of(stream: IO[bytes], chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yield the rest of `stream` in chunks of at most `chunk_bytes`."""
    while chunk := stream.read(chunk_bytes):
        yield chunk


def check_sums(sums: dict[str, str]) -> dict[str, str]:
    """Return checksums from outside in lower case; BadInput unless each is well formed and a SHA-256 is
    among them.
    """
    if "sha256" not in sums:
        raise BadInput("a file needs a SHA-256 checksum; others count only beside it")
    lowered = {}
    for name, value in sorted(sums.items()):
        digits = _DIGITS.get(name)
        if digits is None:
            raise BadInput(f"checksum algorithm {name[:40]!r} is not one of {', '.join(ALGORITHMS)}")
        lowered[name] = value.lower()
        if len(value) != digits or not set(lowered[name]) <= set("0123456789abcdef"):
            raise BadInput(f"the {name} checksum {value[:80]!r} is not {digits} hexadecimal digits")
    return lowered


class _Adler32:
    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _hasher(name: str) -> Hasher:
    if name == "md5":
        return hashlib.md5(usedforsecurity=False)
    if name == "adler32":
        return _Adler32()
    if name == "blake3":
        try:
            blake3: Hasher = importlib.import_module("blake3").blake3()
        except ImportError as missing:
            raise BadInput(
                "BLAKE3 checksums need the package blake3", remedy="pip install blake3"
            ) from missing
        return blake3
    raise BadInput(f"checksum algorithm {name[:40]!r} is not one of {', '.join(ALGORITHMS)}")
