"""Linearizable reads without a log entry: a read index confirmed by a round of heartbeats (dissertation 6.4).

The leader notes its commit index, sends one round of heartbeats, and answers once a quorum has echoed
that round: so no other leader can have committed anything before the read began.  A follower asks the
leader for such an index and waits until it has applied that far.
"""

from __future__ import annotations

from dataclasses import dataclass

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.messages import ReadAnswer, ReadQuery
from iceprod_p2p.raft.replication import Progress

NO_LEADER_REMEDY = (
    "`iceprod cluster status` tells which nodes are silent; --stale reads one node's own tables"
)


@dataclass(slots=True)
class _Asked:
    """A read on its way to an index, on the leader: `origin` is empty for this node's own."""

    origin: str
    token: int
    index: int
    round: int


@dataclass(slots=True)
class _Waiting:
    """A read of this node: `index` is 0 until the leader has named one."""

    token: int
    deadline_s: float
    index: int = 0
    asked_s: float = -1e9
    asked_of: str = ""


class Reads:
    """Reads of this node, and, while it leads, those that other nodes ask it to confirm."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: dict[int, _Waiting] = {}
        self._asked: list[_Asked] = []
        self._held_back: list[tuple[str, int]] = []
        self.done: list[tuple[int, int | Unavailable]] = []  # (token, index): the engine hands them out.

    def begin(self, token: int, deadline_s: float) -> None:
        """Begin a read; its answer appears in `done`."""
        if len(self._waiting) >= self._context.settings.reads_max:
            busy = Unavailable("too many reads wait on this node", remedy="try again", retry_after_s=0.2)
            self.done.append((token, busy))
            return
        self._waiting[token] = _Waiting(token, deadline_s)

    def next_deadline_s(self) -> float:
        """Return when the first waiting read gives up."""
        return min((read.deadline_s for read in self._waiting.values()), default=float("inf"))

    def on_query(self, sender: str, message: ReadQuery) -> None:
        """Another node asks for a read index."""
        if not self._context.core.is_leader or len(self._held_back) >= self._context.settings.reads_max:
            self._context.hold(sender, ReadAnswer(message.token, False, 0))
            return
        self._held_back.append((sender, message.token))

    def on_answer(self, sender: str, message: ReadAnswer) -> None:
        """The leader named an index, or is no leader."""
        read = self._waiting.get(message.token)
        if read is None or read.asked_of != sender or read.index:
            return
        if message.known:
            read.index = max(message.index, 1)
        else:
            read.asked_s = self._context.now_s - self._context.settings.resend_s + 0.05

    def wants_round(self) -> bool:
        """Return whether reads wait for the next round of heartbeats to begin."""
        return bool(self._held_back) and not self._asked

    def begin_round(self, number: int) -> list[str]:
        """Bind the reads that wait to the round of heartbeats that was sent; return the nodes that asked.

        Only once an entry of this term is committed and applied: before, the leader may not know what is.
        """
        core = self._context.core
        if not self._held_back or core.applied < core.noop_index:
            return []
        origins = [origin for origin, _ in self._held_back if origin]
        for origin, token in self._held_back:
            self._asked.append(_Asked(origin, token, core.commit, number))
        self._held_back.clear()
        return origins

    def on_tick(self, followers: dict[str, Progress]) -> None:
        """Ask, confirm, and finish what has been applied."""
        context = self._context
        core = context.core
        if not core.is_leader and (self._asked or self._held_back):
            self._refuse_all()
        self._ask_leader()
        if self._asked:
            self._confirm(followers)
        for token, read in list(self._waiting.items()):
            if read.index and core.applied >= read.index:
                del self._waiting[token]
                self.done.append((token, core.applied))
            elif context.now_s >= read.deadline_s:
                del self._waiting[token]
                late = Unavailable("no leader confirmed this read in time", remedy=NO_LEADER_REMEDY)
                self.done.append((token, late))

    def _ask_leader(self) -> None:
        context = self._context
        leader = context.core.leader
        if not self._waiting or leader is None:
            return
        for read in self._waiting.values():
            stale = context.now_s - read.asked_s >= context.settings.resend_s
            if read.index or not (stale or read.asked_of != leader):
                continue
            read.asked_of, read.asked_s = leader, context.now_s
            if leader == context.node_id:
                if context.core.is_leader:
                    self._held_back.append(("", read.token))
            else:
                context.hold(leader, ReadQuery(read.token))

    def _confirm(self, followers: dict[str, Progress]) -> None:
        context = self._context
        number = self._asked[0].round
        echoed = {name for name, progress in followers.items() if progress.round >= number}
        if not context.is_quorum(echoed | {context.node_id}):
            return
        for asked in self._asked:
            if asked.origin:
                context.hold(asked.origin, ReadAnswer(asked.token, True, asked.index))
            elif asked.token in self._waiting:
                self._waiting[asked.token].index = max(asked.index, 1)
        self._asked.clear()

    def _refuse_all(self) -> None:
        for origin, token in [*((asked.origin, asked.token) for asked in self._asked), *self._held_back]:
            if origin:
                self._context.hold(origin, ReadAnswer(token, False, 0))
        self._asked.clear()
        self._held_back.clear()
