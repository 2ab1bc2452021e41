"""Content-addressed files: each is stored once, under the SHA-256 of its bytes, and never changes.

    ROOT/ab/cd/abcd…64 digits       a whole, verified blob, mode 0444
    ROOT/incoming/…                 what is being written; emptied when the store opens

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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound, Unavailable
from iceprod_p2p.base.failpoints import passing

CHUNK_BYTES: Final = 1024 * 1024
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_INCOMING: Final = "incoming"
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
        with _disk_errors(root):
            self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in self._incoming.iterdir():
                leftover.unlink()

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
    def writer(self, *, max_bytes: int | None = None) -> Iterator[BlobWriter]:
        """Give a writer for bytes that arrive piece by piece; without its `commit` nothing is stored."""
        with _disk_errors(self._incoming):
            descriptor, name = tempfile.mkstemp(dir=self._incoming)
        writer = BlobWriter(self, descriptor, Path(name), max_bytes=max_bytes)
        try:
            yield writer
        finally:
            writer.discard()

    def open(self, digest: str) -> IO[bytes]:
        """Open a blob for reading; NotFound when it is not here, BadInput for a malformed digest."""
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in this store") from None

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

    def __init__(self, store: BlobStore, descriptor: int, path: Path, *, max_bytes: int | None) -> None:
        self._store = store
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._path = path
        self._max_bytes = max_bytes
        self._hasher = hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append bytes; BadInput past the limit, Unavailable when the disk is full."""
        self.size_bytes += len(chunk)
        if self._max_bytes is not None and self.size_bytes > self._max_bytes:
            raise BadInput(f"more than {self._max_bytes} bytes were sent, which is the limit here")
        self._hasher.update(chunk)
        with _disk_errors(self._path):
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) or 0 :]

    def commit(self, *, expected_digest: str | None = None) -> Blob:
        """Make the blob durable and visible; IntegrityError when it is not `expected_digest`."""
        digest = self._hasher.hexdigest()
        if expected_digest is not None and digest != expected_digest:
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
        """Close the file and remove it if it was not committed."""
        self._file.close()
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
