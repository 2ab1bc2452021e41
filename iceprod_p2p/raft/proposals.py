"""Proposals: waiting on their own node until applied there, gathered on the leader into entries of the log.

A proposal is a request id and an encoded command.  Its caller's node keeps it and sends it to whoever
leads, again with the *same* request id when the leader changes, refuses, or stays silent; the ledger
applies a request id once. It is finished when the entry that holds it is applied on the caller's node.
The leader gathers what waits into one entry and appends the next round when earlier ones are acknowledged
("ack-clocked"), so that one fsync and one message carry whatever came meanwhile; no timer is involved.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from iceprod_p2p.base.errors import BadInput, Unavailable
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.messages import UNREADABLE, Forward, ForwardRefused
from iceprod_p2p.raft.settings import COMMANDS_PER_ENTRY_MAX, ENTRY_BYTES_MAX, REQUEST_ID_BYTES

EMPTY_ENTRY = b"\x90"  # No commands: what a new leader's first entry is to the ledger.
HEADER_BYTES = 3


class _Head(msgspec.Struct, array_like=True):
    """The first element of an encoded proposal; the others are the ledger's business."""

    request_id: bytes


_heads = msgspec.msgpack.Decoder(list[_Head])
_one_head = msgspec.msgpack.Decoder(_Head)


def join_entry(bodies: Sequence[bytes]) -> bytes:
    """Encode one entry, a MessagePack array, from proposals that are encoded already."""
    count = len(bodies)
    header = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return header + b"".join(bodies)


def split_entry(entry: bytes) -> bytes:
    """Return the encoded proposal of an entry that holds just one, for `join_entry`."""
    if entry[:1] != b"\x91":
        raise BadInput("an entry of exactly one proposal was expected")
    return entry[1:]


def request_ids(entry: bytes) -> list[bytes]:
    """Return the request ids of an entry in order; none when it cannot be read."""
    try:
        return [head.request_id for head in _heads.decode(entry)]
    except UNREADABLE:
        return []


class Queued(NamedTuple):
    """A proposal that waits on the leader for its round."""

    request_id: bytes
    body: bytes
    changes_members: bool
    origin: str = ""  # The node whose caller waits; empty for this one's.


@dataclass(slots=True)
class _Waiting:
    """A proposal of this node's own callers."""

    body: bytes
    changes_members: bool
    deadline_s: float
    sent_s: float = -1e9
    sent_to: str = ""
    sent_term: int = 0


class Proposals:
    """Both ends of a proposal's way.  Results of this node's callers appear in `done`."""

    def __init__(self, context: Context, changes_members: Callable[[bytes], bool]) -> None:
        self._context = context
        self._changes_members = changes_members
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()
        self._waiting_bytes = 0
        self._unsent: deque[bytes] = deque()
        self._queue: deque[Queued] = deque()
        self._queue_bytes = 0
        # Request ids that are queued, or in the log and not applied, while this node leads.
        self._under_way: set[bytes] = set()
        self._rounds: deque[int] = deque()  # The last index of each round that is not committed yet.
        self._round_count = 0  # How many proposals the last round held.
        self._member_change_index = 0  # No other change of members is appended before this one is applied.
        self._next_check_s = 0.0
        self.origins: set[str] = set()  # The other nodes whose callers' proposals the last round holds.
        self.done: list[tuple[bytes, Any]] = []

    # The caller's end.

    def begin_all(self, proposed: Sequence[tuple[bytes, bytes]], deadline_s: float) -> None:
        """Take proposals, each (request id, body), as `begin` does."""
        for request_id, body in proposed:
            self.begin(request_id, body, deadline_s)

    def begin(self, request_id: bytes, body: bytes, deadline_s: float) -> None:
        """Take one proposal; refusals and results appear in `done` under its request id."""
        settings = self._context.settings
        if len(request_id) != REQUEST_ID_BYTES or len(body) > ENTRY_BYTES_MAX - HEADER_BYTES:
            sizes = f"a proposal of {len(body)} bytes, request id of {len(request_id)} bytes"
            fault = BadInput(f"{sizes}, cannot be replicated", remedy="put large things into blobs")
            self.done.append((request_id, fault))
            return
        waiting = self._waiting.get(request_id)
        if waiting is not None:  # The caller asks again: wait longer for the same request.
            waiting.deadline_s = max(waiting.deadline_s, deadline_s)
            return
        full = self._waiting_bytes + len(body) > settings.proposals_bytes_max
        if full or len(self._waiting) >= settings.proposals_max:
            busy = Unavailable("too many proposals wait on this node", remedy="try again", retry_after_s=0.2)
            self.done.append((request_id, busy))
            return
        self._waiting[request_id] = _Waiting(body, self._changes_members(body), deadline_s)
        self._waiting_bytes += len(body)
        self._unsent.append(request_id)

    def finish(self, entry: bytes, outcomes: Sequence[Any]) -> None:
        """The entry was applied here: finish the callers whose requests it holds."""
        if not self._waiting and not self._under_way:
            return
        for request_id, outcome in zip(request_ids(entry), outcomes, strict=False):
            self._under_way.discard(request_id)
            waiting = self._waiting.pop(request_id, None)
            if waiting is not None:
                self._waiting_bytes -= len(waiting.body)
                self.done.append((request_id, outcome))

    def fail_all(self, error: Unavailable) -> None:
        """End every caller's wait: this node's Raft part has ended."""
        self.done.extend((request_id, error) for request_id in self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0

    def next_deadline_s(self) -> float:
        """Return when waiting proposals must be looked at again."""
        return self._next_check_s if self._waiting else float("inf")

    def route(self) -> None:
        """Send what waits to the leader: new ones now, old ones again when the leader changed or stays silent."""
        context = self._context
        if context.now_s >= self._next_check_s:
            self._check_waiting()
        leader = context.core.leader
        if leader is None or not self._unsent:
            return
        batch: list[tuple[bytes, bytes, bool]] = []
        size = 0
        while self._unsent:
            request_id = self._unsent.popleft()
            waiting = self._waiting.get(request_id)
            if waiting is None:
                continue
            waiting.sent_s, waiting.sent_to, waiting.sent_term = context.now_s, leader, context.core.term
            if leader == context.node_id:
                self._enqueue(Queued(request_id, waiting.body, waiting.changes_members))
                continue
            if batch and size + len(waiting.body) > ENTRY_BYTES_MAX:
                context.send_at_once(leader, Forward(batch))
                batch, size = [], 0
            batch.append((request_id, waiting.body, waiting.changes_members))
            size += len(waiting.body)
        if batch:
            context.send_at_once(leader, Forward(batch))

    def _check_waiting(self) -> None:
        """Give up what is late; send again what went to another leader or got no result in time."""
        context = self._context
        now_s, leader, term = context.now_s, context.core.leader, context.core.term
        self._next_check_s = now_s + context.settings.heartbeat_s
        late = []
        for request_id, waiting in self._waiting.items():
            if now_s >= waiting.deadline_s:
                late.append(request_id)
            elif waiting.sent_to and leader is not None:
                moved = waiting.sent_to != leader or waiting.sent_term != term
                if moved or now_s - waiting.sent_s >= context.settings.resend_s:
                    waiting.sent_to = ""
                    self._unsent.append(request_id)
        for request_id in late:
            waiting = self._waiting.pop(request_id)
            self._waiting_bytes -= len(waiting.body)
            late_error = Unavailable("no result in time, it may still come", remedy="repeat the same request")
            self.done.append((request_id, late_error))

    def on_refused(self, sender: str, message: ForwardRefused) -> None:
        """The node asked does not lead or is busy: send these again after a pause."""
        context = self._context
        for request_id in message.request_ids:
            waiting = self._waiting.get(request_id)
            if waiting is not None and waiting.sent_to == sender:
                waiting.sent_s = context.now_s - context.settings.resend_s + 2 * context.settings.heartbeat_s

    # The leader's end.

    def on_forward(self, sender: str, message: Forward) -> None:
        """Another node's proposals: queue them, or say that they were not taken."""
        context = self._context
        settings = context.settings
        refused = []
        for request_id, body, claims_members in message.proposals:
            full = self._queue_bytes + len(body) > settings.proposals_bytes_max
            if not context.core.is_leader or full or len(self._queue) >= settings.proposals_max:
                refused.append(request_id)
            elif self._is_sound(request_id, body):
                self._enqueue(Queued(request_id, body, claims_members or self._changes_members(body), sender))
        if refused:
            context.hold(sender, ForwardRefused(refused))

    def _is_sound(self, request_id: bytes, body: bytes) -> bool:
        if len(body) > ENTRY_BYTES_MAX - HEADER_BYTES:
            return False
        try:
            return _one_head.decode(body).request_id == request_id
        except UNREADABLE:
            return False

    def _enqueue(self, queued: Queued) -> None:
        if queued.request_id not in self._under_way:
            self._under_way.add(queued.request_id)
            self._queue.append(queued)
            self._queue_bytes += len(queued.body)

    def lead(self) -> None:
        """This node begins to lead.  Any entry it inherited may change the members, so none is added before."""
        self._member_change_index = self._context.journal.last_index
        self._forget_queue()

    def follow(self) -> None:
        """This node leads no more; what was queued here is sent again by its own node."""
        if self._queue or self._under_way:
            self._forget_queue()

    def _forget_queue(self) -> None:
        self._queue.clear()
        self._queue_bytes = 0
        self._under_way.clear()
        self._rounds.clear()

    @property
    def has_round(self) -> bool:
        """Return whether a round should be gathered now.

        Beside rounds that wait for a quorum another one is worth its fsync only when it is at least half as large
        as the last: so few callers get a round at once, and many share large ones.
        """
        rounds, commit = self._rounds, self._context.core.commit
        while rounds and rounds[0] <= commit:
            rounds.popleft()
        if not self._queue or self._head_waits() or len(rounds) >= self._context.settings.rounds_in_flight:
            return False
        return not rounds or 2 * len(self._queue) >= self._round_count

    def _head_waits(self) -> bool:
        """Return whether what is first in the queue changes the members while another such change is under way."""
        core = self._context.core
        return self._queue[0].changes_members and core.applied < max(
            self._member_change_index, core.noop_index
        )

    def gather(self) -> list[bytes]:
        """Return the entries of the next round, none while earlier rounds fill the pipeline."""
        if not self.has_round:
            return []
        self.origins.clear()
        entries: list[bytes] = []
        waiting = len(self._queue)
        room = self._context.settings.round_bytes_max
        while self._queue and room > 0:
            entry = self._gather_entry(index=self._context.journal.last_index + 1 + len(entries))
            if entry is None:
                break
            entries.append(entry)
            room -= len(entry)
        if entries:
            self._rounds.append(self._context.journal.last_index + len(entries))
            self._round_count = waiting - len(self._queue)
        return entries

    def _gather_entry(self, *, index: int) -> bytes | None:
        """Return one entry of what waits, in order; a change of members travels alone in its entry."""
        bodies: list[bytes] = []
        size = HEADER_BYTES
        while self._queue and len(bodies) < COMMANDS_PER_ENTRY_MAX:
            queued = self._queue[0]
            if size + len(queued.body) > ENTRY_BYTES_MAX:
                break
            if queued.changes_members:
                if bodies or self._head_waits():
                    break
                self._member_change_index = index
            self._queue.popleft()
            self._queue_bytes -= len(queued.body)
            bodies.append(queued.body)
            if queued.origin:
                self.origins.add(queued.origin)
            size += len(queued.body)
            if queued.changes_members:
                break
        return join_entry(bodies) if bodies else None
