"""What was committed and is not in the pages of the store yet: by key, by version, in memory.

A *layer* holds the writes since a checkpoint.  Each key has a short chain of values, newest first, one for each
commit that a reader may still see, so a snapshot costs nothing but its version: nothing is copied.

One thread writes; any thread reads.  That is safe without locks as long as single steps on a dict or list are atomic
(CPython's): chains are never changed once they are stored, and lists of keys only grow at their end or are
replaced whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from heapq import merge
from typing import Any, Final, Protocol

from iceprod_p2p.store.errors import StoreError

KEY_BYTES_MAX: Final = 511  # LMDB's bound.

Value = tuple[int, "bytes | None", Any]
"""(version, value or None for a deleted key, the value before)."""


class Pages(Protocol):
    """A table of the store below, as of the last checkpoint."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


class _Bucket:
    """Keys with one first byte: in order as far as they came in order, the rest sorted when somebody walks them."""

    __slots__ = ("keys", "loose")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.loose: list[bytes] = []

    def add(self, key: bytes) -> None:
        if not self.keys or key > self.keys[-1]:
            self.keys.append(key)
        else:
            self.loose.append(key)

    def ordered(self, *, writer: bool) -> list[bytes]:
        loose = self.loose  # Looked at first: whoever sorts stores the keys before it forgets the loose ones.
        keys = self.keys
        if loose:
            keys = sorted(keys + loose)  # Twice the same is harmless: whoever walks them takes one.
            if writer:
                self.keys = keys
                self.loose = []
        return keys


class Layer:
    """The writes to one table since a checkpoint."""

    __slots__ = ("_buckets", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, Value] = {}
        self._buckets: dict[int, _Bucket] = {}

    def put(self, key: bytes, value: bytes | None, version: int, oldest: int) -> None:
        """Store a value of `version`; values that no reader from version `oldest` on can see are let go."""
        values = self.values
        before = values.get(key)
        if before is None:
            values[key] = (version, value, None)
            bucket = self._buckets.get(key[0])
            if bucket is None:
                bucket = self._buckets[key[0]] = _Bucket()
            bucket.add(key)
        elif before[0] == version:
            values[key] = (version, value, before[2])
        else:
            if before[2] is not None and before[0] <= oldest:
                before = (before[0], before[1], None)
            values[key] = (version, value, before)

    def take_back(self, key: bytes) -> None:
        """Undo the newest value of a key: its transaction was aborted."""
        before = self.values[key][2]
        if before is None:
            del self.values[key]  # It stays in its place in the order: what has no value is never shown.
        else:
            self.values[key] = before

    def keys(self, start: bytes, stop: bytes, *, reverse: bool, writer: bool) -> Iterator[bytes]:
        """Walk the keys with ``start <= key < stop``, also those that a reader's version does not have."""
        if not self.values or start >= stop:
            return
        low, high = start[:1] or b"\0", stop[:1]
        buckets = [number for number in list(self._buckets) if low[0] <= number <= (high[0] if high else -1)]
        for number in sorted(buckets, reverse=reverse):
            keys = self._buckets[number].ordered(writer=writer)
            first, last = bisect_left(keys, start), bisect_left(keys, stop)
            for position in range(last - 1, first - 1, -1) if reverse else range(first, last):
                yield keys[position]


class LayeredTable:
    """One table as of one version: what was written since the last checkpoints over the pages below.

    `frozen` is a layer that is on its way into the pages, if there is one; every value in it is older than
    this view.
    """

    __slots__ = ("_frozen", "_live", "_pages", "_version")
    _writer = False

    def __init__(self, live: Layer, frozen: Layer | None, pages: Pages, version: int) -> None:
        self._live = live
        self._frozen = frozen
        self._pages = pages
        self._version = version

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        node = self._live.values.get(key)
        while node is not None:
            if node[0] <= self._version:
                return node[1]
            node = node[2]
        if self._frozen is not None:
            node = self._frozen.values.get(key)
            if node is not None:
                return node[1]
        return self._pages.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Refused: a snapshot is only read."""
        raise StoreError("a snapshot is only read", remedy="write in a write transaction")

    def delete(self, key: bytes) -> None:
        """Refused: a snapshot is only read."""
        raise StoreError("a snapshot is only read", remedy="write in a write transaction")

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Walk the pairs with `start <= key < stop` in byte order, or from the last to the first."""
        keys = self._live.keys(start, stop, reverse=reverse, writer=self._writer)
        if self._frozen is not None:
            older = self._frozen.keys(start, stop, reverse=reverse, writer=False)
            keys = merge(keys, older, reverse=reverse)
        return _merged(keys, self._pages.scan(start, stop, reverse=reverse), self.get, reverse=reverse)


def _merged(
    keys: Iterator[bytes],
    pages: Iterator[tuple[bytes, bytes]],
    get: Callable[[bytes], bytes | None],
    *,
    reverse: bool,
) -> Iterator[tuple[bytes, bytes]]:
    key = next(keys, None)
    if key is None:
        yield from pages
        return
    pair = next(pages, None)
    while True:
        if key is None:
            if pair is not None:
                yield pair
            yield from pages
            return
        if pair is not None and (pair[0] > key if reverse else pair[0] < key):
            yield pair
            pair = next(pages, None)
            continue
        if pair is not None and pair[0] == key:
            pair = next(pages, None)
        value = get(key)
        if value is not None:
            yield key, value
        same = key
        while key == same:
            key = next(keys, None)


class WritableTable(LayeredTable):
    """One table inside the write transaction; `written` is what it changes."""

    __slots__ = ("_oldest", "written")
    _writer = True

    def __init__(self, live: Layer, frozen: Layer | None, pages: Pages, version: int, oldest: int) -> None:
        super().__init__(live, frozen, pages, version)
        self._oldest = oldest
        self.written: dict[bytes, bytes | None] = {}

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` (1 to 511 bytes) to `value`."""
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise StoreError(f"a key of {len(key)} bytes cannot be stored", remedy="report it")
        self.written[key] = value
        self._live.put(key, value, self._version, self._oldest)

    def delete(self, key: bytes) -> None:
        """Remove `key` if it is there."""
        self.written[key] = None
        self._live.put(key, None, self._version, self._oldest)

    def take_back(self) -> None:
        """Undo every write of an aborted transaction."""
        for key in self.written:
            self._live.take_back(key)
        self.written.clear()
