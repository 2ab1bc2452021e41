"""Keeps the ledger's time and this site's leases.

Time enters the ledger in the leader's `Tick` alone, advanced by its monotonic clock from the last applied
time: a wall clock that jumps expires nothing.  Each node's heartbeat renews all leases of its site at once,
and those of other sites' attempts whose pilots report here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.ledger.commands import Heartbeat, TaskRef, Tick
from iceprod_p2p.model.site import SiteCounts
from iceprod_p2p.site.consensus import Consensus

STEP_MS_MAX: Final = 60_000  # A leader that was stopped for long does not make time leap for everybody.
VOUCHED_MAX: Final = 512  # In one heartbeat: it must fit an entry beside other commands.


class TimeView(Protocol):
    """What is read of the ledger and of Raft."""

    def time_ms(self) -> int:
        """Ledger time."""
        ...

    def term(self) -> int:
        """The present term."""
        ...

    def knows(self, node_id: str) -> bool:
        """Whether the ledger lists a node: a newcomer is silent until it has caught up."""
        ...


class Timekeeper:
    """The leader's clock; `tick` is called by a role on every node and acts on the leader alone."""

    def __init__(self, *, node_id: str, consensus: Consensus, cluster: TimeView, clock: Clock) -> None:
        self._actor = f"node:{node_id}"
        self._consensus = consensus
        self._cluster = cluster
        self._clock = clock
        self._anchor: tuple[int, int, float] | None = (
            None  # Term, ledger ms and monotonic s when leading began.
        )

    async def tick(self) -> None:
        """Advance the ledger's time by what this machine's monotonic clock says has passed."""
        if not self._consensus.is_leader:
            self._anchor = None
            return
        term, now_s, ledger_ms = self._cluster.term(), self._clock.monotonic_s(), self._cluster.time_ms()
        if self._anchor is None or self._anchor[0] != term:
            self._anchor = (term, ledger_ms, now_s)
        _, anchor_ms, anchor_s = self._anchor
        now_ms = anchor_ms + int((now_s - anchor_s) * 1_000)
        if now_ms - ledger_ms > STEP_MS_MAX:
            now_ms = ledger_ms + STEP_MS_MAX
            self._anchor = (term, now_ms, now_s)
        if now_ms > ledger_ms:
            await self._consensus.propose(Tick(term, now_ms), actor=self._actor, timeout_s=2.0)


class SiteHeartbeat:
    """This node's word that its site lives; `beat` is called by a role."""

    def __init__(
        self,
        *,
        site: str,
        node_id: str,
        consensus: Consensus,
        cluster: TimeView,
        counts: Callable[[], SiteCounts],
        vouched: Callable[[], tuple[TaskRef, ...]],
    ) -> None:
        self._site = site
        self._node_id = node_id
        self._consensus = consensus
        self._cluster = cluster
        self._counts = counts
        self._vouched = vouched

    async def beat(self) -> None:
        """Renew the leases, in as many commands as the attempts vouched for need."""
        if not self._cluster.knows(self._node_id):
            return
        vouched = self._vouched()
        for start in range(0, max(1, len(vouched)), VOUCHED_MAX):
            page = vouched[start : start + VOUCHED_MAX]
            command = Heartbeat(self._site, self._node_id, self._counts(), page)
            await self._consensus.propose(command, actor=f"node:{self._node_id}", timeout_s=5.0)
