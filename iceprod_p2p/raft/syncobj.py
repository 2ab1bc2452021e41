"""PySyncObj 0.3.17 behind one door: the only file that knows its private names.

What stays PySyncObj's: the state (role, term, vote, leader, commit and applied index, election deadline),
becoming a leader with its no-op entry, the step of term and vote into the journal, the queue of commands
and its way into the log.  What is overridden, each as a whole: the tick, the receiving of messages,
applying, sending entries, compaction, the loading of dumps, the random time-out.  Journal and transport
are its own seams and are ours.

Its pickle module is replaced, at import, by a MessagePack codec that knows `Node` and nothing else, and what
it puts into the `socket` module of every platform is taken out again.
"""

from __future__ import annotations

import _socket
import socket
from enum import IntEnum
from typing import Any, Final, NoReturn, Protocol

import msgspec
import pysyncobj.journal
import pysyncobj.pickle
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.syncobj import _COMMAND_TYPE, _RAFT_STATE
from pysyncobj.transport import Transport as TransportSeam

from iceprod_p2p.raft.journal import Journal
from iceprod_p2p.raft.messages import Message
from iceprod_p2p.raft.ports import Random
from iceprod_p2p.raft.settings import RaftSettings

VERSION: Final = "0.3.17"
REGULAR: Final = bytes([_COMMAND_TYPE.REGULAR])
NO_OP: Final = bytes([_COMMAND_TYPE.NO_OP])

PRIVATE_ATTRIBUTES: Final = (
    "_SyncObj__raftState",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__votedForNodeId",
    "_SyncObj__raftLeader",
    "_SyncObj__raftElectionDeadline",
    "_SyncObj__raftLog",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftLastApplied",
    "_SyncObj__otherNodes",
    "_SyncObj__readonlyNodes",
    "_SyncObj__noopIDx",
    "_SyncObj__selfNode",
    "_SyncObj__commandsQueue",
)
"""What an instance must hold after construction; the contract test names the one that moved."""

PRIVATE_METHODS: Final = (
    "_SyncObj__setState",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__onBecomeLeader",
    "_SyncObj__onMessageReceived",
    "_SyncObj__applyLogEntries",
    "_SyncObj__doApplyCommand",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__tryLogCompaction",
    "_SyncObj__loadDumpFile",
    "_SyncObj__generateRaftTimeout",
    "_onTick",
    "_applyCommand",
    "_checkCommandsToApply",
)
"""What the class must define; called or overridden below."""


class _PlainNode(msgspec.Struct, frozen=True, array_like=True):
    node_id: str


def plain_dumps(value: Any, protocol: object = None) -> bytes:
    """Encode plain data, with `Node` as an extension; what else PySyncObj would pickle is refused."""

    def encode_node(other: Any) -> Any:
        if isinstance(other, Node):
            return msgspec.msgpack.Ext(1, str(other.id).encode())
        raise TypeError(f"{type(other).__name__} is not plain data and is never pickled")

    return msgspec.msgpack.encode(value, enc_hook=encode_node)


def plain_loads(data: bytes) -> Any:
    """Decode what `plain_dumps` made; never runs code."""

    def decode_node(code: int, body: memoryview) -> Node:
        if code != 1:
            raise ValueError(f"extension {code} is not known")
        return Node(bytes(body).decode())

    return msgspec.msgpack.decode(data, ext_hook=decode_node)


def _refuse_files(*_: Any) -> NoReturn:
    raise AssertionError("PySyncObj must not read or write dumps: the node's store does")


def replace_pickle() -> None:
    """Put the plain codec wherever PySyncObj would call pickle."""
    pysyncobj.pickle.loads = pysyncobj.journal.loads = plain_loads
    pysyncobj.pickle.dumps = pysyncobj.journal.dumps = plain_dumps
    pysyncobj.pickle.load = pysyncobj.pickle.dump = _refuse_files


replace_pickle()
# pysyncobj.win_inet_pton puts a function that works on Windows alone into everybody's `socket`.
socket.inet_ntop = _socket.inet_ntop


class Role(IntEnum):
    """What a node is in its term; PySyncObj's numbers."""

    FOLLOWER = _RAFT_STATE.FOLLOWER
    CANDIDATE = _RAFT_STATE.CANDIDATE
    LEADER = _RAFT_STATE.LEADER


class Rules(Protocol):
    """What the engine puts in place of PySyncObj's own behaviour; all of it runs inside one tick."""

    def on_message(self, sender: str, message: Message) -> None: ...

    def on_timers(self) -> None: ...

    def advance_commit(self) -> None: ...

    def apply_entries(self) -> None: ...

    def gather_commands(self) -> None: ...

    def send_entries(self) -> None: ...

    def compact(self) -> None: ...


class _Seam(TransportSeam):  # type: ignore[misc]
    """PySyncObj's transport seam.  All frames are ours and leave through the engine, so this one sends nothing."""

    def __init__(self) -> None:
        super().__init__(None, None, [])

    @property
    def ready(self) -> bool:
        return True

    def send(self, node: Node, message: Any) -> bool:
        raise AssertionError(f"PySyncObj tried to send {message!r} to {node} past the engine's rules")

    def addNode(self, node: Node) -> None:
        """Links follow the replicated members, not PySyncObj."""

    def dropNode(self, node: Node) -> None:
        """Links follow the replicated members, not PySyncObj."""

    def destroy(self) -> None:
        """Nothing is held."""


class SafeSyncObj(SyncObj):  # type: ignore[misc]
    """PySyncObj's Raft state, moved only by our rules.

    Names without an underscore are for the engine.  Not thread-safe: one thread makes and uses it.
    """

    def __init__(
        self, node_id: str, journal: Journal, rules: Rules, *, settings: RaftSettings, random: Random
    ) -> None:
        self._rules = rules
        self._random = random
        self._settings = settings
        self._journal = journal
        self._nodes: dict[str, Node] = {}
        self.is_leader = False
        conf = SyncObjConf(
            autoTick=False,
            # Without batches PySyncObj opens a pipe and sends from inside the command queue.
            appendEntriesUseBatch=True,
            commandsWaitLeader=True,
            dynamicMembershipChange=False,  # Members are rows of the ledger, adopted when applied.
            raftMinTimeout=settings.election_min_s,
            raftMaxTimeout=settings.election_max_s,
            appendEntriesPeriod=settings.heartbeat_s,
            leaderFallbackTimeout=settings.quorum_silence_s,
            connectionTimeout=max(3.5, settings.election_max_s),
        )
        super().__init__(self.node(node_id), [], conf, transport=_Seam())
        # The constructor made a journal in memory with an entry of its own; the durable one takes its place.
        self._SyncObj__raftLog = journal
        self._SyncObj__raftCurrentTerm = journal.getCurrentTerm()
        self._SyncObj__votedForNodeId = journal.getVotedForNodeId()
        self._SyncObj__raftCommitIndex = journal.getRaftCommitIndex()
        self._SyncObj__raftLastApplied = journal.state.applied
        self._SyncObj__noopIDx = 0

    def node(self, node_id: str) -> Node:
        """Return PySyncObj's object for a node id, always the same one."""
        found = self._nodes.get(node_id)
        if found is None:
            found = self._nodes[node_id] = Node(node_id)
        return found

    # The state, by our names.

    @property
    def role(self) -> Role:
        return Role(self._SyncObj__raftState)

    @property
    def term(self) -> int:
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def vote(self) -> str | None:
        """Whom this node voted for in its term."""
        vote = self._SyncObj__votedForNodeId
        return None if vote is None else str(vote)

    @property
    def leader(self) -> str | None:
        """The leader of the term as far as known."""
        node = self._SyncObj__raftLeader
        return None if node is None else str(node.id)

    @leader.setter
    def leader(self, node_id: str | None) -> None:
        self._SyncObj__raftLeader = None if node_id is None else self.node(node_id)

    @property
    def commit(self) -> int:
        return int(self._SyncObj__raftCommitIndex)

    @commit.setter
    def commit(self, index: int) -> None:
        assert index >= self._SyncObj__raftCommitIndex, "the commit index never goes back"
        self._SyncObj__raftCommitIndex = index
        self._journal.setRaftCommitIndex(index)

    @property
    def applied(self) -> int:
        return int(self._SyncObj__raftLastApplied)

    @applied.setter
    def applied(self, index: int) -> None:
        self._SyncObj__raftLastApplied = index
        self._journal.state.applied = index

    @property
    def deadline_s(self) -> float:
        """When this node thinks that there is no leader."""
        return float(self._SyncObj__raftElectionDeadline)

    @property
    def noop_index(self) -> int:
        """The index of the first entry of this leader's term; it may act on reads and members once applied."""
        return int(self._SyncObj__noopIDx or 0)

    # The moves.

    def postpone_election(self, now_s: float) -> None:
        """Wait another random time-out before thinking that there is no leader."""
        self._SyncObj__raftElectionDeadline = now_s + self._SyncObj__generateRaftTimeout()

    def set_term(self, term: int, vote: str | None) -> None:
        """Enter `term` with this vote; durable when the tick commits."""
        assert term > self.term or (term == self.term and self.vote in (None, vote)), (
            "terms and votes never go back"
        )
        self._SyncObj__setCurrentTerm(term, vote)

    def become_follower(self) -> None:
        self._SyncObj__setState(_RAFT_STATE.FOLLOWER)

    def become_candidate(self) -> None:
        self._SyncObj__raftLeader = None
        self._SyncObj__setState(_RAFT_STATE.CANDIDATE)

    def become_leader(self) -> None:
        """Lead the term; PySyncObj appends its no-op entry."""
        self._SyncObj__onBecomeLeader()

    def adopt_members(self, voters: frozenset[str], observers: frozenset[str]) -> None:
        """Hold the other voters as PySyncObj's partners and the other observers as its read-only nodes."""
        own = str(self._SyncObj__selfNode.id)
        self._SyncObj__otherNodes = {self.node(name) for name in sorted(voters) if name != own}
        self._SyncObj__readonlyNodes = {self.node(name) for name in sorted(observers) if name != own}

    def reload(self) -> None:
        """Take over what the journal says after a snapshot was installed: only commit and applied have moved."""
        self._SyncObj__raftCommitIndex = self._journal.state.commit
        self._SyncObj__raftLastApplied = self._journal.state.applied

    def enqueue(self, entry: bytes) -> None:
        """Put one entry of commands into PySyncObj's queue; the leader's tick appends it."""
        self._applyCommand(entry, None, _COMMAND_TYPE.REGULAR)

    def deliver(self, sender: str, message: Message) -> None:
        """Hand a message of a certified sender to the receive rules."""
        self._SyncObj__onMessageReceived(self.node(sender), message)

    # What PySyncObj does no longer do itself.

    def _SyncObj__setState(self, newState: Any) -> None:
        super()._SyncObj__setState(newState)
        self.is_leader = newState == _RAFT_STATE.LEADER  # Asked a dozen times a tick.

    def _onTick(self, timeToWait: float = 0.0) -> None:
        rules = self._rules
        rules.on_timers()
        rules.advance_commit()
        self._SyncObj__applyLogEntries()
        rules.gather_commands()
        # PySyncObj's loop ends by the real clock; the outcome of a tick must not depend on that one.
        while self._SyncObj__commandsQueue._FastQueue__queue:
            self._checkCommandsToApply()
        self._SyncObj__sendAppendEntries()
        self._SyncObj__tryLogCompaction()

    def _SyncObj__onMessageReceived(self, node: Node, message: Message) -> None:
        self._rules.on_message(node.id, message)

    def _SyncObj__applyLogEntries(self) -> bool:
        self._rules.apply_entries()
        return False

    def _SyncObj__doApplyCommand(self, command: bytes) -> NoReturn:
        raise AssertionError("entries are applied by the engine, in its transaction")

    def _SyncObj__sendAppendEntries(self) -> None:
        self._rules.send_entries()

    def _SyncObj__tryLogCompaction(self) -> None:
        self._rules.compact()

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> NoReturn:
        raise AssertionError("there are no dump files: a snapshot replaces the whole store")

    def _SyncObj__generateRaftTimeout(self) -> float:
        span_s = self._settings.election_max_s - self._settings.election_min_s
        return self._settings.election_min_s + span_s * self._random.random()
