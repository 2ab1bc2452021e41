"""What peers promised, remembered durably: a data directory that is older than its promises never counts again.

A node that votes or acknowledges and later comes back with less on its disk (an old backup, a snapshot of its
machine, a disk that lied about its fsync, a new directory under the old id) could vote twice in a term or help
to elect somebody who lacks what it had acknowledged.  So:

- Each start of a node is a *session*: a random number, written down with a count of starts before anything
  leaves the node.  Votes, acknowledgements, candidacies and heartbeats name their session.
- Before they count, the session is introduced by a `Hello`: what this node has on its disk now (term, vote, how far
  it acknowledged the leader of that term, its last entry, how often it was started).
- Whoever receives a Hello compares it with what it remembers that this node promised it.  Votes, acknowledgements
  and terms never go back on a sound disk, since they leave only after their fsync.  If they did, the session
  is not accepted: nothing it says counts here, and it is told so.
- A node that is told so notes it down, ends its Raft part by name, and refuses every later start.  It comes
  back under a new id, with an empty data directory and a snapshot.

What a leader has acknowledged to others is seen by the commit index that its heartbeats named: it holds that much.

What this cannot see: a copy that is restored while everybody who remembers later promises is down or was set
back as well.  Copies made file by file are also seen on the spot, by `store.environment`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from iceprod_p2p.base.errors import IntegrityError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.journal import Identity, seal, unseal
from iceprod_p2p.raft.messages import (
    AppendReply,
    Heartbeat,
    Hello,
    HelloRefused,
    HelloWanted,
    Message,
    SnapshotDone,
    VoteReply,
    VoteRequest,
)
from iceprod_p2p.raft.ports import KeyValue, Random, Transaction

SESSION_KEY: Final = b"session"
RETIRED_KEY: Final = b"retired"
PEER: Final = b"peer/"
PEER_END: Final = b"peer0"
SESSIONS: Final = 1 << 48
STRANGERS_MAX: Final = 1_024  # Certified nodes that are no members (yet) and are remembered all the same.
REMEDY: Final = "take part again under a new node id: iceprod-node rejoin"

log = get_logger("raft")


class Session(msgspec.Struct, frozen=True, array_like=True):
    """One start of this node."""

    boot: int = 0
    number: int = 0


class Retired(msgspec.Struct, frozen=True, array_like=True):
    """This directory takes no part any more."""

    reason: str


class Remembered(msgspec.Struct, array_like=True):
    """What one peer has promised this node; it only grows."""

    incarnation: bytes
    boot: int
    session: int
    term: int = 0
    acked: int = 0  # How far it acknowledged this node as the leader of `term`.
    voted_term: int = 0  # The last term in which it voted for this node.
    held: int = 0  # As a leader it named this commit index, so it holds that much.


class SetBack(IntegrityError):
    """This node's own disk lacks what it had promised: its directory is retired, whatever is started on it."""


def retire(transaction: Transaction, reason: str) -> None:
    """Write down that this directory takes no part any more; the caller commits."""
    transaction.meta.put(RETIRED_KEY, seal(Retired(reason)))


def check_not_retired(meta: KeyValue) -> None:
    """Refuse a directory that was told to be older than its promises."""
    value = meta.get(RETIRED_KEY)
    if value is not None:
        raise _retired(unseal("retired", value, Retired).reason)


def _retired(reason: str) -> IntegrityError:
    return IntegrityError(f"this data directory may not vote any more: {reason}", remedy=REMEDY)


class Promises:
    """One node's own session, and its memory of the others'."""

    def __init__(self, context: Context, meta: KeyValue, identity: Identity, random: Random) -> None:
        self._context = context
        self._incarnation = identity.incarnation
        value = meta.get(SESSION_KEY)
        before = Session() if value is None else unseal("session", value, Session)
        self.session = Session(before.boot + 1, 1 + int(random.random() * (SESSIONS - 1)))
        context.session = self.session.number
        self._begun = False
        self._peers: dict[str, Remembered] = {
            key[len(PEER) :].decode(): unseal("peer", row, Remembered)
            for key, row in meta.scan(PEER, PEER_END)
        }
        self._changed: set[str] = set()
        self._lasting = False
        self._asked_s: dict[str, float] = {}
        self.retired: str | None = None

    # This node's own word.

    def greet(self, peer: str) -> None:
        """Introduce this session to a peer, after this tick's commit."""
        core, journal = self._context.core, self._context.journal
        state = journal.state
        session = self.session
        hello = Hello(
            self._incarnation,
            session.boot,
            session.number,
            core.term,
            core.vote or "",
            state.acked,
            journal.last_index,
        )
        self._context.hold(peer, hello)

    def on_wanted(self, sender: str, message: HelloWanted) -> None:
        """A peer does not know this session yet."""
        self.greet(sender)

    def on_refused(self, sender: str, message: HelloRefused) -> None:
        """A peer remembers more than this node has: take no part any more, now and after every restart."""
        if message.session != self.session.number:
            self.greet(sender)  # That was about an earlier session.
            return
        self.retired = f"{message.reason} (says {sender})"

    def save(self, meta: KeyValue) -> bool:
        """Write what has changed into the tick's transaction; return whether its commit must last.

        How far others acknowledged and committed need not: that grows with every entry, and each entry lasts.
        """
        if not self._begun:
            self._begun = self._lasting = True
            meta.put(SESSION_KEY, seal(self.session))
            for peer in self._context.peers:
                self.greet(peer)
        if self.retired is not None:
            self._lasting = True
            meta.put(RETIRED_KEY, seal(Retired(self.retired)))
        for peer in sorted(self._changed):
            meta.put(PEER + peer.encode(), seal(self._peers[peer]))
        self._changed.clear()
        lasting, self._lasting = self._lasting, False
        return lasting

    def end_if_retired(self) -> None:
        """End the Raft part, once that is durable."""
        if self.retired is not None:
            raise _retired(self.retired)

    # The others'.

    def on_hello(self, sender: str, message: Hello) -> None:
        """Accept a session, unless its node has gone back behind what it promised."""
        known = self._peers.get(sender)
        if known is None:
            if sender not in self._context.members and len(self._peers) >= STRANGERS_MAX:
                return
            self._peers[sender] = Remembered(message.incarnation, message.boot, message.session)
            self._changed.add(sender)
            self._lasting = True
            return
        if (known.boot, known.session) == (message.boot, message.session):
            return
        reason = self._contradiction(known, message)
        if reason:
            log.error("node has gone back", node=sender, reason=reason, boot=message.boot)
            self._context.hold(sender, HelloRefused(message.session, reason))
            return
        known.boot, known.session = message.boot, message.session
        self._changed.add(sender)
        self._lasting = True

    def counts(self, sender: str, message: Message) -> bool:
        """Return whether what a peer says in its session may count; remember what it promises by it."""
        if not isinstance(message, VoteRequest | VoteReply | AppendReply | SnapshotDone | Heartbeat):
            return True
        known = self._peers.get(sender)
        if known is None or known.session != message.session:
            self._ask(sender)
            # A leader's heartbeat promises nothing that its voters did not: following it is always safe.
            return isinstance(message, Heartbeat)
        if self._remember(known, message):
            self._changed.add(sender)
        return True

    def _ask(self, sender: str) -> None:
        context = self._context
        if context.now_s - self._asked_s.get(sender, -1e9) >= context.settings.heartbeat_s:
            self._asked_s[sender] = context.now_s
            context.hold(sender, HelloWanted())

    def _remember(self, known: Remembered, message: Message) -> bool:
        before = (known.term, known.acked, known.voted_term, known.held)
        match message:
            case VoteReply(term=term, pre=False, granted=granted):
                self._reach(known, term)
                if granted:
                    known.voted_term = max(known.voted_term, term)
                    self._lasting = True
            case AppendReply(term=term, ok=True, index=index) | SnapshotDone(term=term, index=index):
                self._reach(known, term)
                if term == known.term:
                    known.acked = max(known.acked, index)
            case VoteRequest(term=term, pre=False):
                self._reach(known, term)
            case Heartbeat(commit=commit):
                known.held = max(known.held, commit)
            case _:
                pass
        return before != (known.term, known.acked, known.voted_term, known.held)

    @staticmethod
    def _reach(known: Remembered, term: int) -> None:
        if term > known.term:
            known.term, known.acked = term, 0

    def _contradiction(self, known: Remembered, hello: Hello) -> str:
        """Return how a Hello contradicts what its node promised here; empty when it does not."""
        if known.incarnation != hello.incarnation:
            return "it is another data directory than the one that had this node id before"
        if hello.boot <= known.boot:
            return f"it is an old copy: this is its start {hello.boot}, but start {known.boot} was seen"
        if hello.term < known.term:
            return f"it is an old copy: it is at term {hello.term}, but was seen in term {known.term}"
        if hello.term == known.term and hello.acked < known.acked:
            return (
                f"it is an old copy: entry {known.acked} of term {known.term} was acknowledged, but is gone"
            )
        if 0 < known.voted_term == hello.term and hello.vote != self._context.node_id:
            return f"it is an old copy: its vote in term {hello.term} is forgotten"
        if hello.last_index < known.held:
            return f"it is an old copy: its log ends at {hello.last_index}, but it had committed {known.held}"
        return ""
