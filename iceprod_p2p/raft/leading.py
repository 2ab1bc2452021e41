"""The leader's side: heartbeats, entries within each follower's window, what a quorum holds, handing over."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.messages import (
    Append,
    AppendReply,
    HandOver,
    Heartbeat,
    HeartbeatReply,
    TimeoutNow,
    encode,
)
from iceprod_p2p.raft.replication import Progress, State, quorum_index
from iceprod_p2p.raft.snapshots import SnapshotSender

log = get_logger("raft")

ROUNDS_REMEMBERED = 32  # For round-trip times; older echoes still count, their time does not.


class Leading:
    """What a node does while it leads.  `followers` is empty while it does not."""

    def __init__(self, context: Context, snapshots: SnapshotSender) -> None:
        self._context = context
        self._snapshots = snapshots
        self.followers: dict[str, Progress] = {}
        self._round = 0
        self._round_times: deque[tuple[int, float]] = deque(maxlen=ROUNDS_REMEMBERED)
        self.next_heartbeat_s = 0.0
        self._transfer_to: str | None = None
        self._transfer_until_s = 0.0
        self._transfer_asked = False

    def begin(self) -> None:
        """Lead the term that was just won: probe everybody from the entry before our no-op."""
        context = self._context
        next_index = context.core.noop_index
        self.followers = {
            peer: Progress(next_index=next_index, now_s=context.now_s) for peer in context.peers
        }
        self.next_heartbeat_s = context.now_s
        self._transfer_to = None

    def end(self) -> None:
        """Lead no more."""
        self.followers = {}
        self._transfer_to = None
        self._snapshots.end()

    def members_changed(self) -> None:
        """Follow the members: newcomers are probed from the end of the log, those who left are forgotten."""
        context = self._context
        next_index = context.journal.last_index + 1
        kept = self.followers
        self.followers = {
            peer: kept.get(peer) or Progress(next_index=next_index, now_s=context.now_s)
            for peer in context.peers
        }

    # Time.

    def on_timer(self, *, reads_wait: bool) -> int:
        """Send the round of heartbeats that is due, or that reads wait for; return its number, 0 for none."""
        context = self._context
        if context.now_s < self.next_heartbeat_s and not reads_wait:
            return 0
        self._round += 1
        self._round_times.append((self._round, context.now_s))
        self.next_heartbeat_s = context.now_s + context.settings.heartbeat_s
        core = context.core
        for peer, progress in self.followers.items():
            commit = min(progress.match, core.commit)
            progress.commit_sent = max(progress.commit_sent, commit)
            context.send_at_once(peer, Heartbeat(core.term, commit, self._round, context.session))
        return self._round

    # Answers.

    def on_append_reply(self, sender: str, message: AppendReply) -> None:
        """A follower's log agrees further, or parts from ours."""
        context = self._context
        progress = self.followers.get(sender)
        if progress is None:
            return
        progress.heard_s = context.now_s
        if not message.ok:
            progress.refused(message.index, message.hint, context.now_s)
        elif message.index <= context.journal.last_index:
            progress.acked(message.index, context.now_s)
        else:
            log.error("acknowledges what was never sent", node=sender, index=message.index)

    def on_heartbeat_reply(self, sender: str, message: HeartbeatReply) -> None:
        """A follower heard a round: it counts for the quorum check, for reads, and for round-trip times."""
        context = self._context
        progress = self.followers.get(sender)
        if progress is None or message.round > self._round:
            return
        progress.heard_s = context.now_s
        progress.round = max(progress.round, message.round)
        for number, sent_s in self._round_times:
            if number == message.round:
                progress.rtt_s = context.now_s - sent_s
        if progress.state is State.PROBE and context.now_s - progress.nudged_s > 2 * progress.rtt_s:
            progress.probe_sent = False  # The probe, or its answer, may be lost.

    def link_changed(self, peer: str) -> None:
        """A link came up or went down: what was on its way may be lost."""
        progress = self.followers.get(peer)
        if progress is not None and progress.state is State.REPLICATE:
            progress.probe_from(progress.match + 1)

    # Entries.

    def quorum_holds(self) -> int:
        """Return the highest index that a majority of the voters holds durably, this node's own disk included."""
        context = self._context
        indexes = []
        for voter in context.voters:
            if voter == context.node_id:
                indexes.append(context.durable_index)
            else:
                progress = self.followers.get(voter)
                indexes.append(progress.match if progress else 0)
        return quorum_index(indexes)

    def can_commit_more(self) -> bool:
        """Return whether a quorum holds more than is committed, up to an entry of this term (the paper's 5.4.2)."""
        core, index = self._context.core, self.quorum_holds()
        return index > core.commit and self._context.journal.term_at(index) == core.term

    def advance_commit(self) -> None:
        """Commit what a quorum holds."""
        if self.can_commit_more():
            self._context.core.commit = self.quorum_holds()

    def want_news(self, peers: Iterable[str], index: int) -> None:
        """Note that callers of these nodes wait for entry `index`: they hear of its commit at once.

        Others hear of it with the next entries or heartbeat, and apply more at a time.
        """
        for peer in peers:
            progress = self.followers.get(peer)
            if progress is not None:
                progress.news_index = max(progress.news_index, index)

    def send_entries(self) -> None:
        """Send what followers lack, as far as their windows allow, and news of commits to those who wait for them."""
        frames: dict[int, tuple[bytes, int, int]] = {}
        for peer, progress in self.followers.items():
            self._send_to(peer, progress, frames)

    def _send_to(self, peer: str, progress: Progress, frames: dict[int, tuple[bytes, int, int]]) -> None:
        context = self._context
        core, journal, settings = context.core, context.journal, context.settings
        if progress.state is not State.SNAPSHOT and progress.next <= journal.base.index:
            progress.send_snapshot(journal.base.index)
        if progress.state is State.SNAPSHOT:
            self._snapshots.offer(peer, progress)
            return
        while progress.has_room(settings):
            probing = progress.state is State.PROBE
            if progress.next > journal.last_index and not probing:
                break
            frame, last, size = frames.get(progress.next) or self._frame(progress.next, frames)
            context.send_frame(peer, frame)
            progress.sent(last, size, context.now_s)
            progress.commit_sent = core.commit
            if probing:
                progress.nudged_s = context.now_s
                break
        if progress.wants_nudge(context.now_s, settings):
            progress.nudged_s = context.now_s
            context.send_frame(peer, self._empty_frame(progress.next))
        commit = min(progress.match, core.commit)
        if progress.state is State.REPLICATE and progress.commit_sent < min(commit, progress.news_index):
            progress.commit_sent = commit
            context.send_at_once(peer, Heartbeat(core.term, commit, 0, context.session))

    def _frame(self, start: int, frames: dict[int, tuple[bytes, int, int]]) -> tuple[bytes, int, int]:
        """Return the encoded message that starts at `start`, its last index and its size; shared by followers."""
        journal = self._context.journal
        entries = journal.entries(start, bytes_max=self._context.settings.append_bytes_max)
        made = encode(self._message(start, entries))
        frames[start] = (made, start + len(entries) - 1, len(made))
        return frames[start]

    def _empty_frame(self, start: int) -> bytes:
        return encode(self._message(start, []))

    def _message(self, start: int, entries: list[tuple[int, bytes]]) -> Append:
        core, journal = self._context.core, self._context.journal
        term, digest = journal.term_at(start - 1), journal.digest_at(start - 1)
        assert term is not None and digest is not None, f"entry {start - 1} is not held"
        return Append(core.term, start - 1, term, digest, core.commit, entries)

    # Handing over.

    def ask_to_hand_over(self, target: str | None) -> None:
        """Begin to hand over, or ask the leader that is known here."""
        context = self._context
        if context.core.is_leader:
            if not self.transfer(target):
                log.warning("nobody to hand leadership to", node=context.node_id, to=target)
        elif context.core.leader is not None:
            context.send_at_once(context.core.leader, HandOver(target or ""))

    def on_hand_over(self, sender: str, message: HandOver) -> None:
        """A member asks this node to hand over; whoever asks a node that does not lead asks again."""
        if self._context.core.is_leader and sender in self._context.members and not self.is_handing_over:
            self.ask_to_hand_over(message.to or None)

    def transfer(self, target: str | None) -> bool:
        """Begin to hand leadership to `target` (or the most complete voter); return whether there is one."""
        context = self._context
        voters = [peer for peer in self.followers if peer in context.voters]
        if target is None and voters:
            target = max(voters, key=lambda peer: (self.followers[peer].match, peer))
        if target not in voters:
            return False
        self._transfer_to, self._transfer_asked = target, False
        self._transfer_until_s = context.now_s + 2 * context.settings.election_max_s
        return True

    @property
    def is_handing_over(self) -> bool:
        """Return whether no new proposals are taken because leadership is being handed over."""
        return self._transfer_to is not None

    def continue_transfer(self) -> None:
        """Ask the target to stand once it holds everything; give up after two election time-outs."""
        context = self._context
        if self._transfer_to is None:
            return
        progress = self.followers.get(self._transfer_to)
        if progress is None or context.now_s >= self._transfer_until_s:
            log.warning("leadership was not handed over", node=context.node_id, to=self._transfer_to)
            self._transfer_to = None
        elif progress.match == context.journal.last_index and not self._transfer_asked:
            self._transfer_asked = True
            context.hold(self._transfer_to, TimeoutNow(context.core.term))
