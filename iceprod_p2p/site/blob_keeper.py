"""The blob keeper: what datasets and software need is held by as many nodes as it should, and by no more than need it.

Each step compares a page of the ledger's records with what is here: copies of nodes that were removed or are silent are
replaced, what this node lost is fetched again from others or told, and what nothing needs is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import RecordBlob
from iceprod_p2p.ledger.commands_blobs import DropBlobs, ForgetBlobs
from iceprod_p2p.ledger.limits import BLOBS_AT_ONCE
from iceprod_p2p.site.consensus import Consensus
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.site.plans.blobs import BlobPlan, KnownBlob, plan_blobs

PAGE: Final = 500  # Records that one step looks at; a cluster has a few for each dataset.
PUSHES_MAX: Final = 20  # In one step.
log = get_logger("blobs")


class BlobKeeper:
    """The role; `step` is called by one task of the event loop.  `copies` is how many nodes should hold a blob."""

    def __init__(
        self, *, node_id: str, files: FileService, consensus: Consensus, copies: Callable[[], int]
    ) -> None:
        self._node_id = node_id
        self._actor = f"node:{node_id}"
        self._files = files
        self._consensus = consensus
        self._copies = copies
        self._after = ""

    async def step(self) -> None:
        """Look at one page of records and do what is this node's to do.  Unavailable when the ledger cannot answer."""
        plan = self._plan()
        for sha256 in plan.lost:
            await self._mend(sha256)
        for sha256 in plan.kept:
            await self._record(sha256, (self._node_id,))
        for push in plan.pushes[:PUSHES_MAX]:
            took = await self._files.spread(push.sha256, copies=push.count, to=push.to)
            if took:
                await self._record(push.sha256, took)
                log.info("blob held by further nodes", blob=push.sha256, nodes=",".join(took))
        for start in range(0, len(plan.forgotten), BLOBS_AT_ONCE):
            page = plan.forgotten[start : start + BLOBS_AT_ONCE]
            await self._consensus.propose(ForgetBlobs(page), actor=self._actor)
            log.info("blobs forgotten that nothing needs", count=len(page))

    def _plan(self) -> BlobPlan:
        with self._consensus.view() as kv:
            page = queries.blobs(kv, after=self._after, limit=PAGE)
            alive = {row.site for row in queries.sites(kv) if row.alive}
            well = [member.node_id for member in queries.members(kv) if member.site in alive]
        self._after = page.next_after or ""
        known = [KnownBlob(row.sha256, row.node_ids, row.needed, row.old) for row in page.rows]
        return plan_blobs(
            known,
            me=self._node_id,
            here={blob.sha256 for blob in known if self._files.has(blob.sha256)},
            well=well,
            copies=self._copies(),
            forgets=self._consensus.is_leader,
        )

    async def _mend(self, sha256: str) -> None:
        """Fetch again what this node should hold; when nobody has it now, say that it is not here."""
        try:
            await self._files.ensure(sha256)
            log.warning("lost blob fetched again", blob=sha256)
        except IceProdError as failure:
            log.error("blob lost", blob=sha256, why=failure.message)
            await self._consensus.propose(DropBlobs(self._node_id, (sha256,)), actor=self._actor)

    async def _record(self, sha256: str, nodes: tuple[str, ...]) -> None:
        command = RecordBlob(sha256, self._files.size_bytes(sha256), nodes)
        await self._consensus.propose(command, actor=self._actor)
