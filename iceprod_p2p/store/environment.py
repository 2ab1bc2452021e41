"""The only door to LMDB: one environment per node holds log, term, vote and every replicated table.

    data_dir/
      LOCK            held exclusively while a process has the directory open
      CURRENT         the name of the generation in use
      raft-000001/    one generation: the LMDB environment with the databases `ledger`, `log` and `meta`
      scratch/        copies made for snapshots; emptied at open

What one tick of the Raft thread does is one `WriteTransaction`; its commit is one fsync.  Readers on any
thread take short `ReadSnapshot`s.  A snapshot from another node is built as a new generation beside the one
in use and becomes current by one atomic rename, so it is installed whole or not at all.

The environment knows the files it was made in (`place`, by inode): files that were copied or restored one by one
are refused, for a copy may be older than what its node promised since.

Deliberately absent: a retry after a failed commit (an fsync that failed once says nothing about the disk; the
node stops and starts again from what is on disk), and nested transactions.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.store.directory import (
    generation_number,
    lock_directory,
    read_current,
    sync_directory,
    write_current,
)
from iceprod_p2p.store.errors import StoreError, store_error
from iceprod_p2p.store.format import FORMAT_KEY, check_format, note_format
from iceprod_p2p.store.place import PLACE_KEY, is_placed, note_place
from iceprod_p2p.store.transactions import ReadSnapshot, WriteTransaction

MAP_SIZE_BYTES: Final = 64 << 30  # Sparse: address space, not disk.  A month of IceCube's whole history fits.
DATABASES: Final = ("ledger", "log", "meta")
READERS_MAX: Final = 1_000  # Views open at one moment on all threads of the node.

log = get_logger("store")


class _Generation:
    """One open LMDB environment, closed when it is retired and its last reader has left."""

    def __init__(
        self,
        path: Path,
        *,
        map_size_bytes: int,
        sync: bool,
        read_only: bool = False,
        is_live: bool = False,
    ) -> None:
        self.path = path
        self._readers = 0
        self._retired = False
        self._guard = threading.Lock()
        try:
            if not read_only:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.environment = lmdb.open(
                str(path),
                map_size=map_size_bytes,
                max_dbs=len(DATABASES),
                max_readers=READERS_MAX,
                max_spare_txns=8,
                readonly=read_only,
                create=not read_only,
                lock=is_live or not read_only,
                sync=sync,
                metasync=sync,
            )
            self.databases = {
                name: self.environment.open_db(name.encode(), create=not read_only) for name in DATABASES
            }
        except (lmdb.Error, OSError) as cause:
            raise store_error("open the store", path, cause) from cause

    def note_place(self) -> None:
        transaction = WriteTransaction(self)
        note_place(transaction.meta, self.path)
        note_format(transaction.meta)
        transaction.commit()

    def check_place(self, *, may_be_copy: bool) -> None:
        """Refuse files of another format, and copied ones; close the environment then."""
        snapshot = ReadSnapshot(self)
        try:
            noted = snapshot.meta.get(PLACE_KEY) is not None
            if noted:
                check_format(snapshot.meta.get(FORMAT_KEY), self.path)
            if not may_be_copy:
                is_placed(snapshot.meta, self.path)
        except StoreError:
            snapshot.close()
            self.environment.close()
            raise
        snapshot.close()
        if not noted:
            self.note_place()

    def enter(self) -> bool:
        with self._guard:
            if self._retired:
                return False
            self._readers += 1
            return True

    def leave(self) -> None:
        with self._guard:
            self._readers -= 1
            last = self._retired and self._readers == 0
        if last:
            self._remove()

    def retire(self) -> None:
        """Take no more readers; when the last has left, close the environment and delete its files."""
        with self._guard:
            self._retired = True
            last = self._readers == 0
        if last:
            self._remove()

    def _remove(self) -> None:
        self.environment.close()
        shutil.rmtree(self.path, ignore_errors=True)


class SnapshotCopy:
    """A finished private copy of the tables at one commit, read page by page and deleted by `close`."""

    def __init__(self, generation: _Generation) -> None:
        self._generation = generation

    @contextmanager
    def read(self) -> Iterator[ReadSnapshot]:
        """Give a read snapshot of the copy; it never changes, so any two are equal."""
        snapshot = ReadSnapshot(self._generation)
        try:
            yield snapshot
        finally:
            snapshot.close()

    def close(self) -> None:
        """Delete the copy."""
        self._generation.retire()


class Staging:
    """A new generation being filled beside the one in use, for `Environment.swap` or `discard`."""

    def __init__(self, path: Path, *, map_size_bytes: int) -> None:
        self.path = path
        shutil.rmtree(path, ignore_errors=True)
        # Pages of a staging area need no fsync of their own: it counts only after `sync`.
        self._generation = _Generation(path, map_size_bytes=map_size_bytes, sync=False)

    def write(self) -> WriteTransaction:
        """Begin a write transaction in the staging area; at most one at a time."""
        return WriteTransaction(self._generation)

    def sync(self) -> None:
        """Put everything written so far on the disk, with a note of which files these are."""
        self._generation.note_place()
        try:
            self._generation.environment.sync(True)
        except (lmdb.Error, OSError) as cause:
            raise store_error("sync a snapshot", self.path, cause) from cause

    def close(self) -> None:
        """Close the staging area and leave its files for `Environment.swap`."""
        self._generation.environment.close()

    def discard(self) -> None:
        """Delete the staging area; nothing of it was ever visible."""
        self._generation.retire()


class Environment:
    """The store of one node: one thread writes, any thread reads, one process has the directory."""

    def __init__(
        self,
        path: Path | str,
        *,
        map_size_bytes: int = MAP_SIZE_BYTES,
        sync: bool = True,
        may_be_copy: bool = False,
    ) -> None:
        """Open the store; `may_be_copy` only for reading what is left of a node that will not run again."""
        self.path = Path(path)
        self._map_size_bytes = map_size_bytes
        self._sync = sync
        self._lock_fd = lock_directory(self.path)
        try:
            self._remove_leftovers()
            self._number = generation_number(read_current(self.path))
            self._generation = self._open(self._number)
            self._generation.check_place(may_be_copy=may_be_copy)
            write_current(self.path, self._generation.path.name)
        except (StoreError, OSError) as cause:
            os.close(self._lock_fd)
            if isinstance(cause, OSError):
                raise store_error("open the store", self.path, cause) from cause
            raise
        self._writing = False
        self._scratch_number = 0

    def write(self) -> WriteTransaction:
        """Begin the write transaction of one tick."""
        try:
            return WriteTransaction(self._generation)
        except (lmdb.Error, OSError) as cause:
            raise store_error("begin a write", self._generation.path, cause) from cause

    @contextmanager
    def read(self) -> Iterator[ReadSnapshot]:
        """Give one short read snapshot, on any thread; StoreError when too many are open."""
        generation = self._generation
        while not generation.enter():  # A snapshot was installed between the two lines: take the new one.
            generation = self._generation
        try:
            snapshot = ReadSnapshot(generation)
        except lmdb.Error as cause:
            generation.leave()
            raise store_error("read", generation.path, cause) from cause
        try:
            yield snapshot
        finally:
            snapshot.close()
            generation.leave()

    def copy(self) -> SnapshotCopy:
        """Make a private, compacted copy of the last commit.  Slow: call it on a thread of its own.

        `compact=True` takes one read transaction; without it LMDB's copy can deadlock with the writer.
        """
        generation = self._generation
        while not generation.enter():
            generation = self._generation
        self._scratch_number += 1
        target = self.path / "scratch" / f"copy-{self._scratch_number:06}"
        try:
            target.mkdir(mode=0o700, parents=True)
            generation.environment.copy(str(target), compact=True)
        except (lmdb.Error, OSError) as cause:
            shutil.rmtree(target, ignore_errors=True)
            raise store_error("copy the store for a snapshot", target, cause) from cause
        finally:
            generation.leave()
        return SnapshotCopy(
            _Generation(target, map_size_bytes=self._map_size_bytes, sync=False, read_only=True)
        )

    def stage(self) -> Staging:
        """Begin an empty next generation for an arriving snapshot; an earlier unfinished one is dropped."""
        return Staging(self._generation_path(self._number + 1), map_size_bytes=self._map_size_bytes)

    def swap(self, staging: Staging) -> None:
        """Make a staged generation the current one, atomically and durably; readers finish on the old.

        Called by the writing thread between two write transactions.
        """
        if staging.path != self._generation_path(self._number + 1):
            raise StoreError(f"the snapshot in {staging.path} was staged for another generation")
        try:
            staging.sync()
            staging.close()
            sync_directory(staging.path)
            passing("store.current.before")
            write_current(self.path, staging.path.name)
            passing("store.current.after")
        except OSError as cause:
            raise store_error("install a snapshot", self.path, cause) from cause
        old = self._generation
        self._number += 1
        self._generation = self._open(self._number)
        old.retire()
        log.info("snapshot installed", generation=self._generation.path.name)

    def used_bytes(self) -> int:
        """Return how many bytes the current generation takes on disk."""
        return (self._generation.path / "data.mdb").stat().st_size

    def table_bytes(self, name: str) -> int:
        """Return how many bytes the pages in use of one database take (`ledger`, `log`, `meta`)."""
        generation = self._generation
        while not generation.enter():
            generation = self._generation
        try:
            with generation.environment.begin() as transaction:
                found = transaction.stat(generation.databases[name])
        finally:
            generation.leave()
        return int((found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]) * found["psize"])

    def close(self) -> None:
        """Close the store and release the directory; harmless when repeated."""
        if self._lock_fd >= 0:
            self._generation.environment.close()
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _generation_path(self, number: int) -> Path:
        return self.path / f"raft-{number:06}"

    def _open(self, number: int) -> _Generation:
        path = self._generation_path(number)
        return _Generation(path, map_size_bytes=self._map_size_bytes, sync=self._sync)

    def _remove_leftovers(self) -> None:
        """Delete scratch copies and generations that are not current: a crash left them."""
        shutil.rmtree(self.path / "scratch", ignore_errors=True)
        current = read_current(self.path)
        for other in sorted(self.path.glob("raft-*")):
            if current and other.name != current:
                shutil.rmtree(other, ignore_errors=True)


@contextmanager
def look_into(root: Path, *, is_live: bool) -> Iterator[tuple[ReadSnapshot, Path, int]]:
    """Give the present state of a store that this process does not own, its path, and its transaction's number.

    Nothing is changed.  With `is_live` another process writes it meanwhile; what is shown stays as it is, so
    be quick.  StoreError when it cannot be opened; verify a store that may be damaged first (`store.verify`).
    """
    path = root / (read_current(root) or "raft-000001")
    generation = _Generation(path, map_size_bytes=MAP_SIZE_BYTES, sync=False, read_only=True, is_live=is_live)
    snapshot = ReadSnapshot(generation)
    try:
        yield snapshot, path, snapshot.number
    finally:
        snapshot.close()
        generation.environment.close()
