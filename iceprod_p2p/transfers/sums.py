"""Checksums of files and streams by name, as steering files and storage systems write them.

SHA-256 is what is recorded; MD5 and Adler-32 stand beside it because storage systems keep them: they find damage, not
malice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound

CHUNK_BYTES: Final = 1024 * 1024
LENGTHS: Final = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32, "adler32": 8}
RECORDED: Final = ("sha256", "md5", "adler32")  # Strongest first.


@dataclass(frozen=True, slots=True)
class ExpectedChecksum:
    """A checksum as written in steering files.

    ``sha256:ab12…``, the algorithm told by the length when it is left out.
    """

    algorithm: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> ExpectedChecksum:
        """Read one.

        BadInput when the algorithm is unknown or the digest is not its length of hexadecimal digits.
        """
        algorithm, separator, digest = text.strip().lower().rpartition(":")
        if not separator:
            by_length = {length: name for name, length in LENGTHS.items()}
            algorithm = by_length.get(len(digest), "")
        if LENGTHS.get(algorithm) != len(digest) or not set(digest) <= set("0123456789abcdef"):
            raise BadInput(
                f"{text[:200]!r} is not a checksum",
                remedy=f"write ALGORITHM:HEX, the algorithm one of {', '.join(LENGTHS)}",
            )
        return cls(algorithm, digest)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


def parse_all(text: str) -> tuple[ExpectedChecksum, ...]:
    """Read checksums parted by blanks or commas; none in an empty text.  BadInput as `ExpectedChecksum.parse`."""
    return tuple(ExpectedChecksum.parse(word) for word in text.replace(",", " ").split())


class Digest:
    """A running checksum of one algorithm."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self._adler = 1
        self._hash = None if algorithm == "adler32" else hashlib.new(algorithm, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Take in the next bytes."""
        if self._hash is None:
            self._adler = zlib.adler32(data, self._adler)
        else:
            self._hash.update(data)

    def hexdigest(self) -> str:
        """Return the checksum of all bytes so far, in lower-case hexadecimal."""
        return f"{self._adler:08x}" if self._hash is None else self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a file is: its size in bytes and its checksums by algorithm, in hexadecimal digits."""

    size_bytes: int
    sums: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Its SHA-256; empty when it was not measured."""
        return self.sums.get("sha256", "")


class Meter:
    """Adds up a stream as it passes, in several algorithms; not for use from several threads."""

    def __init__(self, algorithms: Iterable[str] = RECORDED) -> None:
        self._digests = {name: Digest(name) for name in algorithms}
        self.size_bytes = 0

    def update(self, data: bytes) -> None:
        """Take in the next bytes."""
        self.size_bytes += len(data)
        for digest in self._digests.values():
            digest.update(data)

    def result(self) -> Measured:
        """Return the sums of what has passed."""
        return Measured(self.size_bytes, {name: digest.hexdigest() for name, digest in self._digests.items()})


def measure_file(
    path: Path, algorithms: Iterable[str] = RECORDED, *, size_bytes: int | None = None
) -> Measured:
    """Return a file's size and sums, reading it (or its first `size_bytes`) once in pieces; NotFound without one."""
    meter = Meter(algorithms)
    left = sys.maxsize if size_bytes is None else size_bytes
    try:
        with path.open("rb") as file:
            while left and (data := file.read(min(left, CHUNK_BYTES))):
                meter.update(data)
                left -= len(data)
    except (FileNotFoundError, IsADirectoryError) as missing:
        raise NotFound(f"the file {str(path)!r} does not exist") from missing
    return meter.result()


def check_digest(what: str, expected: ExpectedChecksum, found: str) -> None:
    """Compare a digest with the one expected; IntegrityError when they differ."""
    if not hmac.compare_digest(found, expected.digest):
        raise IntegrityError(
            f"{what} has {expected.algorithm} {found}, not the {expected.digest} that was expected"
        )


def check_all(what: str, expected: Iterable[ExpectedChecksum], found: Measured) -> None:
    """Compare every expected digest with what was measured; IntegrityError at the first that differs."""
    for checksum in expected:
        check_digest(what, checksum, found.sums[checksum.algorithm])


def from_header(value: str) -> dict[str, str]:
    """Read HTTP's ``Digest`` (RFC 3230) or ``Repr-Digest`` (RFC 9530) field; what is not understood is left out."""
    found = {}
    for part in value.split(","):
        name, separator, text = part.strip().partition("=")
        algorithm = name.strip().lower().replace("-", "")
        algorithm = "sha1" if algorithm == "sha" else algorithm
        digits = LENGTHS.get(algorithm)
        if not separator or digits is None:
            continue
        text = text.strip().strip(":")
        if len(text) == digits and set(text.lower()) <= set("0123456789abcdef"):
            found[algorithm] = text.lower()
            continue
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(raw) * 2 == digits:
            found[algorithm] = raw.hex()
    return found
