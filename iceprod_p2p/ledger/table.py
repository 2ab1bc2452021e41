"""One table of the ledger: records by key, kept decoded for one entry and written back at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger.keyvalue import KeyValue

R = TypeVar("R")
_UNREAD: Any = object()


class Table(Generic[R]):
    """Records of one kind by key: read through, written back by `flush`."""

    __slots__ = ("_decode", "_dirty", "_encode", "_kv", "_records")

    def __init__(self, kv: KeyValue, decode: Callable[[bytes], R], encode: Callable[[R], bytes]) -> None:
        self._kv = kv
        self._decode = decode
        self._encode = encode
        self._records: dict[bytes, R | None] = {}
        self._dirty: set[bytes] = set()

    def get(self, key: bytes) -> R | None:
        """Return the record, or None. A mutable one may be changed if it is then given to `put`."""
        record = self._records.get(key, _UNREAD)
        if record is _UNREAD:
            raw = self._kv.get(key)
            record = None if raw is None else self._decode(raw)
            self._records[key] = record
        return record

    def put(self, key: bytes, record: R) -> None:
        """Set the record of `key`."""
        self._records[key] = record
        self._dirty.add(key)

    def delete(self, key: bytes) -> None:
        """Remove the record of `key`, if there is one."""
        self._records[key] = None
        self._dirty.add(key)

    def flush(self) -> None:
        """Write back what changed."""
        dirty = self._dirty
        for key in sorted(dirty) if len(dirty) > 1 else dirty:
            record = self._records[key]
            if record is None:
                self._kv.delete(key)
            else:
                self._kv.put(key, self._encode(record))
        self._dirty.clear()

    @property
    def changed(self) -> bool:
        """Whether something is still to be written back."""
        return bool(self._dirty)

    def page(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, R]]:
        """Return up to `limit` records with ``start <= key < stop``, in order; what changed is written back first."""
        if self._dirty:
            self.flush()
        found: list[tuple[bytes, R]] = []
        for key, raw in self._kv.scan(start, stop):
            if len(found) >= limit:
                break
            known = self._records.get(key)
            found.append((key, known if known is not None else self._decode(raw)))
        return found

    def walk(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        """Walk the keys with ``start <= key < stop`` in order; each one's record is in hand when its key comes.

        Nothing may be put while it goes on.
        """
        if self._dirty:
            self.flush()
        records, decode = self._records, self._decode
        for key, raw in self._kv.scan(start, stop):
            if records.get(key) is None:
                records[key] = decode(raw)
            yield key

    def under(self, prefix: bytes, limit: int) -> list[tuple[bytes, R]]:
        """Return up to `limit` records whose keys have this prefix, in order."""
        return self.page(prefix, keys.prefix_stop(prefix), limit)
