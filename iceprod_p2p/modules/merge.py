"""Merge and Catalogue: what comes after all jobs of a dataset, or after one.

Files that a task gathers by a pattern lie in a directory for each job, named by its number; so names sort by job.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.statistics import clip

FORMATS: Final = ("bytes", "lines", "csv", "npz")
FILES_MAX: Final = 200_000


def input_files(names: list[str]) -> list[Path]:
    """Return the files that names, patterns (``*`` and ``?``) and directories stand for, each list sorted.

    NotFound for a name or pattern that stands for none; BadInput when they are too many.
    """
    found: list[Path] = []
    for name in names:
        here = sorted(_files_of(name))
        if not here:
            raise NotFound(f"{clip(name)} is no file here, and stands for none")
        found += here
        if len(found) > FILES_MAX:
            raise BadInput(f"more than {FILES_MAX} files are to be merged", remedy="merge in two steps")
    return found


def _files_of(name: str) -> Iterator[Path]:
    path = Path(name)
    if path.is_dir():
        return (inner for inner in path.rglob("*") if inner.is_file())
    if "*" in name or "?" in name:
        return (inner for inner in Path().glob(name) if inner.is_file())
    return iter([path] if path.is_file() else [])


class Merge(IPModule):
    """Join files into one: bytes, lines of text, tables (CSV, one heading), or arrays (NumPy's npz, end to end)."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("infiles", "files, patterns or directories, in order", ["inputs"], "string_list")
        self.AddParameter("outfile", "file to write", "merged", "string")
        self.AddParameter("format", f"one of {', '.join(FORMATS)}", "bytes", "string")

    def Execute(self, stats: Statistics) -> int:
        """Write the output whole or not at all.

        NotFound when an input is missing; BadInput, naming it, when one does not suit the others.
        """
        kind = self.GetParameter("format")
        if kind not in FORMATS:
            raise BadInput(f"there is no format {clip(kind)}", remedy=f"use one of {', '.join(FORMATS)}")
        paths = input_files(self.GetParameter("infiles"))
        output = Path(self.GetParameter("outfile"))
        partial = output.with_name(output.name + ".partial")
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            rows = _WRITERS[kind](paths, partial, lambda done: self.context.progress(done / len(paths)))
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
        stats["files_merged"] = len(paths)
        stats["bytes_merged"] = output.stat().st_size
        if rows >= 0:
            stats["rows_merged"] = rows
        return 0


Told = Callable[[int], None]


def _merge_bytes(paths: list[Path], target: Path, told: Told) -> int:
    with target.open("wb") as out:
        for index, path in enumerate(paths):
            with path.open("rb") as source:
                shutil.copyfileobj(source, out)
            told(index + 1)
    return -1


def _merge_lines(paths: list[Path], target: Path, told: Told) -> int:
    return _merge_text(paths, target, told, headed=False)


def _merge_csv(paths: list[Path], target: Path, told: Told) -> int:
    return _merge_text(paths, target, told, headed=True)


def _merge_text(paths: list[Path], target: Path, told: Told, *, headed: bool) -> int:
    """Join lines; every line ends, also the last of a file; of equal headings the first stays."""
    rows, heading = 0, b""
    with target.open("wb") as out:
        for index, path in enumerate(paths):
            with path.open("rb") as source:
                if headed:
                    first = source.readline().rstrip(b"\r\n")
                    if index == 0:
                        heading = first
                        out.write(heading + b"\n")
                    elif first != heading:
                        raise BadInput(f"{path} has the heading {clip(first)}, not {clip(heading)}")
                for line in source:
                    out.write(line if line.endswith(b"\n") else line + b"\n")
                    rows += 1
            told(index + 1)
    return rows


def _merge_npz(paths: list[Path], target: Path, told: Told) -> int:
    try:
        import numpy  # the library does without it, and only this format needs it
    except ImportError as missing:
        raise BadInput("merging npz files needs numpy on the worker node") from missing
    from iceprod_p2p.modules.npz import write_npz

    parts: dict[str, list[Any]] = {}
    for index, path in enumerate(paths):
        with numpy.load(path, allow_pickle=False) as arrays:
            if index and set(arrays.files) != parts.keys():
                raise BadInput(f"{path} has the arrays {sorted(arrays.files)}, not {sorted(parts)}")
            for name in arrays.files:
                parts.setdefault(name, []).append(numpy.atleast_1d(arrays[name]))
        told(index + 1)
    try:
        merged = {name: numpy.concatenate(found) for name, found in parts.items()}
    except ValueError as wrong:
        raise BadInput(f"the arrays do not fit together: {wrong}") from wrong
    write_npz(target, merged)
    return max((len(array) for array in merged.values()), default=0)


_WRITERS: Final = {"bytes": _merge_bytes, "lines": _merge_lines, "csv": _merge_csv, "npz": _merge_npz}


class Catalogue(IPModule):
    """Write a catalogue of recorded files: names, sizes, checksums and places, as the cluster knows them.

    In a task that comes after the whole dataset, of all its jobs; else of the task's own job.
    """

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("pattern", "names of files; * and ? stop at a slash", "*", "string")
        self.AddParameter("patterns", "several of them", [], "string_list")
        self.AddParameter("outfile", "JSON file to write", "catalogue.json", "string")
        self.AddParameter("metadata", "what the catalogue says of the dataset", {}, "json")
        self.AddParameter("temporary", "whether files that will go are listed too", False, "bool")

    def Execute(self, stats: Statistics) -> int:
        """Ask the site and write the file; SiteRefused when there is nobody to ask."""
        wanted = [*self.GetParameter("patterns")] or [self.GetParameter("pattern")]
        with_temporary = self.GetParameter("temporary")
        files: dict[tuple[int, str], dict[str, Any]] = {}
        for pattern in wanted:
            for entry in self._found(pattern):
                if with_temporary or entry["kind"] == "permanent":
                    files[entry["job"], entry["name"]] = entry
        listed = [files[key] for key in sorted(files)]
        total = sum(int(entry["size_bytes"]) for entry in listed)
        document = {
            "metadata": self.GetParameter("metadata"),
            "files": listed,
            "count": len(listed),
            "size_bytes": total,
        }
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
        Path(self.GetParameter("outfile")).write_text(text + "\n", encoding="utf-8")
        stats["files_catalogued"] = len(listed)
        stats["bytes_catalogued"] = total
        return 0

    def _found(self, pattern: str) -> Iterator[dict[str, Any]]:
        after: Any = None
        while True:
            answer: Any = self.context.call_site("find_files", {"pattern": pattern, "after": after})
            yield from answer["files"]
            after = answer["after"]
            if after is None:
                return
