"""Content between nodes: transfers go on where they were cut, and who sends wrong content is found out."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.errors import IntegrityError, NotFound, Unavailable
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.store.blobs import BlobStore, BlobWriter
from iceprod_p2p.wire.pb import common_pb2, peer_pb2

MIB = 1024 * 1024
PIECE = 256 * 1024
CONTENT = bytes(range(256)) * (4 * MIB // 256)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Node:
    """Another node as its stub looks: it serves `content`, which may be wrong, and may break off."""

    def __init__(self, name: str, content: bytes = CONTENT, *, cut_at: int = 0) -> None:
        self.address = common_pb2.NodeAddress(node_id=name, site=name)
        self.content, self.cut_at = content, cut_at
        self.asked: list[int] = []
        self.read_again: list[str] = []

    async def GetBlob(self, request: common_pb2.BlobRequest, **_: Any) -> AsyncIterator[common_pb2.Chunk]:
        self.asked.append(request.offset)
        for offset in range(request.offset, len(self.content), PIECE):
            if self.cut_at and offset >= self.cut_at:
                raise Unavailable("the line was cut")
            yield common_pb2.Chunk(body=self.content[offset : offset + PIECE], offset=offset)

    async def HasBlobs(self, request: peer_pb2.HasBlobsRequest, **_: Any) -> peer_pb2.HasBlobsReply:
        if request.read_again:
            self.read_again += request.sha256
        return peer_pb2.HasBlobsReply(sha256=request.sha256)


class Peers:
    """The other nodes of a cluster."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes

    def others(self) -> list[common_pb2.NodeAddress]:
        return [node.address for node in self.nodes]

    def peer(self, address: common_pb2.NodeAddress) -> Node:
        return next(node for node in self.nodes if node.address.node_id == address.node_id)


@pytest.fixture
def executor() -> Any:
    executor = ThreadPoolExecutor(2)
    yield executor
    executor.shutdown()


def service(tmp_path: Path, executor: Any, *nodes: Node, **more: Any) -> FileService:
    peers: Any = Peers(*nodes)
    blobs = BlobStore(tmp_path / "blobs")
    return FileService(blobs, peers, executor, holders=lambda sha256: peers.others(), **more)


async def announced(*chunks: tuple[int, bytes], size: int = len(CONTENT)) -> AsyncIterator[Any]:
    reply = common_pb2.BlobReply(sha256=DIGEST, size_bytes=size)
    yield common_pb2.PutBlobPart(announced=reply)
    for offset, body in chunks:
        yield common_pb2.PutBlobPart(chunk=common_pb2.Chunk(offset=offset, body=body))


async def test_an_upload_that_is_cut_goes_on_at_the_byte_that_is_kept(tmp_path: Path, executor: Any) -> None:
    files = service(tmp_path, executor)
    with pytest.raises(Unavailable, match=f"cut short at byte {2 * MIB}"):
        await files.receive(announced((0, CONTENT[:MIB]), (MIB, CONTENT[MIB : 2 * MIB])))
    files = service(tmp_path, executor)  # The node was started anew meanwhile.
    state = await files.upload_state(DIGEST)
    assert (state.kept_bytes, state.whole) == (2 * MIB, False)
    assert state.kept_sha256 == hashlib.sha256(CONTENT[: 2 * MIB]).hexdigest()
    with pytest.raises(Unavailable, match=f"does not go on at byte {2 * MIB}"):
        await files.receive(announced((MIB, CONTENT[MIB:])))
    await files.receive(announced((2 * MIB, CONTENT[2 * MIB :])))
    assert files.has(DIGEST) and (await files.upload_state(DIGEST)).whole


async def test_an_upload_may_always_begin_anew_and_wrong_content_is_not_kept(
    tmp_path: Path, executor: Any
) -> None:
    files = service(tmp_path, executor)
    with pytest.raises(Unavailable):
        await files.receive(announced((0, CONTENT[: 2 * MIB])))
    with pytest.raises(IntegrityError):
        await files.receive(announced((0, b"x" * len(CONTENT))))
    assert (await files.upload_state(DIGEST)).kept_bytes == 0
    await files.receive(announced((0, CONTENT)))
    assert files.has(DIGEST)


async def test_a_fetch_that_is_cut_goes_on_at_another_node_and_after_a_while(
    tmp_path: Path, executor: Any
) -> None:
    one, two = Node("one", cut_at=MIB), Node("two", cut_at=2 * MIB)
    files = service(tmp_path, executor, one, two)
    with pytest.raises(Unavailable, match="tried one, two"):
        await files.ensure(DIGEST)
    two.cut_at = 0
    files = service(tmp_path, executor, one, two)
    await files.ensure(DIGEST)
    assert (one.asked, two.asked) == ([0, 2 * MIB], [MIB, 2 * MIB])
    assert files.problems() == []


async def test_a_node_that_lies_is_found_out_and_others_are_asked(tmp_path: Path, executor: Any) -> None:
    liar = Node("liar", CONTENT[:-1] + b"!")
    honest = Node("honest")
    files = service(tmp_path, executor, liar, honest)
    await files.ensure(DIGEST)
    assert files.has(DIGEST) and honest.asked == [0]
    assert liar.read_again == [DIGEST] and honest.read_again == []
    assert files.problems() == [f"node liar sent wrong content 1 times, last for blob {DIGEST[:12]}"]
    assert [node.node_id for node in files._trusted_first([liar.address, honest.address])] == [
        "honest",
        "liar",
    ]


async def test_of_several_that_sent_parts_each_is_heard_alone(tmp_path: Path, executor: Any) -> None:
    """The first part is wrong, and nobody could say whose fault the whole is."""
    liar = Node("liar", b"!" + CONTENT[1:], cut_at=2 * MIB)
    honest = Node("honest")
    files = service(tmp_path, executor, liar, honest)
    await files.ensure(DIGEST)
    assert files.has(DIGEST)
    assert honest.asked == [2 * MIB, 0]
    assert "honest" not in " ".join(files.problems())


async def test_only_liars_leave_nothing_behind(tmp_path: Path, executor: Any) -> None:
    liars = [Node("a", b"a" * MIB * 2), Node("b", CONTENT + b"!")]
    files = service(tmp_path, executor, *liars)
    with pytest.raises(Unavailable):
        await files.ensure(DIGEST)
    assert not files.has(DIGEST) and (await files.upload_state(DIGEST)).kept_bytes == 0
    assert len(files.problems()) == 2


async def test_a_damaged_copy_is_dropped_on_the_word_of_another(tmp_path: Path, executor: Any) -> None:
    files = service(tmp_path, executor)
    digest = await files.put_bytes(b"document")
    assert await files.read_again(digest)
    path = files._blobs.path(digest)
    path.chmod(0o600)
    path.write_bytes(b"damaged!")
    assert not await files.read_again(digest) and not files.has(digest)
    assert not await files.read_again(digest)  # It is gone already.
    with pytest.raises(NotFound):
        files.size_bytes(digest)


class EndlessNode(Node):
    """Sends for as long as somebody listens."""

    async def GetBlob(self, request: common_pb2.BlobRequest, **_: Any) -> AsyncIterator[common_pb2.Chunk]:
        for number in itertools.count():
            self.asked.append(number)
            yield common_pb2.Chunk(body=bytes(PIECE), offset=number * PIECE)


async def test_a_node_that_sends_without_end_is_stopped_at_the_recorded_size(
    tmp_path: Path, executor: Any
) -> None:
    endless, honest = EndlessNode("endless"), Node("honest")
    files = service(tmp_path, executor, endless, honest, sizes=lambda sha256: len(CONTENT))
    await asyncio.wait_for(files.ensure(DIGEST), 60)
    assert files.has(DIGEST)
    assert len(endless.asked) <= len(CONTENT) // PIECE + 2
    assert "endless" in files.problems()[0]


async def test_a_disk_that_is_nearly_full_refuses_content_by_name_and_takes_it_later(
    tmp_path: Path, executor: Any
) -> None:
    free_bytes = 10 * MIB

    def room(size_bytes: int) -> None:
        if size_bytes > free_bytes:
            raise Unavailable(f"no room for {size_bytes} bytes", retry_after_s=30.0)

    files = service(tmp_path, executor, Node("one"), room=room)
    free_bytes = len(CONTENT) - 1
    with pytest.raises(Unavailable, match="no room"):
        await files.receive(announced((0, CONTENT)))
    assert (await files.upload_state(DIGEST)).kept_bytes == 0 and not files.has(DIGEST)
    # Nobody knows how long a fetched blob is: each piece is asked for.
    free_bytes = PIECE - 1
    with pytest.raises(Unavailable):
        await files.ensure(DIGEST)
    free_bytes = len(CONTENT)
    await files.ensure(DIGEST)
    assert files.has(DIGEST)


async def test_the_long_beginning_of_a_transfer_is_read_beside_the_loop(
    tmp_path: Path, executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = service(tmp_path, executor)
    with pytest.raises(Unavailable):
        await files.receive(announced((0, CONTENT[: 2 * MIB])))
    threads: list[str] = []
    take_up = BlobWriter._take_up

    def seen(self: BlobWriter, kept: Path) -> None:
        threads.append(threading.current_thread().name)
        take_up(self, kept)

    monkeypatch.setattr(BlobWriter, "_take_up", seen)
    await files.receive(announced((2 * MIB, CONTENT[2 * MIB :])))
    assert files.has(DIGEST) and len(threads) == 1 and threads[0] != threading.main_thread().name


async def test_a_caller_that_leaves_while_a_beginning_is_read_blocks_nobody(
    tmp_path: Path, executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = service(tmp_path, executor)
    with pytest.raises(Unavailable):
        await files.receive(announced((0, CONTENT[: 2 * MIB])))
    reading, go_on = threading.Event(), threading.Event()
    take_up = BlobWriter._take_up

    def slow(self: BlobWriter, kept: Path) -> None:
        reading.set()
        go_on.wait(120)
        take_up(self, kept)

    monkeypatch.setattr(BlobWriter, "_take_up", slow)
    leaving = asyncio.create_task(files.receive(announced((2 * MIB, CONTENT[2 * MIB :]))))
    assert await asyncio.to_thread(reading.wait, 120)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    go_on.set()
    monkeypatch.setattr(BlobWriter, "_take_up", take_up)
    async with asyncio.timeout(120):
        while not (state := await files.upload_state(DIGEST)).kept_bytes:
            await asyncio.sleep(0.01)
    assert state.kept_bytes == 2 * MIB
    await files.receive(announced((2 * MIB, CONTENT[2 * MIB :])))
    assert files.has(DIGEST)
