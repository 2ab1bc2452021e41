"""What the engine is given: the store, the way out, the state machine, and who hears of results.

In a node these are LMDB, gRPC and the ledger; in the simulation a disk that loses what was not synced, a
network made of a heap, and the same ledger.  The engine calls them from the one thread that calls
`Engine.tick`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.model.site import Member


class KeyValue(Protocol):
    """An ordered map of bytes to bytes inside one transaction (the ledger's view of its tables)."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


class Transaction(Protocol):
    """One write transaction over the three databases; ended once, by `commit` or `abort`."""

    @property
    def ledger(self) -> KeyValue: ...

    @property
    def log(self) -> KeyValue: ...

    @property
    def meta(self) -> KeyValue: ...

    def commit(self, *, lasting: bool = True) -> None:
        """Return only when everything written is durable; raise otherwise.

        Not `lasting`: readers see it and the process may die, but a power cut may take it back, with every later
        commit that was not lasting either, as if they had never been made.
        """
        ...

    def abort(self) -> None: ...


class Snapshot(Protocol):
    """One consistent point of the three databases for reading."""

    @property
    def ledger(self) -> KeyValue: ...

    @property
    def log(self) -> KeyValue: ...

    @property
    def meta(self) -> KeyValue: ...


class Copy(Protocol):
    """A private copy of the store at one commit, from which a snapshot is sent."""

    def read(self) -> AbstractContextManager[Snapshot]: ...

    def close(self) -> None: ...


class Staging(Protocol):
    """A store being filled from a snapshot that arrives."""

    def write(self) -> Transaction: ...

    def discard(self) -> None: ...


class Store(Protocol):
    """What `store.environment.Environment` is to the engine."""

    def write(self) -> Transaction: ...

    def read(self) -> AbstractContextManager[Snapshot]: ...

    def copy(self) -> Copy: ...

    def stage(self) -> Any: ...

    def swap(self, staging: Any) -> None:
        """Make the staged store the current one: durable and whole when it returns."""
        ...


class FrameSender(Protocol):
    """The way out: frames may be lost, delayed, doubled or overtake each other; their sender is certified."""

    def send(self, node_id: str, frame: bytes) -> None:
        """Take one frame for `node_id`; never blocks, may drop."""
        ...

    def members_changed(self, members: Sequence[Member]) -> None:
        """Hear that these are the members now (links to others may be closed, new ones are wanted)."""
        ...


class Random(Protocol):
    """The jitter of election time-outs; a seeded `random.Random` in the simulation."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


Apply = Callable[[KeyValue, int, int, bytes], Sequence[Any]]
"""`apply(ledger, index, term, entry) -> outcomes`, one for each command of the entry; never raises."""

ReadMembers = Callable[[KeyValue], Sequence[Member]]
"""Return the members as the ledger's tables say."""

Results = Callable[[list[tuple[bytes, Any]]], None]
"""Hear of finished requests, after their tick's commit: (request id, outcome, or an IceProdError)."""

CopyJob = Callable[[Callable[[], Copy], Callable[["Copy | IceProdError"], None]], None]
"""Run the first callable off the engine's thread and hand what came of it to the second, from any thread."""
