"""The only door to the machine's clocks.

Wall time is for display and certificates alone; intervals use monotonic time; the ledger's own time is neither
(it enters the ledger in the leader's `Tick`).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What code that needs time is given, so that tests can hold time in their hands."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary point; never goes back while the machine runs."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC as the machine believes; may jump."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock for tests that moves only when told to."""

    def __init__(self, *, start_s: float = 1_000.0, wall_ms: int = 1_700_000_000_000) -> None:
        self._monotonic_s = start_s
        self._wall_ms = wall_ms

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def wall_ms(self) -> int:
        return self._wall_ms

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`."""
        self._monotonic_s += seconds
        self._wall_ms += int(seconds * 1_000)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back, as an operator or a time service does."""
        self._wall_ms += int(seconds * 1_000)


def utc_now() -> datetime:
    """Return the wall time as an aware datetime in UTC."""
    return datetime.now(UTC)


def utc_iso(wall_ms: int) -> str:
    """Return `wall_ms` as ISO-8601 UTC with milliseconds, e.g. ``2026-11-22T14:00:00.000Z``."""
    moment = datetime.fromtimestamp(wall_ms / 1_000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{wall_ms % 1_000:03d}Z"
