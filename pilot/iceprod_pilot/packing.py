"""Compressed inputs opened and outputs compressed, where a steering file says ``compression``.

What a file is, is told by its first bytes, never by its name.  Archives are unpacked into the task's directory beside
what is there; nothing is overwritten, and sizes are bounded by the task's disk.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import zlib
from pathlib import Path
from typing import IO, Any, Final

from iceprod_p2p.base.errors import BadInput, IntegrityError

CHUNK_BYTES: Final = 1024 * 1024
_MAGIC: Final = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_ENDINGS: Final = (".gz", ".bz2", ".xz", ".bz", ".lzma")
_WORDS: Final = {
    "true": "gz",
    "gzip": "gz",
    "gz": "gz",
    "bzip": "bz2",
    "bz2": "bz2",
    "lzma": "xz",
    "xz": "xz",
}
_TAR_MARK: Final = (257, b"ustar")
_DAMAGED: Final = (EOFError, OSError, lzma.LZMAError, zlib.error)


def unpack(path: Path, directory: Path, *, bytes_max: int) -> None:
    """Open a packed input at `path`, below `directory`: an archive beside it, a file in its place without its ending.

    A file that is not packed stays as it is.  BadInput when it holds what may not be, is larger than `bytes_max` when
    open, or would overwrite something; IntegrityError when it is damaged.
    """
    if _is_tar(path):
        _unpack_archive(path, directory, bytes_max)
        return
    kind = _kind(path)
    if not kind:
        return
    target = path.with_suffix("") if path.suffix in _ENDINGS else path
    scratch = path.with_name(f".{path.name}.open")
    try:
        with _open(path, kind) as source, scratch.open("wb") as out:
            _copy(source, out, bytes_max, path.name)
    except _DAMAGED as fault:
        scratch.unlink(missing_ok=True)
        raise IntegrityError(f"{path.name} is damaged: {fault}") from fault
    path.unlink()
    scratch.replace(target)


def pack(path: Path, scratch: Path, *, compression: str) -> Path:
    """Return a compressed copy of an output in the directory `scratch`, or `path` itself when it is one already.

    Equal content gives equal bytes.  BadInput for a compression that pilots do not know.
    """
    kind = _WORDS.get(compression)
    if kind is None:
        raise BadInput(f"compression {compression!r} is not known to pilots", remedy="use gzip, bz2 or xz")
    if _kind(path):
        return path
    target = scratch / f"{path.name}.{kind}"
    with path.open("rb") as source, target.open("wb") as raw:
        packers: dict[str, Any] = {
            "gz": lambda: gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0),
            "bz2": lambda: bz2.BZ2File(raw, "wb"),
            "xz": lambda: lzma.open(raw, "wb"),  # noqa: SIM115  (opened by the next statement)
        }
        with packers[kind]() as packer:
            shutil.copyfileobj(source, packer, CHUNK_BYTES)
    return target


def _unpack_archive(path: Path, directory: Path, bytes_max: int) -> None:
    # Only tasks with archives pay for this import.
    from iceprod_p2p.modules.archive import unpack as unpack_archive

    scratch = path.with_name(f".{path.name}.tree")
    unpack_archive(path, scratch, size_max_bytes=bytes_max)
    for entry in sorted(scratch.iterdir()):
        target = directory / entry.name
        if target.exists() or target.is_symlink():
            raise BadInput(f"unpacking {path.name} would overwrite {entry.name}")
        entry.rename(target)
    scratch.rmdir()


def _is_tar(path: Path) -> bool:
    kind = _kind(path)
    offset, mark = _TAR_MARK
    try:
        with _open(path, kind) as source:
            return source.read(offset + len(mark))[offset:] == mark
    except _DAMAGED:
        return False  # Opening it will say what is wrong.


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(6)
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def _open(path: Path, kind: str) -> IO[bytes]:
    openers: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    opened: IO[bytes] = openers.get(kind, open)(path, "rb")
    return opened


def _copy(source: IO[bytes], target: IO[bytes], bytes_max: int, name: str) -> None:
    total = 0
    while piece := source.read(CHUNK_BYTES):
        total += len(piece)
        if total > bytes_max:
            raise BadInput(f"{name} is larger than the {bytes_max} bytes of disk of the task when it is open")
        target.write(piece)
