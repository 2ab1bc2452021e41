"""The trimmer: keeps a node's store at the size that the site gives it, by letting go copies that others have.

Copies of files that came from the sites which wrote them go, the longest unread first, only while the writer's
own copy is recorded there: a writer never lets go, so no two sites can drop the last copies of each other.  Likewise of
software, modules and documents: the first holders, as many as shall be, and one more, never let go.  Whoever asks for
such content again has it fetched again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import RecordReplicas, ReplicaRef
from iceprod_p2p.ledger.commands_blobs import DropBlobs
from iceprod_p2p.ledger.limits import BLOBS_AT_ONCE
from iceprod_p2p.ledger.outcome import Refusal, Refused
from iceprod_p2p.site.consensus import Consensus, applied
from iceprod_p2p.site.plans.cleanup import StoredBlob
from iceprod_p2p.store.blobs import BlobStore

OLDEST: Final = 2_000  # Blobs that one step may look at, the longest unread ones.
LOOK_AT_ONCE: Final = 100
UNREAD_S: Final = 600.0  # A copy that came or was read a moment ago is wanted now.
PAGE: Final = 100
MIB: Final = 1024 * 1024
log = get_logger("trimmer")


class TrimmerView(Protocol):
    """What is read of the ledger."""

    def lent(self, sha256: str, site: str) -> tuple[ReplicaRef, ...]:
        """The file records of some content, if all were written elsewhere and are held there; else none."""
        ...

    def spare(self, sha256: str, node_id: str, keep: int) -> bool:
        """Whether a blob is nothing but a blob, and `keep` other nodes hold it that come before this one."""
        ...

    def holds(self, site: str, sha256: str) -> bool:
        """Whether a file of this content is recorded at a site."""
        ...


class Trimmer:
    """The role; `step` is called by one task of the event loop.  `size_mib` is the store's size, 0 for no limit."""

    def __init__(
        self,
        *,
        site: str,
        node_id: str,
        blobs: BlobStore,
        cluster: TrimmerView,
        consensus: Consensus,
        size_mib: Callable[[], int],
        copies: Callable[[], int],
        executor: Executor,
        clock: Clock,
        size_max_mib: Callable[[], int] = lambda: 0,
    ) -> None:
        """`size_max_mib` is the size above which the site should take no new work (see `is_over`), 0 for none."""
        self._size_max_mib = size_max_mib
        self._left_mib = 0  # After the last step.
        self._site = site
        self._node_id = node_id
        self._copies = copies
        self._actor = f"node:{node_id}"
        self._blobs = blobs
        self._cluster = cluster
        self._consensus = consensus
        self._size_mib = size_mib
        self._executor = executor
        self._clock = clock

    @property
    def is_over(self) -> bool:
        """Whether the store was larger than it may be, when what could go had gone."""
        return 0 < self._size_max_mib() < self._left_mib

    def problems(self) -> list[str]:
        """Return what an operator should see to, one sentence each."""
        if not self.is_over:
            return []
        return [
            f"the store has {self._left_mib} MiB that nobody else keeps, above [blobs] size_max_mib"
            f" {self._size_max_mib()}: no new work is taken"
        ]

    async def step(self) -> None:
        """Drop copies until the store fits, or none is left that may go.  Unavailable when the ledger cannot answer."""
        limit_bytes = self._size_mib() * MIB
        if not limit_bytes:
            self._left_mib = 0
            return
        loop = asyncio.get_running_loop()
        total_bytes, oldest = await loop.run_in_executor(self._executor, self._measured)
        victims: list[tuple[str, tuple[ReplicaRef, ...]]] = []
        spare: list[str] = []
        for index, blob in enumerate(oldest):
            if total_bytes <= limit_bytes:
                break
            if index % LOOK_AT_ONCE == LOOK_AT_ONCE - 1:
                await asyncio.sleep(0)  # Pilots wait for this loop.
            refs = self._cluster.lent(blob.sha256, self._site)
            if refs:
                victims.append((blob.sha256, refs))
            elif self._cluster.spare(blob.sha256, self._node_id, self._copies() + 1):
                spare.append(blob.sha256)
            else:
                continue
            total_bytes -= blob.size_bytes
        self._left_mib = -(-total_bytes // MIB)
        await self._drop_copies(victims)
        await self._drop_blobs(spare)

    async def _drop_copies(self, victims: Sequence[tuple[str, tuple[ReplicaRef, ...]]]) -> None:
        for start in range(0, len(victims), PAGE):
            page = victims[start : start + PAGE]
            refs = tuple(ref for _, names in page for ref in names)
            drop_copies = RecordReplicas(self._site, dropped=refs)
            applied(await self._consensus.propose(drop_copies, actor=self._actor))
            # A task may have written the same content here meanwhile: then this is the site's own.
            gone = [sha256 for sha256, _ in page if not self._cluster.holds(self._site, sha256)]
            await self._run(self._delete, gone)
            log.info("copies of other sites' files let go", count=len(gone))

    async def _drop_blobs(self, spare: Sequence[str]) -> None:
        for start in range(0, len(spare), BLOBS_AT_ONCE):
            digests = spare[start : start + BLOBS_AT_ONCE]
            drop = DropBlobs(self._node_id, tuple(digests))
            outcome = await self._consensus.propose(drop, actor=self._actor)
            if isinstance(outcome, Refused) and outcome.code is Refusal.WRONG_STATE:
                return  # Not every node reads this yet: blobs stay until the cluster's version is raised.
            applied(outcome)
            await self._run(self._delete, digests)
            log.info("blobs let go that enough others hold", count=len(digests))

    async def _run(self, work: Callable[[Sequence[str]], None], digests: Sequence[str]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, work, digests)

    def _measured(self) -> tuple[int, list[StoredBlob]]:
        """Return the size of all blobs, and those that nobody has read for a while, the longest unread first."""
        total_bytes = 0

        def unread() -> Iterator[StoredBlob]:
            nonlocal total_bytes
            now_s = self._clock.wall_ms() / 1_000
            for blob in self._blobs:
                total_bytes += blob.size_bytes
                idle_s = self._blobs.idle_s(blob.digest, now_s)
                if idle_s >= UNREAD_S:
                    yield StoredBlob(blob.digest, blob.size_bytes, idle_s)

        oldest = heapq.nlargest(OLDEST, unread(), key=lambda blob: (blob.idle_s, blob.sha256))
        return total_bytes, oldest

    def _delete(self, digests: Sequence[str]) -> None:
        now_s = self._clock.wall_ms() / 1_000
        for sha256 in digests:
            if self._blobs.idle_s(sha256, now_s) >= UNREAD_S:  # Nor was it read or stored anew meanwhile.
                self._blobs.delete(sha256)
