"""The follower's side: what a node does with messages of the leader of its term."""

from __future__ import annotations

from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.elections import Elections
from iceprod_p2p.raft.messages import Append, AppendReply, Heartbeat, HeartbeatReply, SnapshotOffer
from iceprod_p2p.raft.promises import REMEDY, SetBack
from iceprod_p2p.raft.replication import Refuse, check_shape, judge_append
from iceprod_p2p.raft.snapshots import SnapshotReceiver


class Following:
    """Entries, heartbeats and offers of a leader; a leader of an older term is told the present one."""

    def __init__(self, context: Context, elections: Elections, receiver: SnapshotReceiver) -> None:
        self._context = context
        self._elections = elections
        self._receiver = receiver

    def on_append(self, sender: str, message: Append) -> None:
        """Take entries as `judge_append` decides; acknowledge exactly what this message verified."""
        context = self._context
        core, journal = context.core, context.journal
        if message.term < core.term:
            context.hold(sender, AppendReply(core.term, False, 0, 0, context.session))
            return
        check_shape(message)
        self._elections.heard_leader(sender, message.term)
        verdict = judge_append(journal, core.commit, message)
        if isinstance(verdict, Refuse):
            context.hold(sender, AppendReply(core.term, False, verdict.index, verdict.hint, context.session))
            return
        if verdict.truncate_from:
            passing("raft.truncate.before")
            journal.truncate_from(verdict.truncate_from)
            passing("raft.truncate.after")
            context.durable_index = min(context.durable_index, verdict.truncate_from - 1)
        if verdict.new:
            passing("raft.append.before")
            for term, command in verdict.new:
                journal.append(term, command)
            passing("raft.append.after")
        core.commit = max(core.commit, min(message.commit, verdict.verified))
        journal.state.acked = max(journal.state.acked, verdict.verified)
        context.hold(sender, AppendReply(core.term, True, verdict.verified, 0, context.session))

    def on_heartbeat(self, sender: str, message: Heartbeat) -> None:
        """Stay a follower, learn the commit index, and echo the round."""
        context = self._context
        core = context.core
        if message.term < core.term:
            context.hold(sender, HeartbeatReply(core.term, 0))
            return
        self._elections.heard_leader(sender, message.term)
        # The leader names no more than this node has acknowledged to it, so this entry is the leader's own.
        if message.commit > core.commit:
            if message.commit > context.journal.last_index:
                raise SetBack(f"acknowledged entry {message.commit} is not in this node's log", remedy=REMEDY)
            core.commit = message.commit
        if message.round:
            context.hold(sender, HeartbeatReply(core.term, message.round))

    def on_snapshot_offer(self, sender: str, message: SnapshotOffer) -> None:
        """Pull the leader's tables, if they are news."""
        core = self._context.core
        if message.term < core.term:
            self._context.hold(sender, HeartbeatReply(core.term, 0))
            return
        self._elections.heard_leader(sender, message.term)
        self._receiver.on_offer(sender, message)
