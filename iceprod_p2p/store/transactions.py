"""One transaction over the three databases of a store, and the tables it reads and writes.

Every value of the ledger carries a checksum of itself and its key, so that a damaged page is named when it is
read, and never becomes part of the state.  (LMDB has no checksums; the log's entries and the records in `meta`
carry their own.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from zlib import crc32

import lmdb

from iceprod_p2p.store.errors import StoreBroken, store_error

KEY_BYTES_MAX: Final = 511
SEAL_BYTES: Final = 4
RESIDUE: Final = (
    0x2144DF1C  # What CRC-32 gives for any bytes followed by their own CRC, whatever it began with.
)
# Of five rows side by side, three make the pages and two fill them: seven to nine tenths full, where one pass leaves
# them half full.  Of larger rows so few fit on a page that LMDB splits it elsewhere, and fillers would split it again.
PERIOD: Final = 5
FILLERS: Final = frozenset({1, 3})
SMALL_BYTES: Final = 200


class Generation(Protocol):
    """What a transaction needs of an open environment."""

    path: Path
    environment: lmdb.Environment

    @property
    def databases(self) -> Mapping[str, Any]:
        """The open databases by name."""
        ...


class Table:
    """One named database seen through one transaction: an ordered map of bytes to bytes.

    Lives as long as its transaction.  Never write while a `scan` is being walked: take a page first.
    """

    __slots__ = ("_database", "_path", "_transaction")

    def __init__(self, transaction: lmdb.Transaction, generation: Generation, name: str) -> None:
        self._transaction = transaction
        self._database = generation.databases[name]
        self._path = generation.path

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        return self._transaction.get(key, None, self._database)  # type: ignore[return-value]

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` (1 to 511 bytes) to `value`."""
        try:
            self._transaction.put(key, value, db=self._database)
        except lmdb.Error as cause:
            raise store_error("write", self._path, cause) from cause

    def delete(self, key: bytes) -> None:
        """Remove `key` if it is there."""
        try:
            self._transaction.delete(key, db=self._database)
        except lmdb.Error as cause:
            raise store_error("write", self._path, cause) from cause

    def put_all(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Set many keys, given in byte order.

        LMDB splits a full page in the middle, so small rows written one after the other leave every page half
        empty for good.  A little more than half of them make the pages, the rest fill those.
        """
        makers: list[tuple[bytes, bytes]] = []
        fillers: list[tuple[bytes, bytes]] = []
        for number, pair in enumerate(pairs):
            fills = number % PERIOD in FILLERS and len(pair[0]) + len(pair[1]) <= SMALL_BYTES
            (fillers if fills else makers).append(pair)
        try:
            with self._transaction.cursor(self._database) as cursor:
                cursor.putmulti(makers)
                cursor.putmulti(fillers)
        except lmdb.Error as cause:
            raise store_error("write", self._path, cause) from cause

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Walk the pairs with `start <= key < stop` in byte order, or from the last to the first."""
        with self._transaction.cursor(self._database) as cursor:
            pair: tuple[bytes, bytes]
            if reverse:
                if not (cursor.prev() if cursor.set_range(stop) else cursor.last()):
                    return
                for pair in cursor.iterprev():  # type: ignore[assignment]
                    if pair[0] < start:
                        return
                    yield pair
            elif cursor.set_range(start):
                for pair in cursor.iternext():  # type: ignore[assignment]
                    if pair[0] >= stop:
                        return
                    yield pair


class SealedTable(Table):
    """A table whose values carry a checksum; StoreBroken names the key of one that is damaged."""

    __slots__ = ()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        stored: bytes | None = self._transaction.get(key, None, self._database)  # type: ignore[assignment]
        if stored is None:
            return None
        if crc32(stored, crc32(key)) != RESIDUE:
            raise damaged(self._path, key)
        return stored[:-SEAL_BYTES]

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` (1 to 511 bytes) to `value`."""
        super().put(key, _sealed(key, value))

    def put_all(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Set many keys, given in byte order."""
        super().put_all([(key, _sealed(key, value)) for key, value in pairs])

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Walk the pairs with `start <= key < stop` in byte order, or from the last to the first."""
        for key, stored in super().scan(start, stop, reverse=reverse):
            if crc32(stored, crc32(key)) != RESIDUE:
                raise damaged(self._path, key)
            yield key, stored[:-SEAL_BYTES]


def _sealed(key: bytes, value: bytes) -> bytes:
    return value + crc32(value, crc32(key)).to_bytes(SEAL_BYTES, "little")


def damaged(path: Path, key: bytes) -> StoreBroken:
    """The error that names a record whose checksum differs."""
    return StoreBroken(
        f"the record {key.hex()} of the ledger in {path} is damaged (checksum differs)",
        remedy="take part again under a new node id: iceprod-node rejoin",
    )


class WriteTransaction:
    """One write transaction, at most one at a time in all threads; ended by `commit` or `abort`, once."""

    __slots__ = ("_generation", "_transaction", "ledger", "log", "meta")

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        try:
            self._transaction = generation.environment.begin(write=True)
        except lmdb.Error as cause:
            raise store_error("begin a write", generation.path, cause) from cause
        self.ledger = SealedTable(self._transaction, generation, "ledger")
        self.log = Table(self._transaction, generation, "log")
        self.meta = Table(self._transaction, generation, "meta")

    def table(self, name: str) -> Table:
        """Return a database by name."""
        return {"ledger": self.ledger, "log": self.log, "meta": self.meta}[name]

    def commit(self) -> None:
        """Make all of it durable (nothing happens if nothing was written); StoreError if that failed."""
        try:
            self._transaction.commit()
        except (lmdb.Error, OSError) as cause:
            raise store_error("commit", self._generation.path, cause) from cause

    def abort(self) -> None:
        """Forget all of it."""
        self._transaction.abort()


class ReadSnapshot:
    """One consistent point of all databases, for any thread; close it within seconds, or the file grows."""

    __slots__ = ("_transaction", "ledger", "log", "meta")

    def __init__(self, generation: Generation) -> None:
        try:
            self._transaction = generation.environment.begin()
        except lmdb.Error as cause:
            raise store_error("read", generation.path, cause) from cause
        self.ledger = SealedTable(self._transaction, generation, "ledger")
        self.log = Table(self._transaction, generation, "log")
        self.meta = Table(self._transaction, generation, "meta")

    @property
    def number(self) -> int:
        """The number of the last transaction that it shows."""
        return int(self._transaction.id())

    def close(self) -> None:
        """End the snapshot; its tables must not be used any more."""
        self._transaction.abort()
