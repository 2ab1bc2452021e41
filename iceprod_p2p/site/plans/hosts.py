"""Which hosts get no pilots for a while: those where pilots end before they have said a word (black holes).

A host that fails quickly empties the queue: it is always free for the next.  Three failures in a row shut it
out for a quarter of an hour, and each further one for twice as long.  That is also its probation: when the
time is over it may be tried, one more failure shuts it out again, and one pilot that enrols clears it.
Nothing is held against a host while no other does better: then the fault is the site's, or this node's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.grids.request import is_host

FAILURES_MAX: Final = 3
SHUT_OUT_MS: Final = 900_000
SHUT_OUT_MS_MAX: Final = 4 * 3_600_000
HOSTS_MAX: Final = 10_000  # Remembered.
EXCLUDED_MAX: Final = 64  # In one submission: descriptions and command lines have bounds.


@dataclass(frozen=True, slots=True)
class Failures:
    """What is held against a host: how many in a row, since when, and when the last was."""

    count: int
    first_ms: int
    last_ms: int

    @property
    def until_ms(self) -> int:
        """When the host may be tried again."""
        doublings = min(self.count - FAILURES_MAX, 10)
        return self.last_ms + min(SHUT_OUT_MS_MAX, SHUT_OUT_MS << doublings)


class HostWatch:
    """What pilots' ends and enrolments tell of hosts; no I/O, times are given."""

    def __init__(self) -> None:
        self._failures: dict[str, Failures] = {}
        self._works_ms: dict[str, int] = {}

    def failed(self, host: str, now_ms: int) -> bool:
        """Note a pilot that ended without having enrolled; return whether the host is shut out now."""
        before = self._failures.pop(host, None)
        if before is None and len(self._failures) >= HOSTS_MAX:
            self._failures.pop(next(iter(self._failures)))
        count, first_ms = (before.count, before.first_ms) if before is not None else (0, now_ms)
        self._failures[host] = Failures(count + 1, first_ms, now_ms)
        return host in self.shut_out(now_ms)

    def works(self, host: str, *, submitted_ms: int, now_ms: int) -> None:
        """Note an enrolled pilot; one that was submitted after the last failure clears the host."""
        if len(self._works_ms) >= HOSTS_MAX and host not in self._works_ms:
            self._works_ms.pop(next(iter(self._works_ms)))
        self._works_ms[host] = now_ms
        failures = self._failures.get(host)
        if failures is not None and submitted_ms > failures.last_ms:
            del self._failures[host]

    def shut_out(self, now_ms: int) -> dict[str, int]:
        """Return the hosts that get nothing now, each with the time until which."""
        return {
            host: failures.until_ms
            for host, failures in self._failures.items()
            if failures.count >= FAILURES_MAX
            and now_ms < failures.until_ms
            and any(other != host and ms >= failures.first_ms for other, ms in self._works_ms.items())
        }


def excluded(watched: Iterable[str], blamed: Iterable[str]) -> tuple[str, ...]:
    """Return the hosts that a submission excludes, of those watched here and those that the ledger blames.

    Hosts bear the names that pilots give them: one that no host can bear is not told to a batch system.
    """
    return tuple(sorted(host for host in {*watched, *blamed} if is_host(host))[:EXCLUDED_MAX])
