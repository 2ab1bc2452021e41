"""Who may say what: a node that does not vote cannot depose, elect, lead or retire those that do.

Every certified node may open a link: an observer, and a newcomer that no table lists yet.  What they say is heard as
far as their part goes.  The claims of a leader and of a candidate count from a voter.  They count from others only
when no voter has led for a while: this node may lag behind the entry that made the sender a voter, and would
otherwise never hear of it.  A term that leaps ahead of every election that there can have been counts from nobody.

This bounds what a node that does not vote can do by forged messages; voters trust each other, as Raft does.
"""

from __future__ import annotations

from typing import Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.messages import (
    Append,
    AppendReply,
    Forward,
    HandOver,
    Heartbeat,
    HeartbeatReply,
    HelloRefused,
    Message,
    SnapshotDone,
    SnapshotOffer,
    SnapshotPull,
    StateDiffers,
    StateDigest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

TERM_STEP_MAX: Final = 1 << 32  # An election a second for a hundred years.
PATIENCE_ELECTIONS: Final = 3  # Longest election time-outs without a voter that leads.
SAY_S: Final = 1.0  # One line a second for each sender: who floods with frames does not flood the log.
SENDERS_MAX: Final = 1_024
log = get_logger("raft")

_TERMED = (
    VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
    | SnapshotOffer
    | SnapshotDone
)
_CLAIMS = Append | Heartbeat | SnapshotOffer
_OF_MEMBERS = Forward | HandOver | SnapshotPull | StateDigest


class Standing:
    """What counts from whom; used by the engine's thread only."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._led_s = context.now_s  # When a voter was last known to lead, this node included; or the start.
        self._said: dict[
            str, tuple[float, int]
        ] = {}  # By sender: when it was last logged, what was not since.

    def refused(self, sender: str, fault: str) -> None:
        """Log that a frame was dropped."""
        now_s = self._context.now_s
        said_s, silent = self._said.get(sender, (-1e9, 0))
        if now_s - said_s < SAY_S:
            self._said[sender] = (said_s, silent + 1)
            return
        if len(self._said) >= SENDERS_MAX:
            self._said.clear()
        log.warning("frame refused", node=self._context.node_id, sender=sender, fault=fault, more=silent)
        self._said[sender] = (now_s, 0)

    def require(self, sender: str, message: Message) -> None:
        """Raise BadInput when a message does not count from this sender."""
        fault = self.fault(sender, message)
        if fault:
            raise BadInput(fault)

    def fault(self, sender: str, message: Message) -> str:
        """Return why a message does not count from this sender, empty when it does."""
        context, core = self._context, self._context.core
        if isinstance(message, _TERMED) and message.term > core.term + TERM_STEP_MAX:
            return f"term {message.term} is no successor of {core.term}"
        if isinstance(message, StateDigest) and message.index > context.journal.last_index:
            return f"there is no entry {message.index} yet"
        if core.is_leader:
            self._led_s = context.now_s
        if not context.voters:
            return ""  # A newcomer, whose tables are still to come.
        if sender in context.voters:
            if isinstance(message, _CLAIMS) and message.term >= core.term:
                self._led_s = context.now_s
            return ""
        return self._fault_of_others(sender, message)

    def _fault_of_others(self, sender: str, message: Message) -> str:
        context, core = self._context, self._context.core
        if isinstance(message, HelloRefused | StateDiffers):
            return "only a voter's memory may retire a node"
        if isinstance(message, _OF_MEMBERS) and sender not in context.members:
            return "it is no member"
        if isinstance(message, _CLAIMS | VoteRequest) and self._is_led():
            return "it is no voter, and a voter leads"
        replies = VoteReply | AppendReply | HeartbeatReply | SnapshotDone
        if isinstance(message, replies) and message.term > core.term:
            return "it is no voter, and its term is ahead"
        return ""

    def _is_led(self) -> bool:
        context = self._context
        patience_s = PATIENCE_ELECTIONS * context.settings.election_max_s
        return context.core.is_leader or context.now_s - self._led_s < patience_s
