"""The janitor: takes away what has served, so that a node runs for years in the space it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Final, Protocol, TypeVar

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import RecordReplicas, ReplicaRef
from iceprod_p2p.ledger.rows import ContentUses
from iceprod_p2p.site.consensus import Consensus
from iceprod_p2p.site.grid_jobs import GridJob, GridJobBook, GridJobPhase
from iceprod_p2p.site.orders import Orders
from iceprod_p2p.site.pilot_board import PilotBoard
from iceprod_p2p.site.plans.cleanup import (
    Content,
    Ending,
    PilotDirectory,
    StoredBlob,
    Use,
    old_pilot_directories,
    orphan_blobs,
    spent_content,
)
from iceprod_p2p.store.blobs import BlobStore

FORGET_PILOT_S: Final = 600.0  # A pilot that has not called for so long is no longer on the board.
LOOK_AT_ONCE: Final = 100
SPENT_PAGE: Final = 100
BLOBS_PAGE: Final = 10_000  # Looked at in one step.
log = get_logger("janitor")
Result = TypeVar("Result")


class JanitorView(Protocol):
    """What is read of the ledger."""

    def is_recorded(self, sha256: str) -> bool:
        """Whether some record names a blob: a dataset's document or module, or a file."""
        ...

    def uses(self, sha256: str) -> ContentUses:
        """Who needs some content."""
        ...

    def holds(self, site: str, sha256: str) -> bool:
        """Whether a file of this content is recorded at a site."""
        ...


class Janitor:
    """The role; `step` is called by one task of the event loop."""

    def __init__(
        self,
        *,
        book: GridJobBook,
        board: PilotBoard,
        orders: Orders,
        blobs: BlobStore,
        scratch_dir: Path,
        cluster: JanitorView,
        consensus: Consensus,
        site: str,
        node_id: str,
        temp_grace_s: Callable[[], float],
        executor: Executor,
        clock: Clock,
    ) -> None:
        """`temp_grace_s` is how long temporary files that have served stay untouched."""
        self._consensus = consensus
        self._site = site
        self._actor = f"node:{node_id}"
        self._temp_grace_s = temp_grace_s
        self._book = book
        self._board = board
        self._orders = orders
        self._blobs = blobs
        self._scratch_dir = scratch_dir
        self._cluster = cluster
        self._executor = executor
        self._clock = clock
        self._cursor = ""  # Where the last step stopped looking at blobs.

    async def step(self) -> None:
        """Clean up once."""
        for note in self._board.forget_silent(FORGET_PILOT_S):
            self._orders.forget(note.holder)
        pilots = old_pilot_directories(self._directory(job) for job in self._book)
        if pilots:
            self._book.forget(pilots)
            await self._thread(lambda: self._remove_scratch(pilots))
            log.info("directories of ended pilots removed", count=len(pilots))
        old = await self._thread(self._old_blobs)
        orphans = orphan_blobs(old, self._cluster.is_recorded)
        if orphans:
            await self._thread(partial(self._delete, orphans))
            log.info("unrecorded blobs removed", count=len(orphans))
        await self._remove_spent([blob for blob in old if blob.sha256 not in orphans])

    async def _remove_spent(self, blobs: list[StoredBlob]) -> None:
        """Remove temporary files that have served: the ledger agrees first, for a reset may have come meanwhile."""
        grace_s = self._temp_grace_s()
        found = []
        for index, blob in enumerate(blob for blob in blobs if blob.idle_s >= grace_s):
            if index % LOOK_AT_ONCE == LOOK_AT_ONCE - 1:
                await asyncio.sleep(0)  # Pilots wait for this loop.
            uses = self._cluster.uses(blob.sha256)
            names = tuple(Use(use.dataset, use.job, use.name, use.spent) for use in uses.files)
            found.append(Content(blob.sha256, blob.idle_s, uses.kept, names))
        spent = spent_content(found, grace_s=grace_s)
        for start in range(0, len(spent), SPENT_PAGE):
            page = spent[start : start + SPENT_PAGE]
            refs = tuple(
                ReplicaRef(use.dataset, use.job, use.name) for content in page for use in content.uses
            )
            await self._consensus.propose(RecordReplicas(self._site, spent=refs), actor=self._actor)
            gone = [content.sha256 for content in page if not self._cluster.holds(self._site, content.sha256)]
            await self._thread(partial(self._delete, gone))
            log.info("temporary files removed", count=len(gone))

    def _delete(self, digests: list[str]) -> None:
        for sha256 in digests:
            self._blobs.delete(sha256)

    def _directory(self, job: GridJob) -> PilotDirectory:
        if job.live:
            return PilotDirectory(job.pilot, Ending.LIVE, 0.0)
        ending = Ending.UNKNOWN if job.phase is GridJobPhase.VANISHED or not job.settled else Ending.ENDED
        return PilotDirectory(job.pilot, ending, (self._clock.wall_ms() - job.ended_ms) / 1_000)

    def _old_blobs(self) -> list[StoredBlob]:
        now_s = self._clock.wall_ms() / 1_000
        found = []
        for blob in self._blobs:
            if blob.digest <= self._cursor:
                continue
            try:
                touched_s = self._blobs.path(blob.digest).stat().st_mtime
            except OSError:
                continue  # It went while we looked.
            found.append(StoredBlob(blob.digest, blob.size_bytes, max(0.0, now_s - touched_s)))
            if len(found) >= BLOBS_PAGE:
                self._cursor = blob.digest
                return found
        self._cursor = ""
        return found

    def _remove_scratch(self, pilots: list[str]) -> None:
        for pilot in pilots:
            rmtree(self._scratch_dir / pilot, ignore_errors=True)

    async def _thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
