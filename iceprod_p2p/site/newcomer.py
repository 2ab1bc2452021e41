"""What a node does to find its place: notes who the others are, votes if the node before it did, and says which
blobs it holds.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import PromoteMember, RecordBlob
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.security.random import new_request_id
from iceprod_p2p.site.consensus import Consensus, applied, propose_in_turn
from iceprod_p2p.site.known_nodes import note_nodes
from iceprod_p2p.store.blobs import BlobStore
from iceprod_p2p.wire.pb import common_pb2

BLOBS_PAGE: Final = 500
log = get_logger("newcomer")


class NewcomerView(Protocol):
    """What is read of the ledger."""

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node of the cluster."""
        ...

    def node_record(self, node_id: str) -> r.NodeRecord | None:
        """A node as the ledger has it."""
        ...


class Newcomer:
    """A role: used on the event loop only."""

    def __init__(
        self, *, node_id: str, data_dir: Path, consensus: Consensus, cluster: NewcomerView, blobs: BlobStore
    ) -> None:
        self._node_id = node_id
        self._data_dir = data_dir
        self._consensus = consensus
        self._cluster = cluster
        self._blobs = blobs
        self._noted: tuple[common_pb2.NodeAddress, ...] = ()
        self._announced = False

    async def step(self) -> None:
        """Do what there is to do; cheap when there is nothing."""
        nodes = self._cluster.nodes()
        if nodes and nodes != self._noted:
            await asyncio.to_thread(note_nodes, self._data_dir, nodes)
            self._noted = nodes
        record = self._cluster.node_record(self._node_id)
        if record is None:
            return
        if record.votes_next and record.member.role is MemberRole.OBSERVER:
            await self._vote()
        if record.replaces and not self._announced:
            await self._announce()

    async def _vote(self) -> None:
        """Become a voter, as the node before was, once everything acknowledged is here."""
        await self._consensus.barrier()
        outcome = await propose_in_turn(
            self._consensus,
            PromoteMember(self._node_id),
            actor=f"node:{self._node_id}",
            request_id=new_request_id(),
        )
        applied(outcome)
        log.info("votes in the place of another", node=self._node_id)

    async def _announce(self) -> None:
        """Say which of the blobs that the ledger knows are here under this node's name."""
        await self._consensus.barrier()
        after: bytes | None = keys.BLOB
        announced = 0
        while after is not None:
            found, after = await asyncio.to_thread(self._page, after)
            for sha256, size_bytes in found:
                command = RecordBlob(sha256, size_bytes, (self._node_id,))
                await self._consensus.propose(command, actor=f"node:{self._node_id}")
                announced += 1
        self._announced = True
        log.info("blobs announced", count=announced)

    def _page(self, after: bytes) -> tuple[list[tuple[str, int]], bytes | None]:
        """Return blobs of one page of the ledger that are here and not said to be, and where to go on."""
        with self._consensus.view() as kv:
            rows = Tables(kv).blobs.page(after, keys.prefix_stop(keys.BLOB), BLOBS_PAGE)
        found = []
        for key, record in rows:
            sha256 = key[1:].hex()
            if self._node_id not in record.node_ids and self._blobs.has(sha256):
                found.append((sha256, record.size_bytes))
        return found, rows[-1][0] + b"\x00" if len(rows) == BLOBS_PAGE else None
