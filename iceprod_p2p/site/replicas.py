"""Tells the ledger which files' copies have arrived at this site: many in one command, soon after they
came.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import RecordReplicas, ReplicaRef
from iceprod_p2p.site.consensus import Consensus

WANTED_MAX: Final = 100_000  # Names that pilots resolved; the oldest are forgotten.
PAGE: Final = 256
log = get_logger("replicas")


class Replicas:
    """Used on the event loop only; `step` is a role."""

    def __init__(self, *, site: str, node_id: str, consensus: Consensus) -> None:
        self._site = site
        self._actor = f"node:{node_id}"
        self._consensus = consensus
        self._wanted: OrderedDict[str, set[ReplicaRef]] = OrderedDict()
        self._arrived: dict[ReplicaRef, None] = {}

    def resolved(self, files: Sequence[tuple[str, int, int, str]]) -> None:
        """Hear (sha256, dataset, job, name) of what a pilot of this site is about to fetch."""
        for sha256, dataset, job, name in files:
            self._wanted.setdefault(sha256, set()).add(ReplicaRef(dataset, job, name))
            self._wanted.move_to_end(sha256)
        while len(self._wanted) > WANTED_MAX:
            self._wanted.popitem(last=False)

    def fetched(self, sha256: str) -> None:
        """Hear that a blob has arrived from another site."""
        for ref in sorted(self._wanted.pop(sha256, ()), key=lambda ref: (ref.dataset, ref.job, ref.name)):
            self._arrived[ref] = None

    async def step(self) -> None:
        """Record what has arrived; what cannot be recorded now is tried again."""
        while self._arrived:
            page = tuple(list(self._arrived)[:PAGE])
            try:
                await self._consensus.propose(RecordReplicas(self._site, page), actor=self._actor)
            except Unavailable as failure:
                log.info("replicas not recorded yet", count=len(page), why=failure.message)
                return
            for ref in page:
                self._arrived.pop(ref, None)
