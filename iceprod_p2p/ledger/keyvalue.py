"""The key space the ledger lives in: one flat, ordered map from bytes to bytes.

The store gives it over LMDB (one write transaction per tick) and over a sorted dict; the ledger never knows
which.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

KEY_BYTES_MAX = 511  # LMDB's bound as shipped.


class KeyValue(Protocol):
    """An ordered map. Keys are 1 to 511 bytes and begin with a table number; values may be empty."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`, whether or not it was there."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove `key`; nothing happens when it is absent."""
        ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield pairs with ``start <= key < stop`` in byte order, or backwards.

        The caller does not write while it iterates: it takes a page first.
        """
        ...
