"""A key space in memory: for tests and simulation, with the same order and the same answers as the one on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sortedcontainers import SortedDict


class MemoryTables:
    """An ordered map from bytes to bytes (`ledger.keyvalue.KeyValue`). One thread at a time."""

    def __init__(self, items: Mapping[bytes, bytes] | None = None) -> None:
        self._items: SortedDict[bytes, bytes] = SortedDict(items or {})

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        value: bytes | None = self._items.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`; ValueError when the store on disk would not take the key."""
        if not 0 < len(key) <= 511:
            raise ValueError(f"a key of {len(key)} bytes")
        self._items[key] = value

    def delete(self, key: bytes) -> None:
        """Remove `key`, if it is there."""
        self._items.pop(key, None)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield pairs with ``start <= key < stop`` in byte order, or backwards."""
        items = self._items
        for key in items.irange(start, stop, inclusive=(True, False), reverse=reverse):
            yield key, items[key]

    def copy(self) -> MemoryTables:
        """Return a copy that later changes do not touch."""
        return MemoryTables(self._items)

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return every pair in order."""
        return list(self._items.items())

    def __len__(self) -> int:
        return len(self._items)
