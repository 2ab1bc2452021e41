"""What nodes ask of each other beside consensus: which blobs are here, and their bytes, both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.wire.pb import common_pb2, peer_pb2, peer_pb2_grpc

DIGESTS_MAX: Final = 10_000


class PeerService(peer_pb2_grpc.PeerServicer):  # type: ignore[misc]
    """The blob calls here; links and snapshots are those of the Raft transport, handed in as `raft`."""

    def __init__(self, files: FileService, raft: Any) -> None:
        self._files = files
        self._raft = raft

    async def Link(self, request_iterator: AsyncIterator[peer_pb2.Frame], context: Any) -> AsyncIterator[Any]:
        """Consensus frames, both ways, until one side leaves."""
        async for frame in self._raft.Link(request_iterator, context):
            yield frame

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
        return peer_pb2.HasBlobsReply(sha256=[sha256 for sha256 in request.sha256 if self._files.has(sha256)])
