"""The cluster as one node sees it: every member asked at once, digests compared at one common index."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509

import iceprod_p2p
from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.rows import NodeRow
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.raft.status import RaftStatus
from iceprod_p2p.security.certificates import chain_from_pem, days_left
from iceprod_p2p.site.node_keys import NodeKeys
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.wire.calls import call
from iceprod_p2p.wire.pb import common_pb2, control_pb2, peer_pb2

ASK_S: Final = 1.5  # A member that is silent for so long is shown as such.
LOOKS: Final = 12  # Members apply the same entry a moment apart: look again until all are at one index.
LOOK_PAUSE_S: Final = 0.04
DAY_MS: Final = 86_400_000


class StatusView(Protocol):
    """What is read of the ledger."""

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node of the cluster."""
        ...


class ClusterStatus:
    """Used on the event loop only."""

    def __init__(
        self,
        *,
        raft: RaftNode,
        peers: Peers,
        cluster: StatusView,
        keys: Callable[[], NodeKeys],
        data_dir: Path,
        problems: Callable[[], Sequence[str]],
        clock: Clock,
    ) -> None:
        self._raft = raft
        self._peers = peers
        self._cluster = cluster
        self._keys = keys
        self._data_dir = data_dir
        self._problems = problems
        self._clock = clock

    def own(self) -> control_pb2.MemberStatus:
        """Return this node's row, as it is told to other nodes."""
        keys, status = self._keys(), self._raft.status()
        with self._raft.view() as kv:
            applied, digest = queries.applied_index(kv), queries.state_digest(kv)
        disk, roots = shutil.disk_usage(self._data_dir), chain_from_pem(keys.root_pem)
        return control_pb2.MemberStatus(
            node_id=keys.node_id,
            site=keys.site,
            server_name=keys.server_name,
            leader=self._raft.is_leader,
            reachable=True,
            version=iceprod_p2p.__version__,
            last_index=status.last,
            applied_index=applied,
            digest=digest.hex(),
            digest_index=applied,
            certificate_days=self._days(keys.certificate),
            authority_days=self._days(keys.authority.certificate),
            root_days=min(map(self._days, roots)),
            people_days=self._days(keys.people.certificate) if keys.people is not None else -1,
            roots=len(roots),
            disk_used_bytes=disk.used,
            disk_free_bytes=disk.free,
            failed=status.failed or "",
            wall_ms=self._clock.wall_ms(),
            troubles=self._problems(),
        )

    def _days(self, certificate: x509.Certificate) -> int:
        return max(0, days_left(certificate, self._clock.wall_ms()))

    async def members(self) -> tuple[list[control_pb2.MemberStatus], bool]:
        """Return a row for each member, and whether all that answered have equal digests at a common
        index.
        """
        nodes = list(self._cluster.nodes())
        rows: list[control_pb2.MemberStatus] = []
        digests: dict[tuple[str, int], str] = {}
        for look in range(LOOKS):
            rows = await asyncio.gather(*(self.ask(node) for node in nodes))
            for row in rows:
                if row.reachable:
                    digests[row.node_id, row.digest_index] = row.digest
            indexes = {row.digest_index for row in rows if row.reachable}
            if len(indexes) <= 1 or look == LOOKS - 1:
                break
            await asyncio.sleep(LOOK_PAUSE_S)
        self._add_progress(rows)
        return rows, _no_two_differ(digests)

    async def ask(self, node: common_pb2.NodeAddress) -> control_pb2.MemberStatus:
        """Return one member's row, `reachable` False when it does not answer in time."""
        if node.node_id == self._keys().node_id:
            row = self.own()
        else:
            row = await self._ask_other(node)
        row.address, row.role, row.server_name = node.address, node.role, node.server_name
        row.enrol_address = node.enrol_address
        row.node_id, row.site = node.node_id, node.site
        return row

    async def _ask_other(self, node: common_pb2.NodeAddress) -> control_pb2.MemberStatus:
        request = peer_pb2.GetMemberRequest()
        began_s = self._clock.monotonic_s()
        try:
            row: control_pb2.MemberStatus = await call(
                self._peers.peer(node).GetMember, request, timeout_s=ASK_S, peer=node.node_id
            )
        except IceProdError:
            return control_pb2.MemberStatus(reachable=False)
        row.reachable = True
        row.round_trip_ms = (self._clock.monotonic_s() - began_s) * 1_000
        return row

    async def takes_part(self, node: common_pb2.NodeAddress) -> bool:
        """Return whether a node answers now and its consensus part has not ended."""
        row = await self.ask(node)
        return row.reachable and not row.failed

    def _add_progress(self, rows: list[control_pb2.MemberStatus]) -> None:
        last = max((row.last_index for row in rows), default=0)
        for row in rows:
            row.lag = max(0, last - row.applied_index) if row.reachable else last

    def health(
        self, rows: Sequence[control_pb2.MemberStatus], status: RaftStatus, *, digests_equal: bool
    ) -> tuple[str, list[str]]:
        """Return healthy, degraded or no_quorum, and the reasons."""
        voters = [row for row in rows if row.role == MemberRole.VOTER]
        alive = [row for row in voters if row.reachable and not row.failed]
        problems = [f"node {row.node_id} of {row.site} does not answer" for row in rows if not row.reachable]
        problems += [
            f"the Raft part of node {row.node_id} has ended: {row.failed}" for row in rows if row.failed
        ]
        if not digests_equal:
            problems.append(
                "members have different states at one index: the one that differs from the majority stops by"
                " itself within some entries; then there: iceprod-node rejoin"
            )
        problems += [f"node {row.node_id}: {trouble}" for row in rows for trouble in row.troubles]
        leader = leader_of(rows, status)
        if not leader:
            problems.append("no leader is known here")
        if len(alive) * 2 <= len(voters) or not leader:
            return "no_quorum", problems
        return ("degraded" if problems else "healthy"), problems


def leader_of(rows: Sequence[control_pb2.MemberStatus], status: RaftStatus) -> str:
    """Return who leads: as this node knows, or, when it came back a moment ago, as that one says itself."""
    return status.leader_id or next((row.node_id for row in rows if row.leader and row.reachable), "")


def add_versions(rows: Sequence[control_pb2.MemberStatus], nodes: Sequence[NodeRow]) -> int:
    """Note which ledger versions each member reads; return the newest that all of them do."""
    known = {node.member.node_id: node for node in nodes}
    for row in rows:
        if row.node_id in known:
            row.version_least = known[row.node_id].version_least
            row.version_most = known[row.node_id].version_most
    return min((node.version_most for node in nodes), default=0)


def _no_two_differ(digests: dict[tuple[str, int], str]) -> bool:
    at: dict[int, set[str]] = {}
    for (_, index), digest in digests.items():
        at.setdefault(index, set()).add(digest)
    return all(len(found) == 1 for found in at.values())
