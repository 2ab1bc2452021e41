"""Tar archives: packed reproducibly, unpacked without trust.

An archive from elsewhere may name ``../../etc/passwd``, hold a link to / and then write through it, claim a
header of 8 GiB, or unfold 10 KiB into a terabyte.  Unpacking refuses each of these before it writes, and
leaves no half archive.

Read: plain tar, gzip, bzip2 and xz, told by their first bytes.  Devices, FIFOs and hard links are refused.

A root file system, in which a container runs, has what other archives may not: links that begin with ``/`` (they end
inside it once it is somebody's root), second names of a file, devices.  They are unpacked, made again, left out.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound
from iceprod_p2p.modules.archive_headers import Entry, check_header, check_links
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.statistics import clip

COPY_BYTES = 256 * 1024
HEADER_BYTES_MAX = (
    256 * 1024
)  # one read of a header or a long name; Linux has 64 KiB in an extended attribute
MEMBERS_MAX = 200_000  # a software tarball has some ten thousand
UNPACKED_BYTES_MAX = 64 * 1024**3


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive held: its files and their bytes."""

    files: int
    size_bytes: int


def pack(archive: Path, names: Iterable[str], *, root: Path) -> Contents:
    """Pack files and directories below `root`, named relative to it, as gzipped tar.

    Equal trees give equal bytes. Owners and times are left out, the entries sorted.  NotFound when a name
    does not exist; BadInput when one lies outside `root` or is neither file, directory nor symbolic link.
    """
    base = root.resolve()
    entries = sorted({entry for name in names for entry in _walk(base, name)})
    partial = archive.with_name(archive.name + ".partial")
    files = size_bytes = 0
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in entries:
            info = _clean(tar.gettarinfo(base / entry, arcname=entry))
            if info.isreg():
                with (base / entry).open("rb") as source:
                    tar.addfile(info, source)
                files, size_bytes = files + 1, size_bytes + info.size
            elif info.isdir() or info.issym():
                tar.addfile(info)
            else:
                raise BadInput(f"{entry!r} is neither a file, a directory nor a symbolic link")
    partial.replace(archive)
    return Contents(files, size_bytes)


def unpack(
    archive: Path,
    target: Path,
    *,
    members_max: int = MEMBERS_MAX,
    size_max_bytes: int = UNPACKED_BYTES_MAX,
    root_filesystem: bool = False,
    go_on: Callable[[], None] = lambda: None,
) -> Contents:
    """Unpack into `target`, which is created or must be an empty directory.

    `go_on` is called for each entry and may raise to break off.  Nothing is left there after an error.  BadInput when
    the archive breaks a bound or holds a path or link that leaves it, or what is not a file, directory or symbolic
    link; IntegrityError when it is damaged or cut; NotFound when there is none.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput(f"{str(target)!r} is not an empty directory", remedy="unpack into a new one")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        reading = _Reading(archive, scratch, members_max, size_max_bytes, root_filesystem, go_on)
        contents = reading.run()
        scratch.chmod(0o755)
        scratch.replace(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return contents


def inspect(archive: Path, *, root_filesystem: bool = False) -> Contents:
    """Return what an archive holds when it is one that `unpack` would take; errors as there, nothing is written."""
    return _Reading(archive, None, MEMBERS_MAX, UNPACKED_BYTES_MAX, root_filesystem).run()


def _walk(base: Path, name: str) -> Iterable[str]:
    top = os.path.normpath(name)
    if os.path.isabs(top) or top.startswith(".."):
        raise BadInput(f"{name!r} lies outside the directory that is packed")
    path = base / top
    if not path.is_symlink() and not path.exists():
        raise NotFound(f"{name!r} does not exist in {str(base)!r}")
    if top != ".":
        yield top
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):
            for entry in [*folders, *files]:
                yield os.path.relpath(os.path.join(folder, entry), base)


def _clean(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.mode & 0o100 or info.isdir() else 0o644
    if info.islnk():  # a second name of one file is packed as a file of its own
        info.type = tarfile.REGTYPE
        info.linkname = ""
    return info


class _BoundedReader(io.RawIOBase):
    """Decompressed bytes, refusing at once a single read that only a hostile header would ask for."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > HEADER_BYTES_MAX:
            raise BadInput(
                f"the archive has a header of {size} bytes, more than the {HEADER_BYTES_MAX} allowed"
            )
        return self._source.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@dataclass(slots=True)
class _Reading:
    """One way through an archive: with a `root` its entries are written, without one they are only judged."""

    archive: Path
    root: Path | None
    members_max: int
    size_max_bytes: int
    root_filesystem: bool
    go_on: Callable[[], None] = lambda: None
    seen: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)  # Each with where it leads.

    def run(self) -> Contents:
        """Read the archive to its end; errors as `unpack` says."""
        name = self.archive.name
        files = members = size_bytes = 0
        with ExitStack() as stack:
            try:
                source = stack.enter_context(_decompressed(self.archive))
                reader = cast("IO[bytes]", _BoundedReader(source))
                tar = stack.enter_context(tarfile.open(fileobj=reader, mode="r:", tarinfo=Entry))
                while (member := tar.next()) is not None:
                    check_header(tar, member)
                    tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has read; a million of them are memory
                    self.go_on()
                    members += 1
                    size_bytes += member.size if member.isreg() else 0
                    if members > self.members_max or size_bytes > self.size_max_bytes:
                        raise BadInput(
                            f"{name} unpacks to more than {self.members_max} entries or {self.size_max_bytes} bytes"
                        )
                    files += self.entry(tar, member)
                _drain(source, self.size_max_bytes)
                if not self.root_filesystem:
                    check_links(self.links)
            except FileNotFoundError as missing:
                raise NotFound(f"the archive {str(self.archive)!r} does not exist") from missing
            except RecursionError as deep:  # tarfile calls itself for each header before an entry
                raise BadInput(f"{name} has too many headers before one entry") from deep
            except (tarfile.TarError, EOFError, gzip.BadGzipFile, OverflowError, ValueError) as damaged:
                raise IntegrityError(f"{name} is not a whole tar archive: {damaged}") from damaged
            except lzma.LZMAError as damaged:
                raise IntegrityError(f"{name} is damaged: {damaged}") from damaged
            except OSError as damaged:
                if damaged.errno is not None:
                    raise  # the disk's word, not the archive's
                raise IntegrityError(f"{name} is damaged: {damaged}") from damaged
        return Contents(files, size_bytes)

    def entry(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
        """Judge one entry, and write it; return 1 for a file and 0 for anything else."""
        name = posixpath.normpath(member.name.removeprefix("/") if self.root_filesystem else member.name)
        if name.startswith("/") or name.split("/")[0] == "..":
            raise BadInput(f"the archive names {clip(member.name)}, which lies outside it")
        if not _is_plain(name):
            raise BadInput(f"the archive names {clip(member.name)}, which cannot be the name of a file")
        if name == "." and member.isdir():
            return 0
        if name == ".":
            raise BadInput("the archive holds something without a name")
        if (name in self.seen and not member.isdir()) or (member.isdir() and name in self.files):
            raise BadInput(f"the archive names {clip(name)} twice")
        parents = list(_parents(name))
        if any(parent in self.files for parent in parents):
            raise BadInput(f"the archive names {clip(name)}, which lies in what is a file")
        if any(parent in self.links for parent in parents) or name in self.links:
            raise BadInput(f"the archive writes {clip(name)} through a link")
        self.seen.update((name, *parents))
        if member.isreg():
            if member.sparse is not None:  # type: ignore[attr-defined,unused-ignore]
                raise BadInput(f"the archive holds {clip(member.name)} as a sparse file")
            self.files.add(name)
        elif member.issym():
            if not member.linkname or not _is_plain(member.linkname):
                raise BadInput(f"the archive links {clip(name)} to what cannot be the name of a file")
            if not self.root_filesystem:
                _check_link(name, member.linkname)
            self.links[name] = member.linkname
        elif member.islnk() and self.root_filesystem:
            aim = posixpath.normpath(member.linkname.removeprefix("/"))
            if aim not in self.files:
                raise BadInput(f"the archive gives {clip(aim)} a second name before it has one")
            self.files.add(name)
        elif not member.isdir() and not (self.root_filesystem and _is_special(member)):
            raise BadInput(
                f"the archive holds {clip(name)}, which is neither file, directory nor symbolic link"
            )
        if self.root is not None:
            self.write(tar, member, name, self.root)
        return int(member.isreg())

    def write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, root: Path) -> None:
        """Write an entry that was judged; the file system is asked again whether it stays inside."""
        path = root / name
        if path.parent.resolve() != (root.resolve() / name).parent:
            raise BadInput(f"the archive writes {clip(name)} through a link")
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.isdir():
            path.mkdir(exist_ok=True)
        elif member.isreg():
            _write_file(tar, member, path)
        elif member.issym():
            path.symlink_to(member.linkname)
        elif member.islnk():
            os.link(root / posixpath.normpath(member.linkname.removeprefix("/")), path)


def _is_plain(name: str) -> bool:
    """Return whether a name can be written down and opened everywhere: UTF-8, without NUL, not too long."""
    try:
        parts = name.split("/")
        return (
            "\0" not in name
            and len(name.encode()) < 1_024
            and all(len(part.encode()) < 250 for part in parts)
        )
    except UnicodeEncodeError:
        return False


def _parents(name: str) -> Iterable[str]:
    while name := posixpath.dirname(name):
        yield name


def _is_special(member: tarfile.TarInfo) -> bool:
    return member.ischr() or member.isblk() or member.isfifo()


def _drain(source: IO[bytes], size_max_bytes: int) -> None:
    """Read what follows the archive's end, so that the compression's own checksum is looked at."""
    read = 0
    while data := source.read(COPY_BYTES):
        read += len(data)
        if read > size_max_bytes:
            raise BadInput(f"more than {size_max_bytes} bytes follow the archive's end")


def _decompressed(archive: Path) -> IO[bytes]:
    with archive.open("rb") as file:
        head = file.read(6)
    if head[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.open(archive, "rb"))
    if head[:3] == b"BZh":
        return cast("IO[bytes]", bz2.open(archive, "rb"))
    if head == b"\xfd7zXZ\x00":
        return cast("IO[bytes]", lzma.open(archive, "rb"))
    return archive.open("rb")


def _write_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise IntegrityError(f"the archive lacks the bytes of {clip(member.name)}")
    with source, path.open("xb") as file:
        left = member.size
        while left:
            data = source.read(min(left, COPY_BYTES))
            if not data:
                raise IntegrityError(f"the archive ends inside {clip(member.name)}")
            file.write(data)
            left -= len(data)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _check_link(name: str, link: str) -> None:
    aim = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
    if link.startswith("/") or aim.startswith(".."):
        raise BadInput(f"the archive links {clip(name)} to {clip(link)}, which lies outside it")


class Pack(IPModule):
    """Pack files and directories of the work directory into a gzipped tar archive, reproducibly."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("files", "files and directories to pack", [], "string_list")
        self.AddParameter("archive", "archive to write", "archive.tar.gz", "string")

    def Execute(self, stats: Statistics) -> int:
        """Write the archive whole or not at all; see `pack` for what is refused."""
        archive = Path(self.GetParameter("archive"))
        contents = pack(archive, self.GetParameter("files"), root=Path.cwd())
        stats["files_packed"] = contents.files
        stats["bytes_packed"] = contents.size_bytes
        return 0


class Unpack(IPModule):
    """Unpack a tar archive into a new directory; refuses what would leave it or grow beyond the bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("archive", "archive to read (tar, tar.gz, tar.bz2)", "archive.tar.gz", "string")
        self.AddParameter("directory", "directory to create", "unpacked", "string")
        self.AddParameter("entries_max", "most entries it may hold", MEMBERS_MAX, "int")
        self.AddParameter("bytes_max", "most bytes it may unpack to", UNPACKED_BYTES_MAX, "int")

    def Execute(self, stats: Statistics) -> int:
        """Unpack all or nothing; see `unpack` for what is refused."""
        contents = unpack(
            Path(self.GetParameter("archive")),
            Path(self.GetParameter("directory")),
            members_max=self.GetParameter("entries_max"),
            size_max_bytes=self.GetParameter("bytes_max"),
        )
        stats["files_unpacked"] = contents.files
        stats["bytes_unpacked"] = contents.size_bytes
        return 0
