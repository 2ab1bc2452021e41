"""Reads stored copies again, at every site that should have them, and records what was found.

Each site reads its own copies and records them; the node that was asked gathers the answers, and reads the
copies outside the cluster itself.  A site that cannot be asked is named with each of its copies: nothing unread
is called good.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import RecordVerification, ReplicaRef
from iceprod_p2p.ledger.outcome import Refused
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.site.control_reads import list_files
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.site.url_copies import UrlCopies, unread
from iceprod_p2p.wire.errors import rpc_errors
from iceprod_p2p.wire.pb import common_pb2, control_pb2

PAGE: Final = 64  # Copies read at once by one site: their records share log entries.
LIST_PAGE: Final = 1_000
log = get_logger("verification")


class VerificationView(Protocol):
    """What is read of the ledger."""

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node of the cluster."""
        ...


class Verification:
    """Used on the event loop only."""

    def __init__(
        self,
        *,
        site: str,
        node_id: str,
        raft: RaftNode,
        files: FileService,
        peers: Peers,
        cluster: VerificationView,
        urls: UrlCopies,
    ) -> None:
        self._site = site
        self._node_id = node_id
        self._raft = raft
        self._files = files
        self._peers = peers
        self._cluster = cluster
        self._urls = urls

    async def run(
        self, dataset: int, job: int, *, here_only: bool
    ) -> AsyncIterator[control_pb2.VerifyFilesReply]:
        """Yield one answer for each copy, as they come; `job` -2 means every job."""
        answers: asyncio.Queue[control_pb2.VerifyFilesReply | None] = asyncio.Queue(maxsize=1_000)
        sites = [self._site]
        if not here_only:
            sites = sorted({self._site, *(node.site for node in self._cluster.nodes())})
        tasks = [asyncio.create_task(self._site_answers(site, dataset, job, answers)) for site in sites]
        if not here_only:
            tasks.append(asyncio.create_task(self._url_answers(dataset, job, answers)))
        open_streams = len(tasks)
        try:
            while open_streams:
                answer = await answers.get()
                if answer is None:
                    open_streams -= 1
                else:
                    yield answer
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _site_answers(
        self, site: str, dataset: int, job: int, answers: asyncio.Queue[control_pb2.VerifyFilesReply | None]
    ) -> None:
        try:
            if site == self._site:
                await self._read_own(dataset, job, answers)
            else:
                await self._ask(site, dataset, job, answers)
        finally:
            await answers.put(None)

    async def _read_own(
        self, dataset: int, job: int, answers: asyncio.Queue[control_pb2.VerifyFilesReply | None]
    ) -> None:
        async for page in self._copies_at(self._site, dataset, job):
            for start in range(0, len(page), PAGE):
                replies = await asyncio.gather(*(self._verify(row) for row in page[start : start + PAGE]))
                for reply in replies:
                    await answers.put(reply)

    async def _url_answers(
        self, dataset: int, job: int, answers: asyncio.Queue[control_pb2.VerifyFilesReply | None]
    ) -> None:
        try:
            async for page in self._files_of(dataset, job):
                copies = [(row, url) for row in page for url in row.urls]
                for start in range(0, len(copies), PAGE):
                    some = copies[start : start + PAGE]
                    for reply in await asyncio.gather(*(self._verify_url(row, url) for row, url in some)):
                        await answers.put(reply)
        finally:
            await answers.put(None)

    async def _verify_url(self, row: control_pb2.FileRow, url: str) -> control_pb2.VerifyFilesReply:
        reply = control_pb2.VerifyFilesReply(file=row, site=self._site, url=url)
        try:
            found = await self._urls.read(url)
        except IceProdError as failure:
            log.warning("copy outside cannot be read", file=row.name, url=url, error=failure.message)
            reply.found = unread(failure)
            return reply
        ref = ReplicaRef(row.dataset, row.job, row.name)
        reply.unrecorded = await self._record(RecordVerification(ref, self._site, found, url))
        reply.good = found == row.sha256
        if not reply.good:
            reply.found = found
            log.error(
                "copy outside is not what was recorded", file=row.name, url=url, found=found or "nothing"
            )
        return reply

    async def _verify(self, row: control_pb2.FileRow) -> control_pb2.VerifyFilesReply:
        found = await self._files.verify(row.sha256)
        ref = ReplicaRef(row.dataset, row.job, row.name)
        unrecorded = await self._record(RecordVerification(ref, self._site, found))
        good = found == row.sha256
        if not good:
            log.error(
                "stored copy is not what was recorded", file=row.name, job=row.job, found=found or "nothing"
            )
        return control_pb2.VerifyFilesReply(
            file=row, site=self._site, good=good, found="" if good else found, unrecorded=unrecorded
        )

    async def _record(self, command: RecordVerification) -> str:
        """Record what was found; return why the ledger did not take it, empty when it did."""
        outcome = await self._raft.propose(command, actor=f"node:{self._node_id}")
        if not isinstance(outcome, Refused):
            return ""
        log.warning("what was found of a copy is not recorded", file=command.file.name, why=outcome.detail)
        return outcome.detail or str(outcome.code)

    async def _ask(
        self, site: str, dataset: int, job: int, answers: asyncio.Queue[control_pb2.VerifyFilesReply | None]
    ) -> None:
        request = control_pb2.VerifyFilesRequest(dataset=str(dataset), job=job)
        answered: set[tuple[int, str]] = set()
        why = "the site has no node"
        for node in self._peers.of_sites((site,)):
            try:
                with rpc_errors(node.node_id):
                    async for reply in self._peers.peer(node).VerifyCopies(request):
                        answered.add((reply.file.job, reply.file.name))
                        await answers.put(reply)
                return
            except IceProdError as failure:
                why = failure.message
                log.warning("site cannot verify its copies", site=site, error=why)
        async for page in self._copies_at(site, dataset, job):
            for row in page:
                if (row.job, row.name) not in answered:
                    found = f"not read: {why}"
                    await answers.put(
                        control_pb2.VerifyFilesReply(file=row, site=site, good=False, found=found)
                    )

    async def _copies_at(
        self, site: str, dataset: int, job: int
    ) -> AsyncIterator[Sequence[control_pb2.FileRow]]:
        async for page in self._files_of(dataset, job):
            yield [row for row in page if site in row.sites]

    async def _files_of(self, dataset: int, job: int) -> AsyncIterator[Sequence[control_pb2.FileRow]]:
        request = control_pb2.ListFilesRequest(dataset=str(dataset), job=job, limit=LIST_PAGE)
        while True:
            reply = await asyncio.to_thread(self._page, dataset, request)
            yield reply.files
            if not reply.next_after:
                return
            request.after = reply.next_after

    def _page(self, dataset: int, request: control_pb2.ListFilesRequest) -> control_pb2.ListFilesReply:
        with self._raft.view() as kv:
            return list_files(kv, dataset, request)
