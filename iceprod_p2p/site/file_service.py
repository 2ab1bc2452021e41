"""Content between sites: this node's blobs, streamed out, taken in, and fetched from whoever has them.

Every transfer is verified against its SHA-256 before anybody sees the blob, and nothing is acknowledged
before it is on disk.  Concurrent wishes for the same blob share one fetch.  A broken transfer goes on where
it stopped, from the next node that has the blob.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Any, Final, TypeVar

from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError, NotFound, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.site.room import resumed
from iceprod_p2p.store.blobs import BlobStore, BlobWriter
from iceprod_p2p.wire.calls import call
from iceprod_p2p.wire.channel import CHUNK_BYTES
from iceprod_p2p.wire.errors import rpc_errors
from iceprod_p2p.wire.pb import common_pb2, peer_pb2
from iceprod_p2p.wire.translate import require_sha256

BLOB_BYTES_MAX: Final = 1 << 40  # A terabyte: beyond it, a slip of the pen.
SILENCE_S: Final = 30.0  # A transfer that brings nothing for so long is given up.
FETCHES_MAX: Final = 16  # At once; more would only share the same link.
log = get_logger("files")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Drawn:
    """Where the bytes of one fetch came from: these nodes, and, if `kept`, an earlier fetch."""

    nodes: list[str] = field(default_factory=list)
    kept: bool = False


class FileService:
    """Blobs of one node; used on the event loop, with the disk on threads of `executor`."""

    def __init__(
        self,
        blobs: BlobStore,
        peers: Peers,
        executor: Executor,
        *,
        holders: Callable[[str], Sequence[common_pb2.NodeAddress]],
        fetched: Callable[[str], None] = lambda sha256: None,
        sizes: Callable[[str], int] = lambda sha256: 0,
        room: Callable[[int], None] = lambda size_bytes: None,
    ) -> None:
        """`holders` names the nodes that should have a blob, best first; `fetched` hears of each that arrived.

        `sizes` tells a blob's size by the ledger, 0 when it is not there; `room` raises Unavailable when so many bytes
        more have no room here, on any thread.
        """
        self._sizes = sizes
        self._room_for = room
        self._blobs = blobs
        self._peers = peers
        self._executor = executor
        self._holders = holders
        self._fetched = fetched
        self._fetches: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(FETCHES_MAX)
        self._liars: dict[
            str, tuple[int, str]
        ] = {}  # How often each node sent wrong content, and the last blob.

    def has(self, sha256: str) -> bool:
        """Return whether this node holds the blob."""
        return self._blobs.has(require_sha256(sha256))

    @property
    def others(self) -> int:
        """How many other nodes the cluster has, reachable or not."""
        return len(self._peers.others())

    def size_bytes(self, sha256: str) -> int:
        """Return the size of a blob that is here; NotFound otherwise."""
        return self._blobs.size_bytes(require_sha256(sha256))

    async def put_bytes(self, content: bytes) -> str:
        """Store a small document and return its SHA-256."""
        return (await self._disk(self._blobs.put_bytes, content)).digest

    async def put_file(self, path: Path) -> str:
        """Store a file's content and return its SHA-256."""
        return (await self._disk(self._blobs.put_file, path)).digest

    async def read(self, sha256: str, *, max_bytes: int) -> bytes:
        """Return a small blob, fetched if need be."""
        await self.ensure(sha256)
        return await self._disk(partial(self._blobs.read, sha256, max_bytes=max_bytes))

    async def receive(self, parts: AsyncIterator[common_pb2.PutBlobPart]) -> common_pb2.BlobReply:
        """Store an upload; durable and verified when this returns."""
        first = await anext(aiter(parts), None)
        if first is None or first.WhichOneof("part") != "announced":
            raise BadInput("an upload begins with its SHA-256 and size")
        sha256, size_bytes = require_sha256(first.announced.sha256), first.announced.size_bytes
        if size_bytes > BLOB_BYTES_MAX:
            raise BadInput(f"a blob of {size_bytes} bytes is more than this cluster keeps")
        if self._blobs.has(sha256):  # Content that is here already need not be sent to its end.
            return common_pb2.BlobReply(sha256=sha256, size_bytes=self._blobs.size_bytes(sha256))
        self._room_for(size_bytes)
        async with resumed(self._blobs, sha256, size_bytes, self._disk) as writer:
            begun = False
            async for part in parts:
                if part.WhichOneof("part") != "chunk":
                    raise BadInput(f"the upload of {sha256} holds what is no piece of it")
                if not begun and part.chunk.offset == 0:
                    writer.restart()
                if part.chunk.offset != writer.size_bytes:
                    # Another upload of it may have come between: the sender asks again where to go on.
                    raise Unavailable(f"the upload of {sha256} does not go on at byte {writer.size_bytes}")
                begun = True
                await self._disk(self._write, writer, part.chunk.body)
            if writer.size_bytes < size_bytes:
                raise Unavailable(f"the upload of {sha256} was cut short at byte {writer.size_bytes}")
            blob = await self._disk(partial(writer.commit, expected_digest=sha256))
        return common_pb2.BlobReply(sha256=blob.digest, size_bytes=blob.size_bytes)

    async def upload_state(self, sha256: str) -> common_pb2.UploadState:
        """Say what is kept of an upload that was cut short."""
        if self._blobs.has(require_sha256(sha256)):
            return common_pb2.UploadState(whole=True)
        kept_bytes, kept_sha256 = await self._disk(self._blobs.kept, sha256)
        return common_pb2.UploadState(kept_bytes=kept_bytes, kept_sha256=kept_sha256)

    async def send(self, request: common_pb2.BlobRequest, *, fetch: bool) -> AsyncIterator[common_pb2.Chunk]:
        """Yield a blob's bytes from an offset; with `fetch` a blob that is not here is fetched first.

        A blob that is sent whole is looked at on its way: a damaged copy ends in IntegrityError, and is given up when
        other nodes should have the blob, so that the next wish fetches it anew.
        """
        sha256 = require_sha256(request.sha256)
        if fetch:
            await self.ensure(sha256)
        stream = self._blobs.open(sha256)
        total = new_sha256() if request.offset == 0 else None

        def read() -> bytes:
            body = stream.read(CHUNK_BYTES)
            if total is not None:
                total.update(body)
            return body

        try:
            await self._disk(stream.seek, request.offset)
            offset = request.offset
            while body := await self._disk(read):
                yield common_pb2.Chunk(body=body, offset=offset)
                offset += len(body)
        finally:
            stream.close()
        if total is not None and total.hexdigest() != sha256:
            await self._give_up_damaged(sha256)
            raise IntegrityError(f"the copy of {sha256[:12]} here is damaged: SHA-256 {total.hexdigest()}")

    async def _give_up_damaged(self, sha256: str) -> None:
        """Remove a damaged copy, unless nobody else is known to have the blob."""
        others = bool(self._holders(sha256))
        log.error("blob damaged on this node", blob=sha256, removed=others)
        if others:
            await self._disk(self._blobs.delete, sha256)

    async def ensure(self, sha256: str) -> None:
        """Return when this node holds the blob; Unavailable when nobody reachable has it."""
        if self._blobs.has(require_sha256(sha256)):
            return
        fetch = self._fetches.get(sha256)
        if fetch is None:
            fetch = asyncio.create_task(self._fetch(sha256), name=f"fetch {sha256[:12]}")
            self._fetches[sha256] = fetch
            fetch.add_done_callback(partial(self._fetch_ended, sha256))
        await asyncio.shield(fetch)  # One caller that leaves must not end the transfer of the others.

    async def spread(self, sha256: str, *, copies: int, to: Sequence[str] | None = None) -> tuple[str, ...]:
        """Give the blob to other nodes (of these, in this order) until `copies` have taken it; return those that did.

        Nodes that cannot be reached are passed over; the caller decides whether what was reached is enough.
        """
        reached: list[str] = []
        others = {node.node_id: node for node in self._peers.others()}
        for node in others.values() if to is None else [others[name] for name in to if name in others]:
            if len(reached) >= copies:
                break
            try:
                await self._push(node, sha256)
            except IceProdError as failure:
                log.warning("blob not spread", node=node.node_id, blob=sha256, error=str(failure))
            else:
                reached.append(node.node_id)
        return tuple(reached)

    async def verify(self, sha256: str) -> str:
        """Read this node's copy again and return the SHA-256 found, empty when there is none."""
        try:
            return (await self._disk(self._blobs.verify, sha256)).digest
        except NotFound:
            return ""
        except IntegrityError as damaged:
            return str(damaged).rpartition("SHA-256 ")[2][:64]

    def _fetch_ended(self, sha256: str, fetch: asyncio.Task[None]) -> None:
        self._fetches.pop(sha256, None)
        if not fetch.cancelled():
            fetch.exception()  # Those who still wait for it hear of it themselves.

    async def _push(self, node: common_pb2.NodeAddress, sha256: str) -> None:
        """Give a blob to a node, going on where an earlier try was cut short."""
        size_bytes = self._blobs.size_bytes(sha256)
        stub = self._peers.peer(node)
        request = common_pb2.BlobRequest(sha256=sha256)
        state = await call(stub.GetUpload, request, timeout_s=SILENCE_S, peer=node.node_id)
        if state.kept_bytes and await self._disk(self._blobs.beginning, sha256, state.kept_bytes) == (
            state.kept_sha256
        ):
            request.offset = state.kept_bytes

        async def parts() -> AsyncIterator[common_pb2.PutBlobPart]:
            announced = common_pb2.BlobReply(sha256=sha256, size_bytes=size_bytes)
            yield common_pb2.PutBlobPart(announced=announced)
            async for chunk in self.send(request, fetch=False):
                yield common_pb2.PutBlobPart(chunk=chunk)

        await call(stub.PutBlob, parts(), timeout_s=SILENCE_S + size_bytes / 1e6, peer=node.node_id)

    async def _fetch(self, sha256: str) -> None:
        """Bring a blob from whoever has it; who sends wrong content is noted, and asked last from then on."""
        tried: list[str] = []
        alone = False
        async with self._room:
            while True:
                drawn = _Drawn()
                if await self._fetch_whole(sha256, tried, drawn, alone=alone):
                    break
                if len(drawn.nodes) == 1 and not drawn.kept:
                    await self._distrust(drawn.nodes[0], sha256)
                else:  # Some of what came together is wrong: each is heard for itself.
                    alone = True
                    tried = [node for node in tried if node not in drawn.nodes]
        size_bytes = self._blobs.size_bytes(sha256)
        log.info("blob fetched", blob=sha256, node=",".join(drawn.nodes), size_bytes=size_bytes)
        self._fetched(sha256)

    async def _fetch_whole(self, sha256: str, tried: list[str], drawn: _Drawn, *, alone: bool) -> bool:
        """Bring the blob from nodes not in `tried`; False when bytes were wrong, with those they came from in `drawn`.

        What was received before a break is gone on with, by the next node or the next call; with `alone` every node
        begins anew.
        """
        size_bytes = self._sizes(sha256)
        self._room_for(size_bytes)
        async with resumed(self._blobs, sha256, size_bytes or BLOB_BYTES_MAX, self._disk) as writer:
            if alone:
                writer.restart()
            drawn.kept = writer.size_bytes > 0
            try:
                for nodes in (self._trusted_first(self._holders(sha256)), None):
                    found = self._trusted_first(await self._seek(sha256)) if nodes is None else nodes
                    if await self._fetch_from(sha256, found, writer, tried, drawn, alone=alone):
                        return True
            except IntegrityError:
                writer.restart()  # Nothing of it is worth keeping.
                return False
        raise Unavailable(
            f"no node that holds {sha256[:12]}... can be reached (tried {', '.join(tried) or 'none'})",
            remedy="try again when its site is back",
            retry_after_s=5.0,
        )

    async def _fetch_from(
        self,
        sha256: str,
        nodes: Sequence[common_pb2.NodeAddress],
        writer: BlobWriter,
        tried: list[str],
        drawn: _Drawn,
        *,
        alone: bool,
    ) -> bool:
        """Try `nodes` in turn, each going on where the last one stopped."""
        for node in nodes:
            if node.node_id in tried:
                continue
            tried.append(node.node_id)
            before = writer.size_bytes
            try:
                await self._draw(node, sha256, writer, drawn)
            except IntegrityError:
                raise
            except IceProdError as failure:
                log.warning("blob not fetched", node=node.node_id, blob=sha256, error=str(failure))
                if alone:
                    writer.restart()
                    drawn.nodes.clear()
                elif writer.size_bytes > before:
                    log.info("transfer goes on elsewhere", blob=sha256, at_bytes=writer.size_bytes)
            else:
                await self._disk(partial(writer.commit, expected_digest=sha256))
                return True
        return False

    async def _draw(
        self, node: common_pb2.NodeAddress, sha256: str, writer: BlobWriter, drawn: _Drawn
    ) -> None:
        request = common_pb2.BlobRequest(sha256=sha256, offset=writer.size_bytes)
        with rpc_errors(node.node_id):
            chunks = aiter(self._peers.peer(node).GetBlob(request))
            while (chunk := await _next(chunks, node.node_id)) is not None:
                if node.node_id not in drawn.nodes:
                    drawn.nodes.append(node.node_id)
                if chunk.offset != writer.size_bytes:
                    raise IntegrityError(
                        f"{node.node_id} sent byte {chunk.offset} instead of {writer.size_bytes}"
                    )
                try:
                    await self._disk(self._write, writer, chunk.body)
                except BadInput as longer:
                    raise IntegrityError(
                        f"{node.node_id} sent more than the blob has: {longer.message}"
                    ) from longer

    async def _distrust(self, node_id: str, sha256: str) -> None:
        """Note that a node alone has sent wrong content, and ask it to read its copy again."""
        count, _ = self._liars.get(node_id, (0, ""))
        self._liars[node_id] = (count + 1, sha256)
        log.error("node sent wrong content", node=node_id, blob=sha256, times=count + 1)
        request = peer_pb2.HasBlobsRequest(sha256=[sha256], read_again=True)
        for node in self._peers.others():
            if node.node_id == node_id:
                try:
                    stub = self._peers.peer(node)
                    await call(stub.HasBlobs, request, timeout_s=SILENCE_S, peer=node_id)
                except IceProdError as failure:
                    log.info("copy not read again", node=node_id, why=failure.message)

    def _trusted_first(self, nodes: Sequence[common_pb2.NodeAddress]) -> list[common_pb2.NodeAddress]:
        return sorted(nodes, key=lambda node: self._liars.get(node.node_id, (0, ""))[0])

    def problems(self) -> list[str]:
        """Return what is wrong with the content of other nodes, one sentence each."""
        return [
            f"node {node} sent wrong content {count} times, last for blob {sha256[:12]}"
            for node, (count, sha256) in sorted(self._liars.items())
        ]

    async def read_again(self, sha256: str) -> bool:
        """Read this node's copy again, on the word of another that it is wrong; return whether it is good.

        A damaged one is dropped: it is fetched anew when it is wanted, or by the blob keeper.
        """
        found = await self.verify(sha256)
        if found and found != sha256:
            log.error("own copy is damaged, and dropped", blob=sha256, found=found)
            await self._disk(self._blobs.delete, sha256)
        return found == sha256

    async def _seek(self, sha256: str) -> list[common_pb2.NodeAddress]:
        """Ask every other node at once whether it has the blob."""

        async def ask(node: common_pb2.NodeAddress) -> bool:
            request = peer_pb2.HasBlobsRequest(sha256=[sha256])
            try:
                reply = await call(self._peers.peer(node).HasBlobs, request, timeout_s=3.0, peer=node.node_id)
            except IceProdError:
                return False
            return sha256 in reply.sha256

        others = self._peers.others()
        answers = await asyncio.gather(*(ask(node) for node in others))
        return [node for node, has in zip(others, answers, strict=True) if has]

    def _write(self, writer: BlobWriter, body: bytes) -> None:
        """Append to a blob, on a thread of the disk, unless the disk is nearly full: the ledger lies there too."""
        self._room_for(len(body))
        writer.write(body)

    async def _disk(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


async def _next(chunks: AsyncIterator[common_pb2.Chunk], node_id: str) -> common_pb2.Chunk | None:
    try:
        return await asyncio.wait_for(anext(chunks), SILENCE_S)
    except StopAsyncIteration:
        return None
    except TimeoutError as silent:
        raise Unavailable(f"{node_id} sent nothing for {SILENCE_S:.0f} s") from silent
