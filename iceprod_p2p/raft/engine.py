"""One node's Raft engine: no threads, no sockets, no clock of its own; all of it happens inside `tick`.

A tick gathers messages, requests and timers, opens one write transaction, lets PySyncObj's state move by
our rules, commits once, and only then releases what makes promises: votes, acknowledgements, results.
Entries may leave before the commit, since they promise nothing; the leader counts its own disk only after
it.  A tick that only applies what a quorum holds, or learns how far others are, need not wait for the disk: its
commit is not `lasting`.  A failed commit or any exception inside a tick ends the Raft part, by name: nothing is
retried, a restart begins from the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import BadInput, ConfigError, IceProdError, Unavailable
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.raft import messages as wire
from iceprod_p2p.raft.compaction import compact
from iceprod_p2p.raft.comparing import Comparing
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.elections import Elections
from iceprod_p2p.raft.following import Following
from iceprod_p2p.raft.founding import check_owner, mark_retired
from iceprod_p2p.raft.journal import Journal
from iceprod_p2p.raft.leading import Leading
from iceprod_p2p.raft.ports import Apply, CopyJob, FrameSender, KeyValue, Random, ReadMembers, Results, Store
from iceprod_p2p.raft.promises import Promises, SetBack
from iceprod_p2p.raft.proposals import EMPTY_ENTRY, Proposals
from iceprod_p2p.raft.reads import Reads
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.raft.snapshots import SnapshotReceiver, SnapshotSender, copy_in_place
from iceprod_p2p.raft.standing import Standing
from iceprod_p2p.raft.syncobj import REGULAR, SafeSyncObj

log = get_logger("raft")


class Engine:
    """One node's consensus.  `receive`, `propose`, `read`, `transfer` and `link_changed` may be called from any
    thread and only note something; `tick` does the work, always on one thread.

    `apply(ledger, index, term, entry)` and `read_members(ledger)` are the state machine;
    `changes_members(body)` tells whether an encoded proposal adds, promotes or removes a member (one such
    entry at a time is under way).
    """

    def __init__(
        self,
        node_id: str,
        *,
        store: Store,
        sender: FrameSender,
        apply: Apply,
        read_members: ReadMembers,
        changes_members: Callable[[bytes], bool],
        entry_changes_members: Callable[[bytes], bool] = lambda entry: True,
        clock: Clock,
        random: Random,
        on_results: Results,
        on_reads: Callable[[list[tuple[int, int | Unavailable]]], None],
        settings: RaftSettings | None = None,
        copy_job: CopyJob = copy_in_place,
        wake: Callable[[], None] = lambda: None,
        digest: Callable[[KeyValue], bytes] | None = None,
    ) -> None:
        self.settings = settings or RaftSettings()
        if faults := self.settings.faults():
            raise ConfigError("the Raft settings contradict themselves", faults=tuple(faults))
        self._store = store
        self._apply = apply
        self._read_members = read_members
        self._entry_changes_members = entry_changes_members
        self._clock = clock
        self._on_results = on_results
        self._on_reads = on_reads
        self._wake = wake
        self.failed: str | None = None
        self.frames_dropped = 0
        self._inbox: deque[tuple[str, bytes]] = deque()
        self._requests: deque[Callable[[], None]] = deque()
        self._again = True
        with store.read() as snapshot:
            identity = check_owner(snapshot.meta, node_id)
            self.journal = Journal(snapshot, cache_bytes=self.settings.log_cache_bytes)
            members = read_members(snapshot.ledger)
            self.context = Context(node_id, self.journal, sender, self.settings, clock.monotonic_s())
            self.promises = Promises(self.context, snapshot.meta, identity, random)
        self.core = SafeSyncObj(node_id, self.journal, self, settings=self.settings, random=random)
        self.context.core = self.core
        self.standing = Standing(self.context)
        self.elections = Elections(self.context)
        self.proposals = Proposals(self.context, changes_members)
        self.reads = Reads(self.context)
        self.comparing = Comparing(self.context, digest)
        self._sending = SnapshotSender(self.context, store, copy_job, wake)
        self._receiving = SnapshotReceiver(self.context, store)
        self.leading = Leading(self.context, self._sending)
        following = Following(self.context, self.elections, self._receiving)
        self._handlers: dict[type, Callable[[str, Any], None]] = {
            wire.VoteRequest: self.elections.on_vote_request,
            wire.VoteReply: self.elections.on_vote_reply,
            wire.Append: following.on_append,
            wire.AppendReply: self._if_leading(self.leading.on_append_reply),
            wire.Heartbeat: following.on_heartbeat,
            wire.HeartbeatReply: self._if_leading(self.leading.on_heartbeat_reply),
            wire.TimeoutNow: self.elections.on_timeout_now,
            wire.Forward: self.proposals.on_forward,
            wire.ForwardRefused: self.proposals.on_refused,
            wire.ReadQuery: self.reads.on_query,
            wire.ReadAnswer: self.reads.on_answer,
            wire.SnapshotOffer: following.on_snapshot_offer,
            wire.SnapshotPull: self._sending.on_pull,
            wire.SnapshotPage: self._receiving.on_page,
            wire.SnapshotDone: self._if_leading(self._on_snapshot_done),
            wire.Hello: self.promises.on_hello,
            wire.HelloWanted: self.promises.on_wanted,
            wire.HelloRefused: self.promises.on_refused,
            wire.StateDigest: self.comparing.on_digest,
            wire.StateDiffers: self.comparing.on_differs,
            wire.HandOver: self.leading.on_hand_over,
        }
        self.context.adopt(members)
        self.core.postpone_election(self.context.now_s)

    # What any thread may call.

    def receive(self, sender: str, frame: bytes) -> None:
        """Take a frame from a certified peer; dropped when too many wait (Raft survives it)."""
        if len(self._inbox) >= self.settings.inbox_frames_max:
            self.frames_dropped += 1
            return
        self._inbox.append((sender, frame))

    def propose(self, request_id: bytes, body: bytes, deadline_s: float) -> None:
        """Replicate one encoded proposal; its result reaches `on_results` under `request_id`.

        The same `request_id` may be proposed again, here or elsewhere: it is applied once.
        `deadline_s` is monotonic time.
        """
        self.propose_all(((request_id, body),), deadline_s)

    def propose_all(self, proposed: Sequence[tuple[bytes, bytes]], deadline_s: float) -> None:
        """Replicate several, each (request id, encoded proposal)."""
        self._requests.append(lambda: self.proposals.begin_all(proposed, deadline_s))

    def read(self, token: int, deadline_s: float) -> None:
        """Ask for a linearizable read point; `on_reads` gets the index applied here, or Unavailable."""
        self._requests.append(lambda: self.reads.begin(token, deadline_s))

    def transfer(self, to: str | None) -> None:
        """Hand leadership to `to` (None: the most complete voter), or ask the leader that is known here to do so."""
        self._requests.append(lambda: self.leading.ask_to_hand_over(to))

    def link_changed(self, peer: str) -> None:
        """The link to `peer` came up or went down: what was on its way may be lost."""

        def changed() -> None:
            self.leading.link_changed(peer)
            self.promises.greet(peer)

        self._requests.append(changed)

    def end(self, cause: Exception) -> None:
        """End the Raft part by name, from any thread: damage was found elsewhere (`SetBack`: for ever)."""
        self._requests.append(lambda: self.comparing.end(cause))

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.core.is_leader and self.failed is None

    def wakeup_at_s(self) -> float:
        """Return the monotonic time at which the next tick is due (0: now; infinite once failed)."""
        if self.failed is not None:
            return float("inf")
        if self._again or self._inbox or self._requests:
            return 0.0
        timer_s = self.leading.next_heartbeat_s if self.core.is_leader else self.core.deadline_s
        return min(
            timer_s,
            self.proposals.next_deadline_s(),
            self.reads.next_deadline_s(),
            self._receiving.next_deadline_s(),
        )

    # One tick.

    def tick(self) -> None:
        """Do everything that is due.  Never raises: `failed` says by name why the Raft part has ended."""
        if self.failed is not None:
            return
        self.context.now_s = self._clock.monotonic_s()
        try:
            self._run_tick()
            if self._receiving.is_complete:
                self._install_snapshot()
        except Exception as cause:
            self._fail(cause)

    def _run_tick(self) -> None:
        transaction = self._store.write()
        self.context.transaction = transaction
        self.journal.open(transaction)
        try:
            self._again = False
            members = self.context.members
            passing("raft.tick.begin")
            while self._requests:
                self._requests.popleft()()
            self._take_messages()
            self.core.doTick(0.0)
            lasting = self.promises.save(transaction.meta)
            lasting = self.journal.save() or lasting or self.context.members is not members
            passing("raft.commit.before")
            transaction.commit(lasting=lasting)
            passing("raft.commit.after")
        except BaseException:
            transaction.abort()
            raise
        finally:
            self.journal.close()
            self.context.transaction = None
        self.context.durable_index = self.journal.last_index
        self.context.release()
        passing("raft.release.after")
        self._hand_out()
        self.promises.end_if_retired()
        if self.core.is_leader:
            gathers = self.proposals.has_round and not self.leading.is_handing_over
            self._again = self._again or gathers or self.leading.can_commit_more()

    def _take_messages(self) -> None:
        for _ in range(min(len(self._inbox), self.settings.tick_frames_max)):
            sender, frame = self._inbox.popleft()
            try:
                self.core.deliver(sender, wire.decode(frame))
            except BadInput as fault:
                self.frames_dropped += 1
                self.standing.refused(sender, str(fault))

    def _hand_out(self) -> None:
        if self.proposals.done:
            done, self.proposals.done = self.proposals.done, []
            self._on_results(done)
        if self.reads.done:
            reads, self.reads.done = self.reads.done, []
            self._on_reads(reads)

    def _fail(self, cause: Exception) -> None:
        """End the Raft part by name: no votes, no acknowledgements, nothing of this tick leaves."""
        self.context.drop_held()
        if isinstance(cause, SetBack):
            self._retire(cause.message)
        index = self.core.applied + 1
        self.failed = f"{type(cause).__name__}: {cause}"
        log.error(
            "raft part ended", node=self.context.node_id, reason=self.failed, at_entry=index, exc_info=cause
        )
        self._receiving.discard()
        self.proposals.done = []  # Results of the failed tick were never durable.
        self.proposals.fail_all(Unavailable("this node's Raft part has ended", remedy="ask another node"))
        self.reads.done = []
        self._hand_out()

    def _retire(self, reason: str) -> None:
        try:  # In a transaction of its own: no later start on this disk may take part either.
            mark_retired(self._store, reason)
        except IceProdError as error:
            log.error("cannot retire the data directory", node=self.context.node_id, error=str(error))

    def close(self) -> None:
        """Delete scratch data; the engine must not be ticked any more."""
        self._receiving.discard()
        self._sending.close()

    # The rules that PySyncObj calls in its tick (`syncobj.Rules`).

    def on_message(self, sender: str, message: wire.Message) -> None:
        """Act on one message of a certified peer; BadInput when it does not count from this one."""
        self.standing.require(sender, message)
        if self.promises.counts(sender, message):
            self._handlers[type(message)](sender, message)
        if self.elections.became_leader:
            self._begin_leading()

    def on_timers(self) -> None:
        """Do what time asks for: elections, heartbeats, quorum check, repeats."""
        if self.core.is_leader:
            self.elections.check_quorum(self.leading.followers)
        else:
            self.elections.on_timer()
            if self.elections.became_leader:
                self._begin_leading()
        if self.core.is_leader:
            self.leading.continue_transfer()
            reads_wait = self.reads.wants_round() and self.core.applied >= self.core.noop_index
            number = self.leading.on_timer(reads_wait=reads_wait)
            if number:
                self.leading.want_news(self.reads.begin_round(number), self.core.commit)
        elif self.leading.followers:
            self._end_leading()
        self._sending.on_timer()
        self._receiving.on_timer()
        self.proposals.route()

    def advance_commit(self) -> None:
        """Commit what a quorum holds."""
        if self.core.is_leader:
            self.leading.advance_commit()

    def apply_entries(self) -> None:
        """Apply committed entries, a bounded number a tick, and adopt the members they make."""
        core, journal, transaction = self.core, self.journal, self.context.transaction
        assert transaction is not None
        first = core.applied
        changed = False
        stop_s = self.context.now_s + self.settings.apply_budget_s
        while core.applied < core.commit:
            if core.applied - first >= self.settings.apply_entries_max or self._clock.monotonic_s() > stop_s:
                self._again = True
                break
            index = core.applied + 1
            command = journal.command(index)
            entry = command[1:] if command[:1] == REGULAR else EMPTY_ENTRY
            term = journal.term_at(index)
            assert term is not None
            passing("raft.apply.before")
            outcomes = self._apply(transaction.ledger, index, term, entry)
            passing("raft.apply.after")
            core.applied = index
            self.comparing.applied(index, transaction.ledger)
            self.proposals.finish(entry, outcomes)
            changed = changed or self._entry_changes_members(entry)
        if changed and self.context.adopt(self._read_members(transaction.ledger)) and core.is_leader:
            self.leading.members_changed()
        self.reads.on_tick(self.leading.followers)

    def gather_commands(self) -> None:
        """Put the next round of proposals into PySyncObj's queue."""
        if self.core.is_leader and not self.leading.is_handing_over:
            for index, entry in enumerate(self.proposals.gather(), start=self.journal.last_index + 1):
                self.core.enqueue(entry)
                self.leading.want_news(self.proposals.origins, index)

    def send_entries(self) -> None:
        """Send followers what they lack."""
        if self.core.is_leader:
            self.leading.send_entries()

    def compact(self) -> None:
        """Drop the oldest applied entries beyond the margin, a bounded number a tick."""
        compact(self.journal, self.settings, self._sending.needed_from)

    # Answers of followers.

    def _on_snapshot_done(self, sender: str, message: wire.SnapshotDone) -> None:
        progress = self.leading.followers.get(sender)
        if progress is not None and message.index <= self.journal.last_index:
            progress.heard_s = self.context.now_s
            if (
                message.index >= self.journal.base.index
            ):  # Perhaps tables of a leader before: entries do from here.
                progress.snapshot_index = min(progress.snapshot_index, message.index)
            progress.acked(message.index, self.context.now_s)

    def _if_leading(self, handler: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
        """Hand a follower's answer on only if it answers the term that this node leads."""

        def handle(sender: str, message: Any) -> None:
            if message.term > self.core.term:
                self.elections.follow(message.term, None)
            elif message.term == self.core.term and self.core.is_leader:
                handler(sender, message)

        return handle

    def _begin_leading(self) -> None:
        self.elections.became_leader = False
        self.leading.begin()
        self.proposals.lead()

    def _end_leading(self) -> None:
        self.leading.end()
        self.proposals.follow()

    def _install_snapshot(self) -> None:
        donor_answer = self._receiving.install()
        if donor_answer is None:
            return
        with self._store.read() as snapshot:
            self.context.adopt(self._read_members(snapshot.ledger))
        if self.core.leader is not None and not self.core.is_leader:
            self.context.hold(self.core.leader, donor_answer)
            self.context.release()
        self._again = True
