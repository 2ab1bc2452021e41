"""Who is right when two members' states differ: every so many entries they tell the leader their digest, and the
majority of the voters decides.

The one that differs ends its part by name and never votes again under its id, whether it follows or leads; a leader
that finds no majority for any state ends its part too, for then nobody can tell who is right.  The digest is the
rolling one of the state machine: over every entry and what came of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from iceprod_p2p.base.errors import IntegrityError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.messages import StateDiffers, StateDigest
from iceprod_p2p.raft.ports import KeyValue
from iceprod_p2p.raft.promises import REMEDY, SetBack

KEPT: Final = 64  # Comparisons remembered: who lags by more is compared again later.
log = get_logger("raft")


class Comparing:
    """One node's own digests, and as the leader what the others told; used by the engine's thread only."""

    def __init__(self, context: Context, digest: Callable[[KeyValue], bytes] | None) -> None:
        self.digest = digest
        self._context = context
        self._own: dict[int, bytes] = {}
        self._told: dict[int, dict[str, bytes]] = {}

    def applied(self, index: int, ledger: KeyValue) -> None:
        """Note the state after an entry, where it is one at which all compare; SetBack when this node differs."""
        context = self._context
        if index % context.settings.compare_entries or self.digest is None:
            return
        self._own[index] = self.digest(ledger)
        _trim(self._own)
        if context.core.is_leader:
            self._judge(index)
        elif context.core.leader is not None:
            context.hold(context.core.leader, StateDigest(index, self._own[index]))

    def on_digest(self, sender: str, message: StateDigest) -> None:
        """A member tells its state; only the leader compares."""
        if self._context.core.is_leader and sender in self._context.members:
            self._told.setdefault(message.index, {})[sender] = message.digest
            _trim(self._told)
            self._judge(message.index)

    def on_differs(self, sender: str, message: StateDiffers) -> None:
        """The leader says that a majority has another state after an entry: believe it if it is so."""
        own = self._own.get(message.index)
        if sender == self._context.core.leader and own is not None and own != message.digest:
            raise _differs(message.index)

    def end(self, cause: Exception) -> None:
        """Raise what somebody else found out about this node's store."""
        raise cause

    def _judge(self, index: int) -> None:
        context = self._context
        own = self._own.get(index)
        if own is None:
            return
        digests = {**self._told.get(index, {}), context.node_id: own}
        voters = sorted(context.voters.intersection(digests))
        if not voters or len(set(digests.values())) == 1:
            return
        usual, count = Counter(digests[name] for name in voters).most_common(1)[0]
        if 2 * count <= len(context.voters):
            if len(voters) == len(context.voters):
                raise IntegrityError(
                    f"after entry {index} no majority of the voters has one state: nobody can tell who is right",
                    remedy="keep every data directory, and restore the cluster from a backup: iceprod-node restore",
                )
            return
        for name, digest in sorted(digests.items()):
            if digest != usual and name != context.node_id:
                log.error("member has another state", node=name, index=index)
                context.hold(name, StateDiffers(index, usual))
        if own != usual:
            raise _differs(index)


def _differs(index: int) -> SetBack:
    return SetBack(f"after entry {index} this node's state is not that of the majority", remedy=REMEDY)


def _trim(found: dict[int, Any]) -> None:
    while len(found) > KEPT:
        del found[min(found)]
