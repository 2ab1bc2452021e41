"""The pilot bundle: the pilot with all that it needs in one file, for worker nodes that share no file system.

Made from what is installed here, without any network: the packages that a pilot imports, and the distributions behind
them.  Compiled libraries tie it to this Python's minor version, this kind of machine and a C library as old as their
wheels say.  The file is a zip archive that Python runs; unpacked, the same content is a directory that Python runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import iceprod_p2p
from iceprod_p2p.base.errors import ConfigError

FILE_NAME: Final = "pilot.pyz"
FACTS_NAME: Final = "bundle.json"
MAIN_MODULE: Final = "bundle_main.py"
NOT_CARRIED: Final = frozenset(
    {"client", "grids", "ledger", "raft", "site", "store", "web"}
)  # A pilot imports none.
DISTRIBUTIONS: Final = ("cryptography", "grpcio", "msgpack", "msgspec", "protobuf", "structlog")
LEFT_OUT: Final = frozenset({"__pycache__", "tests", "test"})
LEFT_OUT_SUFFIXES: Final = frozenset({".a", ".c", ".h", ".pxd", ".pxi", ".pyc", ".pyi", ".pyx", ".so.debug"})
SHEBANG: Final = b"#!/usr/bin/env python3\n"
MOMENT: Final = (1980, 1, 1, 0, 0, 0)  # The same content gives the same file.
_GLIBC: Final = re.compile(r"manylinux_(\d+)_(\d+)_|manylinux(2014|2010|1)_")
_OLD_NAMES: Final = {"2014": (2, 17), "2010": (2, 12), "1": (2, 5)}


@dataclass(frozen=True, slots=True)
class Content:
    """What a bundle is made of: files by their name in it, and what a worker node must have."""

    files: dict[str, Path]
    python: str
    machine: str
    glibc: tuple[int, int] | None  # None: a library was compiled on this machine, and nobody knows.

    @property
    def key(self) -> str:
        """What changes when any of the files does; reads no content."""
        seen = hashlib.sha256(f"{self.python} {self.machine}\n".encode())
        for name, path in sorted(self.files.items()):
            state = path.stat()
            seen.update(f"{name} {state.st_size} {state.st_mtime_ns}\n".encode())
        return seen.hexdigest()

    def facts(self) -> dict[str, object]:
        """Return what the bundle says of itself."""
        return {
            "version": iceprod_p2p.__version__,
            "python": self.python,
            "machine": self.machine,
            "glibc": ".".join(map(str, self.glibc)) if self.glibc else "",
            "files": len(self.files),
        }

    def needs(self) -> str:
        """Return what a worker node must have, as a sentence for people."""
        glibc = (
            f"glibc {self.glibc[0]}.{self.glibc[1]} or newer"
            if self.glibc
            else "the C library of this machine, as some libraries were compiled here"
        )
        return f"Python {self.python} on {self.machine} with {glibc}"


def gather(more: Sequence[str] = ()) -> Content:
    """Find everything; `more` are further distributions, by name.  ConfigError names one that is not installed."""
    files: dict[str, Path] = {}
    glibc: tuple[int, int] | None = (0, 0)
    for found in _closure([*DISTRIBUTIONS, *more]):
        files.update(_files_of(found))
        needed = _glibc_of(found)
        glibc = None if glibc is None or needed is None else max(glibc, needed)
    files.update(_own_files())
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Content(files, version, platform.machine(), glibc)


def write_file(content: Content, path: Path) -> None:
    """Write the one-file form, whole or not at all, executable for everybody."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(SHEBANG)
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
                for name, data in _entries(content):
                    archive.writestr(_entry(name), data)
        temporary.chmod(0o755)
        temporary.replace(path)
    except OSError as fault:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write {path}: {fault.strerror}", remedy="name a place that you may write"
        ) from fault


def write_directory(content: Content, path: Path) -> None:
    """Write the relocatable directory, which must not be there yet."""
    try:
        path.mkdir(parents=True)
        for name, data in _entries(content):
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    except OSError as fault:
        raise ConfigError(
            f"cannot write {path}: {fault.strerror}", remedy="name a directory that is not there yet"
        ) from fault


def kept_file(directory: Path, more: Sequence[str] = ()) -> Path:
    """Return a one-file bundle of what is installed now, made anew only when that has changed; some seconds then."""
    content = gather(more)
    path, note = directory / FILE_NAME, directory / f"{FILE_NAME}.key"
    if not (path.exists() and note.exists() and note.read_text() == content.key):
        write_file(content, path)
        note.write_text(content.key)
    return path


def _entries(content: Content) -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", (_package("iceprod_pilot") / MAIN_MODULE).read_bytes()
    yield FACTS_NAME, json.dumps(content.facts(), indent=1).encode()
    for name, source in sorted(content.files.items()):
        yield name, source.read_bytes()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, MOMENT)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    return entry


def _closure(names: Sequence[str]) -> list[Distribution]:
    """Return distributions and all that they need, extras left out."""
    found: dict[str, Distribution] = {}
    front = list(names)
    while front:
        name = front.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            found[key] = distribution(name)
        except PackageNotFoundError as missing:
            if name not in names:
                continue  # Needed on other systems alone; what is missing here is not needed here.
            raise ConfigError(
                f"there is no distribution {name!r} here", remedy="install it, or leave it out of the bundle"
            ) from missing
        for line in found[key].requires or ():
            if "extra ==" not in line:
                front.append(re.split(r"[\s<>=!~;\[(]", line.strip(), maxsplit=1)[0])
    return [found[key] for key in sorted(found)]


def _files_of(found: Distribution) -> Iterator[tuple[str, Path]]:
    if not found.files:
        raise ConfigError(
            f"the distribution {found.name} does not say which files it has",
            remedy="install it with pip, not as an editable one",
        )
    for entry in found.files:
        path = Path(str(found.locate_file(entry)))
        if entry.parts[0] != ".." and _wanted(entry.parts) and path.is_file():
            yield entry.as_posix(), path


def _own_files() -> Iterator[tuple[str, Path]]:
    root = _package("iceprod_p2p")
    yield "iceprod_p2p/__init__.py", root / "__init__.py"
    for package in sorted(path for path in root.iterdir() if path.is_dir() and path.name not in NOT_CARRIED):
        yield from _tree(package, f"iceprod_p2p/{package.name}")
    yield from _tree(_package("iceprod_pilot"), "iceprod_pilot")


def _tree(directory: Path, name: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if path.is_file() and _wanted(inside.parts):
            yield f"{name}/{inside.as_posix()}", path


def _wanted(parts: Sequence[str]) -> bool:
    return not LEFT_OUT.intersection(parts) and not any(parts[-1].endswith(end) for end in LEFT_OUT_SUFFIXES)


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the package {name} is not installed here", remedy="install iceprod-p2p again")
    return Path(next(iter(spec.submodule_search_locations)))


def _glibc_of(found: Distribution) -> tuple[int, int] | None:
    """Return the oldest C library for a wheel's libraries; (0, 0) without any, None when they were compiled here."""
    tags = [line for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:")]
    versions = []
    for tag in tags:
        for newer, minor, old in _GLIBC.findall(tag):
            versions.append((int(newer), int(minor)) if newer else _OLD_NAMES[old])
    if versions:
        return min(versions)
    return (0, 0) if all(tag.endswith("-any") for tag in tags) else None
