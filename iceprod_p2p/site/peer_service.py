"""What nodes ask of each other: consensus frames, blobs both ways, their state, their copies read again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.raft.transport import PeerTransport
from iceprod_p2p.security.identity import peer_identity
from iceprod_p2p.site.cluster_status import ClusterStatus
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.site.grid_desk import GridDesk
from iceprod_p2p.site.issuing import RootDesk
from iceprod_p2p.site.verification import Verification
from iceprod_p2p.wire.pb import common_pb2, control_pb2, peer_pb2, peer_pb2_grpc

DIGESTS_MAX: Final = 10_000
READ_AGAIN_MAX: Final = 16  # Reading is dear.


class PeerService(peer_pb2_grpc.PeerServicer):  # type: ignore[misc]
    """Serves the other nodes; links are those of the Raft transport."""

    def __init__(
        self,
        *,
        files: FileService,
        transport: PeerTransport,
        status: ClusterStatus,
        verification: Verification,
        dataset_number: Callable[[str], int],
        grids: GridDesk,
        root_desk: RootDesk,
    ) -> None:
        self._files = files
        self._transport = transport
        self._status = status
        self._verification = verification
        self._dataset_number = dataset_number
        self._grids = grids
        self._root_desk = root_desk

    async def Link(self, request_iterator: AsyncIterator[peer_pb2.Frame], context: Any) -> None:
        """Exchange consensus frames until one side leaves."""
        await self._transport.serve(request_iterator, context)

    async def GetMember(self, request: peer_pb2.GetMemberRequest, context: Any) -> control_pb2.MemberStatus:
        """Say how this node is."""
        return self._status.own()

    async def IssueAuthority(
        self, request: peer_pb2.IssueAuthorityRequest, context: Any
    ) -> peer_pb2.IssueAuthorityReply:
        """Make an authority for the caller's site, or for people."""
        return self._root_desk.issue(request, peer_identity(context))

    async def VerifyCopies(
        self, request: control_pb2.VerifyFilesRequest, context: Any
    ) -> AsyncIterator[control_pb2.VerifyFilesReply]:
        """Read this site's copies of a dataset's files again."""
        number = self._dataset_number(request.dataset)
        async for reply in self._verification.run(number, request.job, here_only=True):
            yield reply

    async def GetGridJobs(self, request: Any, context: Any) -> control_pb2.ListGridJobsReply:
        """Say what is noted here of the batch system."""
        return self._grids.own_grid_jobs(request)

    async def GetPilots(self, request: Any, context: Any) -> control_pb2.ListPilotsReply:
        """Say which pilots call here."""
        return self._grids.own_pilots(request)

    async def TestGrid(
        self, request: control_pb2.TestSiteRequest, context: Any
    ) -> AsyncIterator[control_pb2.TestStep]:
        """Send a probe through this node's batch system."""
        async with aclosing(self._grids.own_test(request)) as steps:
            async for step in steps:
                yield step

    async def GetBlob(self, request: common_pb2.BlobRequest, context: Any) -> AsyncIterator[common_pb2.Chunk]:
        """Stream a blob that is here; NotFound otherwise: a node asks those that have it, never in chains."""
        async for chunk in self._files.send(request, fetch=False):
            yield chunk

    async def PutBlob(
        self, request_iterator: AsyncIterator[common_pb2.PutBlobPart], context: Any
    ) -> common_pb2.BlobReply:
        """Store a blob that another node spreads."""
        return await self._files.receive(request_iterator)

    async def HasBlobs(self, request: peer_pb2.HasBlobsRequest, context: Any) -> peer_pb2.HasBlobsReply:
        """Return which of the blobs asked for are here."""
        if len(request.sha256) > DIGESTS_MAX:
            raise BadInput(f"at most {DIGESTS_MAX} blobs are asked for at once")
        here = [sha256 for sha256 in request.sha256 if self._files.has(sha256)]
        if request.read_again:
            here = [sha256 for sha256 in here[:READ_AGAIN_MAX] if await self._files.read_again(sha256)]
        return peer_pb2.HasBlobsReply(sha256=here)

    async def GetUpload(self, request: common_pb2.BlobRequest, context: Any) -> common_pb2.UploadState:
        """Say what is kept of an upload that was cut short."""
        return await self._files.upload_state(request.sha256)
