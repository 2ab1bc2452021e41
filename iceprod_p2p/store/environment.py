"""The store of one node: its data directory, the generation in use, copies of it, and the next one being built.

    data_dir/
      LOCK            held exclusively while a process has the directory open
      CURRENT         the name of the generation in use
      raft-000001/    one generation: the LMDB environment (`data.mdb`) with the databases `ledger`, `log` and `meta`,
                      and the write-ahead log (`wal-0`, `wal-1`) of the commits that are not in its pages yet
      scratch/        copies made for snapshots; emptied at open

What one tick of the Raft thread does is one write transaction; its commit is one flush of the write-ahead log
(`layered`).  Readers on any thread take short snapshots.  A snapshot from another node is built as a new generation
beside the one in use and becomes current by one atomic rename, so it is installed whole or not at all.

The environment knows the files it was made in (`place`, by inode): files that were copied or restored one by one
are refused, for a copy may be older than what its node promised since.

Deliberately absent: a retry after a failed commit (an fsync that failed once says nothing about the disk; the
node stops and starts again from what is on disk), and nested transactions.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
from iceprod_p2p.store.generation import MAP_SIZE_BYTES, Generation
from iceprod_p2p.store.layered import LayeredSnapshot, LayeredStore, LayeredWrite, StoppedSnapshot
from iceprod_p2p.store.transactions import ReadSnapshot, WriteTransaction
from iceprod_p2p.store.wal import TURN_BYTES

log = get_logger("store")


class SnapshotCopy:
    """A finished private copy of the tables at one commit, read page by page and deleted by `close`."""

    def __init__(self, generation: Generation) -> None:
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
        self._generation = Generation(path, map_size_bytes=map_size_bytes, sync=False)

    def write(self) -> WriteTransaction:
        """Begin a write transaction in the staging area; at most one at a time."""
        return WriteTransaction(self._generation)

    def sync(self) -> None:
        """Put everything written so far on the disk, with a note of which files these are."""
        self._generation.note_place()
        self._generation.sync()

    def close(self) -> None:
        """Close the staging area and leave its files for `Environment.swap`."""
        self._generation.close()

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
        turn_bytes: int = TURN_BYTES,
        sync: bool = True,
        may_be_copy: bool = False,
    ) -> None:
        """Open the store; `may_be_copy` only for reading what is left of a node that will not run again."""
        self.path = Path(path)
        self._turn_bytes = turn_bytes
        self._may_be_copy = may_be_copy
        self._map_size_bytes = map_size_bytes
        self._sync = sync
        self._lock_fd = lock_directory(self.path)
        try:
            self._remove_leftovers()
            self._number = generation_number(read_current(self.path))
            self._store = self._open(self._number)
            write_current(self.path, self._generation.path.name)
        except (StoreError, OSError) as cause:
            os.close(self._lock_fd)
            if isinstance(cause, OSError):
                raise store_error("open the store", self.path, cause) from cause
            raise
        self._writing = False
        self._scratch_number = 0

    @property
    def _generation(self) -> Generation:
        return self._store.generation

    def write(self) -> LayeredWrite:
        """Begin the write transaction of one tick."""
        return self._store.write()

    @contextmanager
    def read(self) -> Iterator[LayeredSnapshot]:
        """Give one short read snapshot, on any thread; StoreError when too many are open."""
        store = self._enter()
        try:
            snapshot = store.read()
            try:
                yield snapshot
            finally:
                snapshot.close()
        finally:
            store.generation.leave()

    def _enter(self) -> LayeredStore:
        store = self._store
        while not store.generation.enter():  # A snapshot was installed between the two: take the new one.
            store = self._store
        return store

    def checkpoint(self) -> None:
        """Bring the pages up to the last commit; slow, on any thread that has no transaction open."""
        self._store.checkpoint()

    def copy(self) -> SnapshotCopy:
        """Make a private, compacted copy of the last commit.  Slow: call it on a thread of its own."""
        store = self._enter()
        self._scratch_number += 1
        target = self.path / "scratch" / f"copy-{self._scratch_number:06}"
        try:
            store.checkpoint()
            store.generation.copy_to(target)
        finally:
            store.generation.leave()
        return SnapshotCopy(
            Generation(target, map_size_bytes=self._map_size_bytes, sync=False, read_only=True)
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
        old = self._store
        self._number += 1
        self._store = self._open(self._number)
        old.retire()
        log.info("snapshot installed", generation=self._generation.path.name)

    def used_bytes(self) -> int:
        """Return how many bytes the pages of the current generation take on disk."""
        return (self._generation.path / "data.mdb").stat().st_size

    def table_bytes(self, name: str) -> int:
        """Return how many bytes the pages in use of one database take (`ledger`, `log`, `meta`), as of a checkpoint."""
        store = self._enter()
        try:
            return store.generation.table_bytes(name)
        finally:
            store.generation.leave()

    def close(self) -> None:
        """Close the store and release the directory; harmless when repeated."""
        if self._lock_fd >= 0:
            self._store.close()
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _generation_path(self, number: int) -> Path:
        return self.path / f"raft-{number:06}"

    def _open(self, number: int) -> LayeredStore:
        path = self._generation_path(number)
        generation = Generation(path, map_size_bytes=self._map_size_bytes, sync=self._sync)
        generation.check_place(may_be_copy=self._may_be_copy)
        try:
            return LayeredStore(generation, sync=self._sync, turn_bytes=self._turn_bytes)
        except BaseException:
            generation.close()
            raise

    def _remove_leftovers(self) -> None:
        """Delete scratch copies and generations that are not current: a crash left them."""
        shutil.rmtree(self.path / "scratch", ignore_errors=True)
        current = read_current(self.path)
        for other in sorted(self.path.glob("raft-*")):
            if current and other.name != current:
                shutil.rmtree(other, ignore_errors=True)


@contextmanager
def look_into(root: Path, *, is_live: bool) -> Iterator[tuple[StoppedSnapshot | ReadSnapshot, Path, int]]:
    """Give the present state of a store that this process does not own, its path, and its transaction's number.

    Nothing is changed.  With `is_live` another process writes it meanwhile: shown is its last checkpoint, some
    seconds old, and it stays as it is, so be quick.  StoreError when it cannot be opened, or its write-ahead log is
    damaged; verify a store that may be damaged first (`store.verify`).
    """
    path = root / (read_current(root) or "raft-000001")
    generation = Generation(path, map_size_bytes=MAP_SIZE_BYTES, sync=False, read_only=True, is_live=is_live)
    snapshot = ReadSnapshot(generation)
    try:
        yield snapshot if is_live else StoppedSnapshot(snapshot, path), path, snapshot.number
    finally:
        snapshot.close()
        generation.close()
