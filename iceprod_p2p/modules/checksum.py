"""Checksums of files, and the module that stops a job whose input is not what was promised."""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.statistics import clip

CHUNK_BYTES = 1024 * 1024
# md5 and adler32 only because storage systems record them; they find damage, not malice.
LENGTHS = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32, "adler32": 8}


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
                f"{clip(text)} is not a checksum",
                remedy=f"write ALGORITHM:HEX, the algorithm one of {', '.join(LENGTHS)}",
            )
        return cls(algorithm, digest)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


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


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's checksum, reading it once in pieces; NotFound when there is none."""
    digest = Digest(algorithm)
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
    except (FileNotFoundError, IsADirectoryError) as missing:
        raise NotFound(f"the file {str(path)!r} does not exist") from missing
    return digest.hexdigest()


def verify(path: Path, expected: ExpectedChecksum) -> None:
    """Return if the file has this checksum.

    IntegrityError naming the file, expected and found when it has not.
    """
    check_digest(str(path), expected, file_digest(path, expected.algorithm))


def check_digest(what: str, expected: ExpectedChecksum, found: str) -> None:
    """Compare a digest with the one expected; IntegrityError when they differ."""
    if not hmac.compare_digest(found, expected.digest):
        raise IntegrityError(
            f"{what} has {expected.algorithm} {found}, not the {expected.digest} that was expected"
        )


class Checksum(IPModule):
    """Verify files against checksums, or write their checksums to a file that `sha256sum -c` reads."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("files", "files to read", [], "string_list")
        self.AddParameter(
            "expected", "their checksums, in the same order; none: only compute", [], "string_list"
        )
        self.AddParameter("output", "file to write 'digest  name' lines to; empty: none", "", "string")
        self.AddParameter("algorithm", f"for the output: {', '.join(LENGTHS)}", "sha256", "string")

    def Execute(self, stats: Statistics) -> int:
        """Check every file; IntegrityError at the first that is not what was expected."""
        paths = [Path(name) for name in self.GetParameter("files")]
        expected = [ExpectedChecksum.parse(text) for text in self.GetParameter("expected")]
        if expected and len(expected) != len(paths):
            raise BadInput(
                f"{len(paths)} files were given with {len(expected)} checksums", remedy="give one for each"
            )
        for path, checksum in zip(paths, expected, strict=False):
            verify(path, checksum)
        if self.GetParameter("output"):
            self._write(paths)
        stats["files_checked"] = len(paths)
        stats["bytes_checked"] = sum(path.stat().st_size for path in paths)
        return 0

    def _write(self, paths: Iterable[Path]) -> None:
        algorithm = self.GetParameter("algorithm")
        if algorithm not in LENGTHS:
            raise BadInput(
                f"there is no algorithm {clip(algorithm)}", remedy=f"use one of {', '.join(LENGTHS)}"
            )
        lines = [f"{file_digest(path, algorithm)}  {path}\n" for path in paths]
        Path(self.GetParameter("output")).write_text("".join(lines), encoding="utf-8")
