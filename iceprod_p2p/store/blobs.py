"""Content-addressed files: each is stored once, under the SHA-256 of its bytes, and never changes.

    ROOT/ab/cd/abcd…64 digits       a whole, verified blob, mode 0444
    ROOT/incoming/…                 what is being written; emptied when the store opens
    ROOT/partial/64 digits          the beginning of a transfer that was cut short, for a while

A blob appears by an atomic rename after its bytes are on disk, so a reader sees the whole of it or nothing.
Several threads or processes may put the same bytes at once: the last rename wins and changes nothing.
Which blobs are worth keeping is not decided here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound, Unavailable
from iceprod_p2p.base.failpoints import passing

CHUNK_BYTES: Final = 1024 * 1024
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_INCOMING: Final = "incoming"
_PARTIAL: Final = "partial"
PARTIAL_KEPT_S: Final = 86_400  # Whoever sends again does so within minutes; a day covers a long repair.
PARTIAL_BYTES_LEAST: Final = 1024 * 1024  # Less is sent again sooner than it is compared.
PARTIALS_MAX: Final = 1_000
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored file: SHA-256 in 64 lower-case hex digits, and size."""

    digest: str
    size_bytes: int


class BlobStore:
    """The blobs under one directory.  All methods block on the disk; safe from any thread."""

    def __init__(self, root: Path) -> None:
        """Open (or make) the store; Unavailable when the directory cannot be used.

        What an earlier process left half written is removed, so one process at a time may open a store.
        """
        self._root = root
        self._incoming = root / _INCOMING
        self._partial = root / _PARTIAL
        self._resuming: set[str] = set()
        self._lock = threading.Lock()
        with _disk_errors(root):
            self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in self._incoming.iterdir():
                leftover.unlink()
            self._partial.mkdir(mode=0o700, exist_ok=True)
        self.drop_old_partials()

    def put_file(self, path: Path, *, expected_digest: str | None = None) -> Blob:
        """Copy a file in; otherwise as `put_stream`.  NotFound when `path` cannot be read."""
        try:
            stream = path.open("rb")
        except OSError as fault:
            raise NotFound(f"cannot read {path}: {fault.strerror}") from fault
        with stream:
            return self.put_stream(_chunks(stream), expected_digest=expected_digest)

    def put_bytes(self, content: bytes) -> Blob:
        """Store a small document."""
        return self.put_stream((content,))

    def put_stream(
        self, chunks: Iterable[bytes], *, expected_digest: str | None = None, max_bytes: int | None = None
    ) -> Blob:
        """Store the chunks in order and return the blob, durable.

        IntegrityError when the bytes do not have `expected_digest`; BadInput as soon as there are more than
        `max_bytes`; Unavailable when the disk is full.  On any error, the iterator's own included, nothing
        remains.
        """
        with self.writer(max_bytes=max_bytes) as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit(expected_digest=expected_digest)

    @contextmanager
    def writer(self, *, max_bytes: int | None = None, resumes: str = "") -> Iterator[BlobWriter]:
        """Give a writer for bytes that arrive piece by piece; without its `commit` nothing is stored.

        With `resumes`, the digest that is expected, what was written is kept when the writer is left without commit,
        and the next such writer begins behind it (`size_bytes`; `restart` begins anew).  One at a time may do so: to
        others the same digest is given as if nothing were kept.
        """
        with self._lock:
            alone = bool(resumes) and resumes not in self._resuming
            if alone:
                self._resuming.add(resumes)
        try:
            with _disk_errors(self._incoming):
                descriptor, name = tempfile.mkstemp(dir=self._incoming)
            keep_as = self._partial_path(resumes) if alone else None
            writer = BlobWriter(self, descriptor, Path(name), max_bytes=max_bytes, keep_as=keep_as)
            try:
                yield writer
            finally:
                writer.discard()
        finally:
            if alone:
                with self._lock:
                    self._resuming.discard(resumes)

    def kept(self, digest: str) -> tuple[int, str]:
        """Return how many bytes of a transfer that was cut short are kept, and their SHA-256; (0, "") for none.

        Also while the transfer is under way again: then nothing is said to be kept.
        """
        with self._lock:
            if digest in self._resuming:
                return 0, ""
        hasher, size_bytes = hashlib.sha256(), 0
        try:
            with self._partial_path(digest).open("rb") as stream:
                for chunk in _chunks(stream):
                    hasher.update(chunk)
                    size_bytes += len(chunk)
        except FileNotFoundError:
            return 0, ""
        return size_bytes, hasher.hexdigest()

    def drop_old_partials(self) -> None:
        """Remove beginnings that nobody has gone on with for a day, and the oldest of too many."""
        found = []
        for path in self._partial.iterdir():
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime, path))
        found.sort()
        newest_s = max((at_s for at_s, _ in found), default=0.0)
        for index, (at_s, path) in enumerate(found):
            if newest_s - at_s > PARTIAL_KEPT_S or len(found) - index > PARTIALS_MAX:
                path.unlink(missing_ok=True)

    def _partial_path(self, digest: str) -> Path:
        self.path(digest)  # Refuses what is no digest.
        return self._partial / digest

    def open(self, digest: str) -> IO[bytes]:
        """Open a blob, and note that it is read now; NotFound when it is not here, BadInput for a malformed digest."""
        path = self.path(digest)
        with suppress(OSError):
            os.utime(path)
        try:
            return open(path, "rb")
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in this store") from None

    def idle_s(self, digest: str, now_s: float) -> float:
        """Return for how long before `now_s` (wall time) a blob was neither stored nor read; 0 when it is not here."""
        try:
            return max(0.0, now_s - self.path(digest).stat().st_mtime)
        except FileNotFoundError:
            return 0.0

    def read(self, digest: str, *, max_bytes: int) -> bytes:
        """Return a small blob's bytes, verified; BadInput when it is larger than `max_bytes`, else as
        `verify`.
        """
        with self.open(digest) as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise BadInput(f"blob {digest} has more than {max_bytes} bytes")
        if hashlib.sha256(content).hexdigest() != digest:
            raise IntegrityError(
                f"blob {digest} is damaged on disk", remedy="fetch it again from another node"
            )
        return content

    def path(self, digest: str) -> Path:
        """Return where a blob lies or would lie; BadInput unless `digest` is 64 lower-case hex digits."""
        if _DIGEST.fullmatch(digest) is None:
            raise BadInput(f"{digest[:80]!r} is not a SHA-256 of 64 lower-case hexadecimal digits")
        return self._root / digest[:2] / digest[2:4] / digest

    def has(self, digest: str) -> bool:
        """Return whether the blob is here (its bytes are not read)."""
        return self.path(digest).is_file()

    def size_bytes(self, digest: str) -> int:
        """Return a blob's size; NotFound when it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in this store") from None

    def beginning(self, digest: str, size_bytes: int) -> str:
        """Return the SHA-256 of a blob's first bytes; NotFound when it is not here."""
        hasher = hashlib.sha256()
        with self.open(digest) as stream:
            while size_bytes > 0 and (chunk := stream.read(min(size_bytes, CHUNK_BYTES))):
                hasher.update(chunk)
                size_bytes -= len(chunk)
        return hasher.hexdigest()

    def delete(self, digest: str) -> bool:
        """Remove a blob; False when it was not here.  Those who have it open can read on."""
        path = self.path(digest)
        with _disk_errors(path):
            passing("blob.delete.before")
            try:
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def verify(self, digest: str) -> Blob:
        """Read a blob again; NotFound when it is missing, IntegrityError when its bytes have changed."""
        hasher, size_bytes = hashlib.sha256(), 0
        with self.open(digest) as stream:
            for chunk in _chunks(stream):
                hasher.update(chunk)
                size_bytes += len(chunk)
        if hasher.hexdigest() != digest:
            raise IntegrityError(
                f"blob {digest} is damaged on disk: its bytes now have SHA-256 {hasher.hexdigest()}",
                remedy="delete it and fetch it again from another node",
            )
        return Blob(digest, size_bytes)

    def __iter__(self) -> Iterator[Blob]:
        """Yield the blobs in order of digest; those that come or go meanwhile may be missed."""
        for first in sorted(os.listdir(self._root)):
            if len(first) != 2:
                continue
            for second in sorted(os.listdir(self._root / first)):
                for digest in sorted(os.listdir(self._root / first / second)):
                    if _DIGEST.fullmatch(digest) and self.has(digest):
                        yield Blob(digest, self.size_bytes(digest))


class BlobWriter:
    """One blob on its way in; made by `BlobStore.writer`, used by one thread at a time."""

    def __init__(
        self,
        store: BlobStore,
        descriptor: int,
        path: Path,
        *,
        max_bytes: int | None,
        keep_as: Path | None = None,
    ) -> None:
        self._keep_as = keep_as
        self._store = store
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._path = path
        self._max_bytes = max_bytes
        self._hasher = hashlib.sha256()
        self.size_bytes = 0
        if keep_as is not None:
            self._take_up(keep_as)

    def _take_up(self, kept: Path) -> None:
        """Go on behind what an earlier writer kept."""
        try:
            os.replace(kept, self._path)
        except FileNotFoundError:
            return
        self._file.close()
        self._file = open(self._path, "r+b", buffering=0)  # noqa: SIM115  (closed by `discard`)
        for chunk in _chunks(self._file):
            self._hasher.update(chunk)
            self.size_bytes += len(chunk)

    def restart(self) -> None:
        """Begin anew: what was written, by earlier writers too, is void."""
        self._file.seek(0)
        self._file.truncate()
        self._hasher = hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append bytes; BadInput past the limit, Unavailable when the disk is full."""
        self.size_bytes += len(chunk)
        if self._max_bytes is not None and self.size_bytes > self._max_bytes:
            raise BadInput(f"more than {self._max_bytes} bytes were sent, which is the limit here")
        self._hasher.update(chunk)
        try:
            with _disk_errors(self._path):
                view = memoryview(chunk)
                while view:
                    view = view[self._file.write(view) or 0 :]
        except Unavailable:
            self._keep_as = None  # It ends within a piece; and what is kept on a full disk keeps it full.
            raise

    def commit(self, *, expected_digest: str | None = None) -> Blob:
        """Make the blob durable and visible; IntegrityError when it is not `expected_digest`."""
        digest = self._hasher.hexdigest()
        if expected_digest is not None and digest != expected_digest:
            self._keep_as = None  # It was not cut short: it is wrong.
            raise IntegrityError(
                f"received {self.size_bytes} bytes with SHA-256 {digest} instead of {expected_digest[:80]}",
                remedy="send or fetch it again",
            )
        target = self._store.path(digest)
        with _disk_errors(target):
            os.fchmod(self._file.fileno(), 0o444)
            passing("blob.sync.before")
            os.fsync(self._file.fileno())
            passing("blob.rename.before")
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.replace(self._path, target)
            passing("blob.rename.after")
            for directory in (target.parent, target.parent.parent, target.parent.parent.parent):
                _sync(directory)
        passing("blob.sync.after")
        return Blob(digest, self.size_bytes)

    def discard(self) -> None:
        """Close the file and remove it if it was not committed; one that may be resumed is kept apart."""
        self._file.close()
        if self._keep_as is not None and self.size_bytes >= PARTIAL_BYTES_LEAST:
            with suppress(FileNotFoundError):
                os.replace(self._path, self._keep_as)
        self._path.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        if fault.errno in _FULL:
            raise Unavailable(
                f"the disk that holds {path} is full",
                remedy="make room or move the data directory; then repeat",
                retry_after_s=30.0,
            ) from fault
        raise Unavailable(
            f"cannot use {path}: {fault.strerror}", remedy="mend the disk or its permissions"
        ) from fault


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
