"""The store of one generation: commits go into a write-ahead log and into memory, and in turns into LMDB's pages.

A commit is one record of the log, durable after one flush of one file; readers see it at once, through the layers
in memory over the pages.  When a turn of the log is full, its layer is *frozen*, and a thread writes it into the
pages in one LMDB transaction, with the number of the last commit in it (a *checkpoint*); then its half of the log is
free.  At open, the commits after the checkpoint are read back from the log and written into the pages.  So
whatever happens in between, a process that starts again finds one commit and everything before it.

A commit need not be `lasting`: it is then written without waiting for the disk.  It outlives the process, but a
power cut may take it back, with every one after it that was not lasting either.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.store.errors import StoreError, store_error
from iceprod_p2p.store.generation import DATABASES, Generation
from iceprod_p2p.store.layers import Layer, LayeredTable, WritableTable
from iceprod_p2p.store.transactions import ReadSnapshot, WriteTransaction
from iceprod_p2p.store.wal import FIRST, TURN_BYTES, WriteAheadLog, records

CHECKPOINT_KEY: Final = b"checkpoint"  # In the database `meta`: the last commit that the pages hold.

CHECKPOINT_S: Final = (
    10.0  # Pages are no older, while commits come: whoever looks into the files sees that much.
)

log = get_logger("store")
_Layers = tuple[Layer, Layer, Layer]


class LayeredSnapshot:
    """One commit, for any thread; close it within seconds, or the file grows."""

    __slots__ = ("_frozen", "_live", "_pages", "_store", "_version", "ledger")

    def __init__(
        self,
        store: LayeredStore,
        live: _Layers,
        frozen: _Layers | None,
        pages: ReadSnapshot,
        version: int,
    ) -> None:
        self._store = store
        self._live = live
        self._frozen = frozen
        self._pages = pages
        self._version = version
        self.ledger = LayeredTable(live[0], frozen and frozen[0], pages.ledger, version)

    @property
    def log(self) -> LayeredTable:
        """The log's rows."""
        return LayeredTable(self._live[1], self._frozen and self._frozen[1], self._pages.log, self._version)

    @property
    def meta(self) -> LayeredTable:
        """The node's own records."""
        return LayeredTable(self._live[2], self._frozen and self._frozen[2], self._pages.meta, self._version)

    @property
    def number(self) -> int:
        """The number of the pages' last transaction, the last checkpoint."""
        return self._pages.number

    def close(self) -> None:
        """End the snapshot; its tables must not be used any more."""
        self._pages.close()
        self._store.left(self._version)


class StoppedSnapshot:
    """The last commit of a store that no process has open: its pages, and over them its write-ahead log."""

    __slots__ = ("ledger", "log", "meta")

    def __init__(self, pages: ReadSnapshot, path: Path) -> None:
        layers = _layers()
        noted = pages.meta.get(CHECKPOINT_KEY)
        version = FIRST if noted is None else int(noted)
        for number, tables in records(path, version):
            for layer, changes in zip(layers, tables, strict=True):
                for key, value in changes.items():
                    layer.put(key, value, number, number)
            version = number
        self.ledger = LayeredTable(layers[0], None, pages.ledger, version)
        self.log = LayeredTable(layers[1], None, pages.log, version)
        self.meta = LayeredTable(layers[2], None, pages.meta, version)


class LayeredWrite:
    """Everything one tick writes; used by the one writing thread only, ended by `commit` or `abort`."""

    __slots__ = ("_open", "_store", "_tables", "ledger", "log", "meta")

    def __init__(self, store: LayeredStore, tables: list[WritableTable]) -> None:
        self._store = store
        self._tables = tables
        self.ledger, self.log, self.meta = tables
        self._open = True

    def commit(self, *, lasting: bool = True) -> None:
        """Write it down, for readers to see; durable when this returns if it is `lasting`.

        StoreError if that failed; nothing of it is seen then.
        """
        try:
            self._store.commit([table.written for table in self._tables], lasting=lasting)
        except StoreError:
            self.abort()
            raise
        self._end()

    def abort(self) -> None:
        """Forget all of it; harmless once the transaction has ended."""
        if self._open:
            for table in self._tables:
                table.take_back()
            self._end()

    def _end(self) -> None:
        self._open = False
        self._store.end_write()


class LayeredStore:
    """One generation in use: one thread writes, any thread reads.  StoreError names what the disk refuses."""

    def __init__(self, generation: Generation, *, sync: bool, turn_bytes: int = TURN_BYTES) -> None:
        self.generation = generation
        self._guard = threading.Lock()  # For the few lines that must see layers, version and pages together.
        self._writing = threading.Lock()  # Held by the open write transaction.
        self._turnstile = (
            threading.Lock()
        )  # Whoever waits for `_writing` holds it: a busy writer starves nobody.
        self._live = _layers()
        self._frozen: _Layers | None = None
        self._readers: dict[int, int] = {}  # How many read each version.
        self._thread: threading.Thread | None = None
        self._failure: StoreError | None = None
        self._log = WriteAheadLog(generation.path, sync=sync, turn_bytes=turn_bytes)
        try:
            self._settled = self._recover()
        except BaseException:
            self._log.close()
            raise
        self._committed = self._settled
        self._pages = ReadSnapshot(generation)  # The writer's own.
        self._pages_old = False
        self._clock = SystemClock()
        self._due_s = self._clock.monotonic_s() + CHECKPOINT_S

    def _recover(self) -> int:
        """Bring the pages up to the last commit in the log; return its number."""
        transaction = WriteTransaction(self.generation)
        try:
            noted = transaction.meta.get(CHECKPOINT_KEY)
            settled = number = FIRST if noted is None else int(noted)
            for last, tables in self._log.replay(settled):
                number = last
                for name, changes in zip(DATABASES, tables, strict=True):
                    _write(transaction, name, changes)
            if number > settled:
                transaction.meta.put(CHECKPOINT_KEY, b"%d" % number)
                log.info("commits read back from the write-ahead log", commits=number - settled)
        except BaseException:
            transaction.abort()
            raise
        transaction.commit()
        self._log.clear()
        return number

    # Reading.

    def read(self) -> LayeredSnapshot:
        """Take a snapshot of the last commit; its `close` must be called."""
        with self._guard:
            version = self._committed
            pages = ReadSnapshot(self.generation)
            self._readers[version] = self._readers.get(version, 0) + 1
            return LayeredSnapshot(self, self._live, self._frozen, pages, version)

    def left(self, version: int) -> None:
        """A snapshot was closed."""
        with self._guard:
            self._readers[version] -= 1
            if not self._readers[version]:
                del self._readers[version]

    # Writing.

    def write(self) -> LayeredWrite:
        """Begin the one write transaction."""
        with self._turnstile:
            self._writing.acquire()
        try:
            if self._failure is not None:
                raise self._failure
            with self._guard:
                frozen, live = self._frozen, self._live
                oldest = min(self._readers, default=self._committed)
                if self._pages_old:
                    self._pages.close()
                    self._pages = ReadSnapshot(self.generation)
                    self._pages_old = False
            version, pages = self._committed + 1, self._pages
            return LayeredWrite(
                self,
                [
                    WritableTable(live[0], frozen and frozen[0], pages.ledger, version, oldest),
                    WritableTable(live[1], frozen and frozen[1], pages.log, version, oldest),
                    WritableTable(live[2], frozen and frozen[2], pages.meta, version, oldest),
                ],
            )
        except BaseException:
            self._writing.release()
            raise

    def commit(self, tables: list[dict[bytes, bytes | None]], *, lasting: bool) -> None:
        """Commit what the open transaction wrote."""
        if not any(tables):
            if lasting:
                self._log.flush()
            return
        self._committed = self._log.append(tables, lasting=lasting)
        if self._log.is_full or self._clock.monotonic_s() > self._due_s:
            if self._log.is_overdue and self._thread is not None:
                self._thread.join()  # The disk is slower than the writer: memory must stay bounded.
            if self._frozen is None and self._failure is None:
                self._freeze()

    def end_write(self) -> None:
        """The transaction has ended: another may begin."""
        self._writing.release()

    # Checkpoints.

    def checkpoint(self) -> None:
        """Bring the pages up to the last commit and wait for it; on any thread, with no transaction of its own open."""
        while True:
            with self._turnstile:
                self._writing.acquire()
            try:
                if self._failure is not None:
                    raise self._failure
                begun = self._frozen is None
                if begun:
                    if self._committed == self._settled:
                        return
                    self._freeze()
                thread = self._thread
            finally:
                self._writing.release()
            assert thread is not None
            thread.join()
            if begun:
                if self._failure is not None:
                    raise self._failure
                return

    def _freeze(self) -> None:
        """Begin a checkpoint of what is in memory; called between two transactions, or at the end of one."""
        self._log.turn()
        self._due_s = self._clock.monotonic_s() + CHECKPOINT_S
        with self._guard:
            frozen, self._frozen, self._live = self._live, self._live, _layers()
        self._thread = threading.Thread(
            target=self._settle, args=(frozen, self._committed), name="store-checkpoint", daemon=True
        )
        self._thread.start()

    def _settle(self, layers: _Layers, number: int) -> None:
        try:
            passing("store.checkpoint.before")
            transaction = WriteTransaction(self.generation)
            try:
                for name, layer in zip(DATABASES, layers, strict=True):
                    _write(transaction, name, {key: node[1] for key, node in layer.values.items()})
                transaction.meta.put(CHECKPOINT_KEY, b"%d" % number)
            except BaseException:
                transaction.abort()
                raise
            transaction.commit()
            passing("store.checkpoint.after")
        except StoreError as error:
            self._failure = error
        except Exception as cause:
            self._failure = store_error("make a checkpoint", self.generation.path, cause)
        else:
            with self._guard:
                self._settled = number
                self._frozen = None
                self._pages_old = True

    # Ending.

    def close(self) -> None:
        """Make a last checkpoint, if the disk lets us, and close the files."""
        try:
            self.checkpoint()
        except StoreError as error:
            log.warning("closed without a checkpoint: the log holds what is missing", error=str(error))
        self._let_go()
        self.generation.close()

    def retire(self) -> None:
        """Another generation has taken its place: delete the files when the last reader has left."""
        if self._thread is not None:
            self._thread.join()
        self._let_go()
        self.generation.retire()

    def _let_go(self) -> None:
        self._pages.close()
        self._log.close()


def _layers() -> _Layers:
    return Layer(), Layer(), Layer()


def _write(transaction: WriteTransaction, name: str, changes: dict[bytes, bytes | None]) -> None:
    table = transaction.table(name)
    for key in sorted(
        key for key, value in changes.items() if value is None
    ):  # First: they leave room on pages.
        table.delete(key)
    table.put_all([(key, value) for key, value in sorted(changes.items()) if value is not None])
