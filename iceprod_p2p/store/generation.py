"""LMDB behind one door: one environment on disk with the databases `ledger`, `log` and `meta`.

`Generation` is such an environment with its life: opened, read and written, retired when a snapshot replaces it,
and deleted once its last reader has left.  Its transactions are LMDB's own: durable with two flushes of the disk.
What a tick commits goes through `layered` first.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Final

import lmdb

from iceprod_p2p.store.errors import StoreError, store_error
from iceprod_p2p.store.format import FORMAT_KEY, check_format, note_format
from iceprod_p2p.store.place import PLACE_KEY, is_placed, note_place
from iceprod_p2p.store.transactions import ReadSnapshot, WriteTransaction

MAP_SIZE_BYTES: Final = 64 << 30  # Sparse: address space, not disk.  A month of IceCube's whole history fits.
DATABASES: Final = ("ledger", "log", "meta")
READERS_MAX: Final = 1_000  # Views open at one moment on all threads of the node.


class Generation:
    """One open LMDB environment, closed and deleted when it is retired and its last reader has left.

    Any thread may read; StoreError names what is wrong with the disk or the files.
    """

    def __init__(
        self, path: Path, *, map_size_bytes: int, sync: bool, read_only: bool = False, is_live: bool = False
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
        """Write down which files these are."""
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
        """Count a reader in; False when the generation is retired."""
        with self._guard:
            if self._retired:
                return False
            self._readers += 1
            return True

    def leave(self) -> None:
        """Count a reader out."""
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

    def sync(self) -> None:
        """Put everything written so far on the disk."""
        try:
            self.environment.sync(True)
        except (lmdb.Error, OSError) as cause:
            raise store_error("sync a snapshot", self.path, cause) from cause

    def copy_to(self, target: Path) -> None:
        """Copy the last commit, compacted, into an empty directory.

        `compact=True` takes one read transaction; without it LMDB's copy can deadlock with the writer.
        """
        try:
            target.mkdir(mode=0o700, parents=True)
            self.environment.copy(str(target), compact=True)
        except (lmdb.Error, OSError) as cause:
            shutil.rmtree(target, ignore_errors=True)
            raise store_error("copy the store for a snapshot", target, cause) from cause

    def table_bytes(self, name: str) -> int:
        """Return how many bytes the pages in use of one database take."""
        with self.environment.begin() as transaction:
            found = transaction.stat(self.databases[name])
        return int((found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]) * found["psize"])

    def close(self) -> None:
        """Close the files and keep them."""
        self.environment.close()

    def _remove(self) -> None:
        self.environment.close()
        shutil.rmtree(self.path, ignore_errors=True)
