"""Changes of the cluster's members that people ask for: each is refused by name where it would do harm.

An observer is promoted when it has caught up, since a voter that lags holds up every write that needs it.  No voter
is removed if those that remain could not write any more.  Changes come one at a time; whoever comes a moment
after another waits for its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import NotFound, Refused, Unavailable
from iceprod_p2p.ledger.commands import Command, PromoteMember, RemoveMember
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.raft.status import RaftStatus
from iceprod_p2p.site.consensus import Consensus, applied, propose_in_turn
from iceprod_p2p.wire.pb import common_pb2, control_pb2

WAIT_S: Final = 10.0  # How long a promotion waits for an observer, unless told.
WAIT_S_MAX: Final = 600.0
ROUND_S: Final = 1.0  # Caught up is who needs no longer for what came meanwhile (dissertation, 4.2.1).
LOOK_S: Final = 0.1
SILENT_S: Final = 3.0  # A voter that is needed and silent is asked again for so long.

Ask = Callable[[common_pb2.NodeAddress], Awaitable[control_pb2.MemberStatus]]


class MembersView(Protocol):
    """What is read of the ledger."""

    def nodes_now(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node of the cluster, as this node's tables are now."""
        ...


class Leadership(Protocol):
    """The part of Raft that knows and hands over who leads."""

    async def transfer_leader(self, to: str | None) -> str:
        """Hand leadership to a node, whoever leads now; Unavailable when nobody takes it in time."""
        ...

    def status(self) -> RaftStatus:
        """What this node knows of its Raft part."""
        ...


class Membership:
    """Promotes and removes members, and hands leadership over; used on the event loop only."""

    def __init__(
        self,
        *,
        node_id: str,
        consensus: Consensus,
        raft: Leadership,
        cluster: MembersView,
        ask: Ask,
        clock: Clock,
    ) -> None:
        """`ask` asks one node for its status; one that does not answer is `reachable` False."""
        self._node_id = node_id
        self._consensus = consensus
        self._raft = raft
        self._cluster = cluster
        self._ask = ask
        self._clock = clock

    async def promote(
        self, node_id: str, *, actor: str, request_id: bytes, wait_s: float = WAIT_S
    ) -> tuple[str, ...]:
        """Make an observer a voter once it has caught up; return notes.

        Refused says how far behind it is after `wait_s`; NotFound that there is no such node.
        """
        node = self._node(node_id)
        if node.role == MemberRole.VOTER:
            return (f"node {node_id} is a voter already",)
        await self._wait_until_caught_up(node, min(wait_s, WAIT_S_MAX))
        notes = await self._change(PromoteMember(node_id), actor, request_id)
        return (*notes, self._survives())

    async def remove(self, node_id: str, *, actor: str, request_id: bytes) -> tuple[str, ...]:
        """Remove a node for good; Refused while the voters that remain could not write any more."""
        node = self._node(node_id)
        if node_id == self._node_id:
            raise Unavailable(
                f"node {node_id} does not remove itself: it would never hear that it was done",
                remedy=f"ask another one: iceprod --node OTHER cluster remove {node_id}",
            )
        if node.role == MemberRole.VOTER:
            await self._check_rest(node_id)
        notes = await self._change(RemoveMember(node_id), actor, request_id)
        return (*notes, self._survives()) if node.role == MemberRole.VOTER else notes

    async def transfer_leader(self, node_id: str) -> str:
        """Hand leadership to a voter (empty: the most complete one), whoever leads now; return who leads then."""
        if not node_id:
            return await self._raft.transfer_leader(None)
        node = self._node(node_id)
        if node.role != MemberRole.VOTER:
            raise Refused(
                "wrong_state",
                f"node {node_id} is an observer and cannot lead",
                remedy=f"let it vote first: iceprod cluster promote {node_id}",
            )
        if self._raft.status().leader_id == node_id:
            return node_id
        if not (await self._ask(node)).reachable:
            raise Refused("wrong_state", f"node {node_id} does not answer, so it cannot lead")
        return await self._raft.transfer_leader(node_id)

    # Parts.

    def _node(self, node_id: str) -> common_pb2.NodeAddress:
        found = next((node for node in self._cluster.nodes_now() if node.node_id == node_id), None)
        if found is None:
            raise NotFound(f"there is no node {node_id!r}", remedy="see `iceprod cluster members`")
        return found

    async def _wait_until_caught_up(self, node: common_pb2.NodeAddress, wait_s: float) -> None:
        """Let it apply what is committed now, then what came meanwhile, until a round is short."""
        began_s = self._clock.monotonic_s()
        target, round_s = await self._consensus.barrier(), began_s
        while True:
            row = await self._ask(node)
            now_s = self._clock.monotonic_s()
            if row.reachable and not row.failed and row.applied_index >= target:
                if now_s - round_s <= ROUND_S:
                    return
                target, round_s = await self._consensus.barrier(), now_s
            elif now_s - began_s >= wait_s:
                raise Refused("behind", _how_far(node.node_id, row, target), remedy=_WAIT)
            await asyncio.sleep(LOOK_S)

    async def _check_rest(self, node_id: str) -> None:
        rest = [
            node
            for node in self._cluster.nodes_now()
            if node.role == MemberRole.VOTER and node.node_id != node_id
        ]
        end_s = self._clock.monotonic_s() + SILENT_S
        while True:
            silent = await self._silent(rest)
            if 2 * len(silent) < len(rest) or not rest:
                return
            if self._clock.monotonic_s() >= end_s:
                break
            await asyncio.sleep(LOOK_S)  # It may just have started, and its link be about to be made anew.
        raise Refused(
            "wrong_state",
            f"without node {node_id} nothing could be written any more: of the {len(rest)} voters that remain"
            f" {', '.join(silent)} {'does' if len(silent) == 1 else 'do'} not answer",
            remedy=f"start {silent[0]} first, or remove it instead",
        )

    async def _silent(self, nodes: Sequence[common_pb2.NodeAddress]) -> list[str]:
        """Return which nodes do not answer, or take no part."""
        rows = await asyncio.gather(*(self._ask(node) for node in nodes))
        return [
            node.node_id for node, row in zip(nodes, rows, strict=True) if not row.reachable or row.failed
        ]

    async def _change(self, command: Command, actor: str, request_id: bytes) -> tuple[str, ...]:
        outcome = await propose_in_turn(self._consensus, command, actor=actor, request_id=request_id)
        return applied(outcome, remedy=_AGAIN if _is_busy(outcome) else "").notes

    def _survives(self) -> str:
        voters = sum(node.role == MemberRole.VOTER for node in self._cluster.nodes_now())
        lost = (voters - 1) // 2
        words = (
            f"{voters} {'voter survives' if voters == 1 else 'voters survive'} the loss of {lost or 'none'}"
        )
        return (
            f"{words}, no more than {voters - 1} do: an odd number serves better"
            if voters % 2 == 0
            else words
        )


def _is_busy(outcome: Outcome) -> bool:
    return not isinstance(outcome, Applied) and outcome.code is Refusal.BUSY


_AGAIN: Final = "members change one at a time: ask again in a moment"
_WAIT: Final = (
    "let it catch up (`iceprod cluster status` shows its lag) and ask again; --wait SECONDS waits longer"
)


def _how_far(node_id: str, row: control_pb2.MemberStatus, target: int) -> str:
    if not row.reachable:
        return f"node {node_id} does not answer, so it cannot be made a voter"
    if row.failed:
        return f"the Raft part of node {node_id} has ended, so it cannot be made a voter: {row.failed}"
    behind = target - row.applied_index
    return f"node {node_id} is {behind:,} entries behind: it has applied {row.applied_index:,} of {target:,}"
