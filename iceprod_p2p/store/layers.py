"""What was committed and is not in the pages of the store yet: by key, by version, in memory.

A *layer* holds the writes since a checkpoint.  Each key has a short chain of values, newest first, one for each
commit that a reader may still see, so a snapshot costs nothing but its version: nothing is copied.

One thread writes; any thread reads.  That is safe without locks as long as single steps on a dict or list are atomic
(CPython's): chains are never changed once they are stored, and lists of keys only grow at their end or are
replaced whole.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import chain
from typing import Any, Final, Protocol

from iceprod_p2p.store.errors import StoreError

KEY_BYTES_MAX: Final = 511  # LMDB's bound.
FEW: Final = 64  # Keys that are put into their places one by one, rather than all sorted anew.
HOLE_LEAST: Final = 16  # Deleted keys at the beginning of a walk that are worth a note.
HOLES_MAX: Final = 16  # Notes for one first byte.

Value = tuple[int, "bytes | None", Any]
"""(version, value or None for a deleted key, the value before)."""


_NOTHING: Final[Iterator[bytes]] = iter(())
_NO_HOLES: Final[dict[bytes, tuple[bytes, int]]] = {}


class Pages(Protocol):
    """A table of the store below, as of the last checkpoint."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


class _Bucket:
    """Keys with one first byte: in order as far as they came in order, the rest sorted when somebody walks them."""

    __slots__ = ("_shown", "keys", "loose")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.loose: list[bytes] = []
        self._shown: tuple[list[bytes], int, list[bytes], int, list[bytes]] | None = None

    def add(self, key: bytes) -> None:
        if not self.keys or key > self.keys[-1]:
            self.keys.append(key)
        else:
            self.loose.append(key)

    def settle(self) -> list[bytes]:
        """Return every key in order, sorted for good: for the writer, or once nothing is written any more."""
        loose = self.loose  # Looked at first: whoever sorts stores the keys before it forgets the loose ones.
        keys = self.keys
        if loose:
            if len(loose) <= FEW:
                keys = keys.copy()
                for key in loose:
                    insort(keys, key)
            else:
                keys = sorted(keys + loose)  # Twice the same is harmless: whoever walks them takes one.
            self.keys = keys
            self.loose = []
        return keys

    def see(self) -> list[bytes]:
        """Return every key in order, for a reader; what one reader has sorted serves the next."""
        loose = self.loose
        keys = self.keys
        if not loose:
            return keys
        shown, ends = self._shown, (len(keys), len(loose))
        if shown is not None and shown[0] is keys and shown[2] is loose:
            if (shown[1], shown[3]) == ends:
                return shown[4]
            ordered = sorted(shown[4] + keys[shown[1] : ends[0]] + loose[shown[3] : ends[1]])
        else:
            ordered = sorted(keys[: ends[0]] + loose[: ends[1]])
        self._shown = keys, ends[0], loose, ends[1], ordered
        return ordered


class Layer:
    """The writes to one table since a checkpoint.

    A *hole* is a stretch of keys of which the writer found none alive: whoever takes the first of many from one end,
    again and again, need not pass all that it took before.
    """

    __slots__ = ("_buckets", "_holes", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, Value] = {}
        self._buckets: dict[int, _Bucket] = {}
        self._holes: dict[int, dict[bytes, tuple[bytes, int]]] = {}  # By first byte: start -> stop, version.

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
        if value is not None and key[0] in self._holes:
            self._fill(key)

    def take_back(self, key: bytes) -> None:
        """Undo the newest value of a key: its transaction was aborted."""
        before = self.values[key][2]
        if before is None:
            del self.values[key]  # It stays in its place in the order: what has no value is never shown.
        else:
            self.values[key] = before
        self._holes.clear()

    def note_hole(self, start: bytes, stop: bytes, version: int) -> None:
        """Keep in mind that the writer, at `version`, found nothing in ``start <= key < stop``.

        As far as keys have the first byte of `start`, for only these are compared with it when one is written.
        """
        holes = self._holes.setdefault(start[0], {})
        if stop[0] != start[0]:
            stop = bytes((start[0] + 1,))
        if len(holes) >= HOLES_MAX and start not in holes:
            del holes[next(iter(holes))]
        holes[start] = (stop, version)

    def beyond_hole(self, start: bytes, stop: bytes, version: int) -> bytes:
        """Return from where on a walk from `start` to `stop` can find something, for a reader of `version`."""
        hole = self._holes.get(start[0], _NO_HOLES).get(start) if start else None
        return start if hole is None or hole[1] > version else min(hole[0], stop)

    def _fill(self, key: bytes) -> None:
        holes = self._holes[key[0]]
        for start, (stop, version) in list(holes.items()):
            if start <= key < stop:
                holes[start] = (key, version)

    def keys(self, start: bytes, stop: bytes, *, reverse: bool, settle: bool) -> tuple[int, Iterator[bytes]]:
        """Return how many keys there are with ``start <= key < stop``, and a walk over them.

        Those that a reader's version does not have are among them, and some may come twice.
        `settle` is for the writer, and for a layer that is written no more.
        """
        if start >= stop:
            return 0, _NOTHING
        low, high = start[0] if start else 0, stop[0]
        count, found = 0, _NOTHING
        for number in (low,) if high == low else sorted(self._buckets, reverse=reverse):
            bucket = self._buckets.get(number) if low <= number <= high else None
            if bucket is None:
                continue
            keys = bucket.settle() if settle else bucket.see()
            first, last = bisect_left(keys, start), bisect_left(keys, stop)
            if first < last:
                places = range(last - 1, first - 1, -1) if reverse else range(first, last)
                walk = map(keys.__getitem__, places)
                found = chain(found, walk) if count else walk
                count += last - first
        return count, found


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
        asked = start
        if not reverse:
            start = self._live.beyond_hole(start, stop, self._version)
        count, keys = self._live.keys(start, stop, reverse=reverse, settle=self._writer)
        if self._frozen is not None:
            more, older = self._frozen.keys(start, stop, reverse=reverse, settle=True)
            if more:
                keys = merge(keys, older, reverse=reverse) if count else older
                count += more
        pages = self._pages.scan(start, stop, reverse=reverse)
        if not count:
            return pages
        if self._writer and count >= HOLE_LEAST and asked and not reverse:
            return self._beyond_dead(keys, pages, asked, stop)
        return _merged(keys, pages, self.get, reverse=reverse)

    def _beyond_dead(
        self, keys: Iterator[bytes], pages: Iterator[tuple[bytes, bytes]], start: bytes, stop: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        """Walk forwards for the writer, and note a hole where many keys at the beginning were deleted.

        The writer sees the newest of everything: what it finds empty stays so until it writes there.
        """
        pair, dead, alive = next(pages, None), 0, None
        for key in keys:
            if (pair is not None and pair[0] < key) or self.get(key) is not None:
                alive = key
                break
            dead += 1
            if pair is not None and pair[0] == key:
                pair = next(pages, None)
        if dead >= HOLE_LEAST:
            known = [key for key in (alive, pair and pair[0]) if key is not None]
            self._live.note_hole(start, min(known, default=stop), self._version)
        if pair is not None:
            pages = chain((pair,), pages)
        if alive is not None:
            pages = _merged(chain((alive,), keys), pages, self.get, reverse=False)
        yield from pages


def _merged(
    keys: Iterator[bytes],
    pages: Iterator[tuple[bytes, bytes]],
    get: Callable[[bytes], bytes | None],
    *,
    reverse: bool,
) -> Iterator[tuple[bytes, bytes]]:
    """Walk the pairs of the pages, with what the layers have at `keys` in their places."""
    pair, before = next(pages, None), None
    for key in keys:
        if key == before:
            continue
        before = key
        while pair is not None and (pair[0] > key if reverse else pair[0] < key):
            yield pair
            pair = next(pages, None)
        if pair is not None and pair[0] == key:
            pair = next(pages, None)
        value = get(key)
        if value is not None:
            yield key, value
    if pair is not None:
        yield pair
    yield from pages


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
