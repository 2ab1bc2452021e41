"""What the parts of the engine share inside one tick: state, time, members, and the two ways out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft.journal import Journal
from iceprod_p2p.raft.messages import Message, encode
from iceprod_p2p.raft.ports import FrameSender, Transaction
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.raft.syncobj import SafeSyncObj


class Context:
    """One node's Raft state and surroundings; owned by the engine, used by its thread only."""

    core: SafeSyncObj  # Set by the engine once its rules exist.

    def __init__(
        self, node_id: str, journal: Journal, sender: FrameSender, settings: RaftSettings, now_s: float
    ) -> None:
        self.node_id = node_id
        self.journal = journal
        self.settings = settings
        self.now_s = now_s
        self.leader_heard_s = -1e9  # When a leader of the current term was last heard.
        self.durable_index = journal.last_index  # What this node's own disk holds for certain.
        self.members: dict[str, Member] = {}
        self.session = 0  # This start of the node; what it promises names it (`promises`).
        self.voters: frozenset[str] = frozenset()
        self.observers: frozenset[str] = frozenset()
        self.peers: tuple[str, ...] = ()
        self.transaction: Transaction | None = None
        self._sender = sender
        self._held: list[tuple[str, bytes]] = []

    def hold(self, node_id: str, message: Message) -> None:
        """Send after this tick's commit: for everything that promises something (votes, acknowledgements)."""
        self._held.append((node_id, encode(message)))

    def send_at_once(self, node_id: str, message: Message) -> None:
        """Send before this tick's commit: only for what promises nothing about this node's own disk."""
        self._sender.send(node_id, encode(message))

    def send_frame(self, node_id: str, frame: bytes) -> None:
        """Send an encoded message before this tick's commit, as `send_at_once`."""
        self._sender.send(node_id, frame)

    def release(self) -> None:
        """Send what was held; called after the commit and only then."""
        held, self._held = self._held, []
        for node_id, frame in held:
            self._sender.send(node_id, frame)

    def drop_held(self) -> None:
        """Forget what was held: the tick failed, so nothing of it may leave."""
        self._held.clear()

    def is_quorum(self, nodes: Iterable[str]) -> bool:
        """Return whether these nodes, each counted once and only as a voter, are a majority of the voters."""
        return 2 * len(self.voters.intersection(nodes)) > len(self.voters)

    def adopt(self, members: Sequence[Member]) -> bool:
        """Take over the members of the ledger; return whether they changed."""
        found = {member.node_id: member for member in members}
        if found == self.members:
            return False
        self.members = found
        self.voters = frozenset(name for name, member in found.items() if member.role == MemberRole.VOTER)
        self.observers = frozenset(found) - self.voters
        self.peers = tuple(sorted(name for name in found if name != self.node_id))
        self.core.adopt_members(self.voters, self.observers)
        passing("raft.members.after")
        self._sender.members_changed(tuple(found[name] for name in sorted(found)))
        return True
