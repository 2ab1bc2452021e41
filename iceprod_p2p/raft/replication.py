"""The receive rules of a follower and the leader's knowledge of each follower: pure, so that every rule has a test.

Sources: Ongaro's dissertation, figure 3.1 and chapter 4; etcd's `tracker/progress.go` for the leader's side.
PySyncObj truncates at any older `prevLogIdx`, lets replies of any term move `nextIndex` back, and asks
for resets to "my last + 1"; none of that is here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from iceprod_p2p.base.errors import BadInput, IntegrityError
from iceprod_p2p.raft.messages import Append
from iceprod_p2p.raft.settings import ENTRY_BYTES_MAX, RaftSettings

# A command of ours and the no-op of a new leader; PySyncObj's other kinds are refused.
KINDS = frozenset(b"\x00\x01")


class LogView(Protocol):
    """What the receive rules read of the log."""

    @property
    def last_index(self) -> int: ...

    def term_at(self, index: int) -> int | None: ...

    def digest_at(self, index: int) -> bytes | None: ...

    def first_index_of_term(self, index: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Refuse:
    """`prev` is missing or another entry: the leader should try at `hint`."""

    index: int
    hint: int


@dataclass(frozen=True, slots=True)
class Accept:
    """The log agrees up to `verified` once `new` is appended, after dropping `truncate_from` and later (0: nothing)."""

    verified: int
    truncate_from: int
    new: list[tuple[int, bytes]]


def check_shape(message: Append) -> None:
    """Refuse what no leader of ours sends: terms out of order, foreign kinds of commands, entries too large."""
    term = message.prev_term
    for entry_term, command in message.entries:
        if not term <= entry_term <= message.term:
            raise BadInput(f"an entry of term {entry_term} cannot follow one of term {term}")
        if not command or command[0] not in KINDS:
            raise BadInput("an entry is of no kind that this cluster uses")
        if len(command) > ENTRY_BYTES_MAX + 1:
            raise BadInput(f"an entry of {len(command)} bytes is longer than {ENTRY_BYTES_MAX}")
        term = entry_term


def judge_append(log: LogView, commit: int, message: Append) -> Refuse | Accept:
    """Decide what a follower does with entries of its current leader; nothing is changed here.

    Truncates only from the first real conflict and never at or below `commit`.  IntegrityError when what this
    node knows to be committed differs from what the leader says: one of the two is broken, and this node
    stops.
    """
    prev, entries = message.prev_index, message.entries
    verified = prev + len(entries)
    if prev > log.last_index:
        return Refuse(prev, log.last_index + 1)
    if prev >= commit and log.term_at(prev) != message.prev_term:
        if prev == commit and prev > 0:
            raise IntegrityError(f"the leader's committed entry {prev} is of another term than ours")
        return Refuse(prev, max(log.first_index_of_term(prev), commit + 1))
    own_digest = log.digest_at(prev)
    if own_digest is not None and own_digest != message.prev_digest:
        raise IntegrityError(f"the leader's log up to entry {prev} is not ours, though the terms agree")
    for offset, (term, _) in enumerate(entries):
        index = prev + 1 + offset
        held = log.term_at(index)
        if held is None and index > commit:
            return Accept(verified, 0, entries[offset:])
        if held is not None and held != term:
            if index <= commit:
                raise IntegrityError(f"the leader's entry {index} differs from the one committed here")
            return Accept(verified, index, entries[offset:])
    return Accept(verified, 0, [])


class State(Enum):
    """How the leader sends to one follower."""

    PROBE = "probe"  # Where the logs part is unknown: one message at a time.
    REPLICATE = "replicate"  # The follower agrees up to `match`: a window of messages at a time.
    SNAPSHOT = "snapshot"  # The entries it needs are gone: the tables are being sent.


class Progress:
    """What a leader knows of one follower.  `match` and, on success, `next` never go back."""

    __slots__ = (
        "commit_sent",
        "heard_s",
        "in_flight",
        "in_flight_bytes",
        "last_answer_s",
        "match",
        "news_index",
        "next",
        "nudged_s",
        "probe_sent",
        "round",
        "rtt_s",
        "snapshot_index",
        "state",
    )

    def __init__(self, *, next_index: int, now_s: float) -> None:
        self.state = State.PROBE
        self.match = 0
        self.next = next_index
        # The last index and the bytes of each message that is not answered yet.
        self.in_flight: deque[tuple[int, int]] = deque()
        self.in_flight_bytes = 0
        self.probe_sent = False
        self.snapshot_index = 0
        self.heard_s = now_s  # A new leader gives everybody one silence before it doubts its quorum.
        self.last_answer_s = now_s
        self.nudged_s = now_s
        self.round = 0
        self.rtt_s = 0.0
        self.commit_sent = 0
        self.news_index = 0  # Somebody at this follower waits until it has applied this much.

    def has_room(self, settings: RaftSettings) -> bool:
        """Return whether another message of entries may be sent now."""
        if self.state is State.PROBE:
            return not self.probe_sent
        if self.state is State.SNAPSHOT:
            return False
        return len(self.in_flight) < settings.window_messages and self.in_flight_bytes < settings.window_bytes

    def sent(self, last_index: int, size_bytes: int, now_s: float) -> None:
        """Note a message of entries up to `last_index`."""
        if self.state is State.PROBE:
            self.probe_sent = True
            return
        if not self.in_flight:
            self.last_answer_s = now_s
        self.in_flight.append((last_index, size_bytes))
        self.in_flight_bytes += size_bytes
        self.next = last_index + 1

    def acked(self, index: int, now_s: float) -> bool:
        """Note that the follower's log agrees durably up to `index`; return whether that is news."""
        self.last_answer_s = now_s
        while self.in_flight and self.in_flight[0][0] <= index:
            self.in_flight_bytes -= self.in_flight.popleft()[1]
        news = index > self.match
        self.match = max(self.match, index)
        self.next = max(self.next, self.match + 1)
        if self.state is State.PROBE or (self.state is State.SNAPSHOT and self.match >= self.snapshot_index):
            self._replicate()
        return news

    def refused(self, index: int, hint: int, now_s: float) -> bool:
        """Note a refusal of `prev == index`; return whether it answers what is outstanding (others are dropped)."""
        if self.state is State.REPLICATE:
            if not self.match < index < self.next:
                return False
        elif self.state is State.PROBE:
            if index != self.next - 1:
                return False
        else:
            return False
        self.last_answer_s = now_s
        self.probe_from(max(min(index, hint), self.match + 1))
        return True

    def probe_from(self, next_index: int) -> None:
        """Forget what is in flight and find out where the logs part, from `next_index` on."""
        self.state = State.PROBE
        self.next = max(next_index, self.match + 1)
        self.in_flight.clear()
        self.in_flight_bytes = 0
        self.probe_sent = False

    def send_snapshot(self, index: int) -> None:
        """The entries the follower needs are gone: it gets the tables as of `index`."""
        self.probe_from(self.match + 1)
        self.state = State.SNAPSHOT
        self.snapshot_index = index

    def wants_nudge(self, now_s: float, settings: RaftSettings) -> bool:
        """Return whether messages in flight have gone unanswered so long that they may be lost."""
        patience_s = max(3 * settings.heartbeat_s, 4 * self.rtt_s)
        return (
            self.state is State.REPLICATE
            and bool(self.in_flight)
            and now_s - max(self.last_answer_s, self.nudged_s) > patience_s
        )

    def _replicate(self) -> None:
        self.state = State.REPLICATE
        self.next = self.match + 1
        self.in_flight.clear()
        self.in_flight_bytes = 0
        self.probe_sent = False


def quorum_index(indexes: list[int]) -> int:
    """Return the highest index that a majority of `indexes` (one for each voter) has reached."""
    ordered = sorted(indexes, reverse=True)
    return ordered[len(ordered) // 2] if ordered else 0
