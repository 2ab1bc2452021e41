"""Virtual time: one heap of events, one seeded source of chance, one trace of what happened.

Nothing in a simulated history reads a real clock or real randomness: `World.now` is the only time, and
`World.random` the only chance.  The trace is a hash over everything that crossed between the parts, so two runs
of one seed are the same history exactly when their traces are equal.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from itertools import count
from random import Random
from struct import Struct
from typing import Any

_NOW = Struct(">d")
STORY_EVENTS = 20_000  # Kept in memory; a failure prints the last of them.


class Violation(BaseException):
    """A checker saw something that must never happen; the message is the fact, for people.

    No `Exception`, so that no handler in the code under test can swallow it.
    """


class World:
    """Time, chance and memory of one history."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.random = Random(seed)
        self.events = 0
        self.ticks = 0
        self.speaker = "?"  # Whose code runs now, for log events that do not say.
        self.story: deque[tuple[float, str, str, dict[str, Any]]] = deque(maxlen=STORY_EVENTS)
        self._trace = blake2b(digest_size=16)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()

    def at(self, when: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act` at virtual time `when` (now, if that is over)."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._numbers), act, arguments))

    def after(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act` in `seconds` of virtual time."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._numbers), act, arguments))

    def run_until(self, when: float, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass until `when`, or until `done()` holds after some event; return whether it did."""
        heap = self._heap
        while heap and heap[0][0] <= when:
            self.now, _, act, arguments = heapq.heappop(heap)
            self.events += 1
            act(*arguments)
            if done is not None and done():
                return True
        self.now = max(self.now, when)
        return done is not None and done()

    def note(self, who: str, what: str, **fields: Any) -> None:
        """Remember an event for the story; `what` is in fixed words."""
        self.story.append((self.now, who, what, fields))

    def trace(self, *parts: bytes | str | float | int) -> None:
        """Add what happened to the trace of this history."""
        self._trace.update(repr((self.now, parts)).encode())

    def trace_frame(self, source: str, target: str, frame: bytes) -> None:
        """Add a frame that arrived."""
        self._trace.update(b"%b%b>%b:%b" % (_NOW.pack(self.now), source.encode(), target.encode(), frame))

    def trace_digest(self) -> str:
        """Return the digest of everything traced so far."""
        return self._trace.hexdigest()

    def identifier(self) -> bytes:
        """Return sixteen bytes of this history's chance, for request ids and passkeys."""
        return self.random.randbytes(16)


def between(random: Random, low: float, high: float) -> float:
    """Return a number between two positive bounds, evenly spread over their orders of magnitude."""
    return float(low * (high / low) ** random.random())
