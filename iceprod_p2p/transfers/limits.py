"""How long, how often and how much; and the watch that breaks off a transfer that stands still.

A socket's own time-out begins anew with every byte, so a server that drips would hold a job for ever.  The watch looks
at what has arrived in each window of time, headers included.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from iceprod_p2p.base.errors import IceProdError, Unavailable

LOOK_S: Final = 0.2
SERVER_READS_BYTES_S: Final = 10 * 1024 * 1024  # What makes a checksum reads at least so fast.
CREDENTIALS_VARIABLE: Final = (
    "ICEPROD_TRANSFER_CREDENTIALS"  # Names the site's file where modules may use it.
)

Wait = Callable[[float], bool]
"""Waits some seconds; returns whether the caller should give up."""


def wait_only(seconds: float) -> bool:
    """Wait, and never give up."""
    if seconds > 0:
        time.sleep(seconds)
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one copy.

    `attempts` in all, with a pause before each further one that begins with `pause_s` and doubles up to `pause_max_s`;
    an attempt fails when a window of `timeout_s` brings less than `rate_min_bytes_s` on average; files are at most
    `size_max_bytes`.  `wait` is called for pauses and looked at while bytes move: when it returns True, the copy ends.
    """

    attempts: int = 4
    pause_s: float = 1.0
    pause_max_s: float = 60.0
    timeout_s: float = 60.0
    rate_min_bytes_s: int = 1_024
    size_max_bytes: int = 1024**4
    wait: Wait = wait_only

    def longest_s(self, size_bytes: int) -> float:
        """Return how long a transfer of so many bytes can take before it counts as standing still."""
        return self.timeout_s + size_bytes / max(1, self.rate_min_bytes_s)

    def for_reading(self, size_bytes: int) -> Limits:
        """Return the bounds of a question that a server answers when it has read so many bytes of its own.

        The time is doubled as often as that needs, so that there are few different ones.
        """
        timeout_s = max(LOOK_S, self.timeout_s)
        while timeout_s < size_bytes / SERVER_READS_BYTES_S:
            timeout_s *= 2
        return replace(self, timeout_s=timeout_s)


class Watch:
    """Watches one transfer on a thread of its own; as a context manager.

    `break_off` is called once, on that thread, when the transfer stands still or is no longer wanted; what the transfer
    then raises becomes Unavailable with the reason.
    """

    def __init__(self, limits: Limits, what: str, break_off: Callable[[], None]) -> None:
        self._limits = limits
        self._what = what
        self._break_off = break_off
        self._moved_bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="transfer watch", daemon=True)
        self.why = ""

    def moved(self, size_bytes: int) -> None:
        """Hear that bytes have moved; from any thread."""
        self._moved_bytes += size_bytes

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._over.set()
        self._thread.join()
        if self.why and (error is None or isinstance(error, IceProdError | OSError | ValueError)):
            raise Unavailable(self.why) from error

    def _look(self) -> None:
        window_s = self._limits.timeout_s
        least_bytes = max(1, int(self._limits.rate_min_bytes_s * window_s))
        began_s, before_bytes = time.monotonic(), 0
        while not self._over.wait(min(LOOK_S, window_s / 4)):
            if self._limits.wait(0.0):
                self.why = f"{self._what}: the transfer was ended, it is no longer wanted"
            elif time.monotonic() - began_s >= window_s:
                moved_bytes = self._moved_bytes - before_bytes
                if moved_bytes < least_bytes:
                    self.why = f"{self._what}: only {moved_bytes} bytes moved in {window_s:g} s"
                began_s, before_bytes = time.monotonic(), self._moved_bytes
            if self.why:
                self._break_off()
                return
