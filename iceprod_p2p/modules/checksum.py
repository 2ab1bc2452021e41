"""Checksums of files, and the module that stops a job whose input is not what was promised."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.statistics import clip
from iceprod_p2p.transfers.sums import LENGTHS, ExpectedChecksum, check_digest, measure_file

__all__ = ["Checksum", "ExpectedChecksum", "file_digest", "verify"]


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's checksum, reading it once in pieces; NotFound when there is none."""
    return measure_file(path, (algorithm,)).sums[algorithm]


def verify(path: Path, expected: ExpectedChecksum) -> None:
    """Return if the file has this checksum.

    IntegrityError naming the file, expected and found when it has not.
    """
    check_digest(str(path), expected, file_digest(path, expected.algorithm))


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
