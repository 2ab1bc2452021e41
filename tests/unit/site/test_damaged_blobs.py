"""A node that finds its copy of a blob damaged while it sends it: the caller hears of it, and the copy goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.errors import IntegrityError
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.store.blobs import BlobStore
from iceprod_p2p.wire.pb import common_pb2

CONTENT = b"tarball" * 100_000
DIGEST = sha256(CONTENT).hexdigest()


class NoPeers:
    def others(self) -> list[Any]:
        return []


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = BlobStore(tmp_path / "blobs")
    store.put_bytes(CONTENT)
    yield store


def service(store: BlobStore, *, others: bool) -> FileService:
    holders = [common_pb2.NodeAddress(node_id="zeuthen-1")] if others else []
    return FileService(store, NoPeers(), ThreadPoolExecutor(1), holders=lambda digest: holders)  # type: ignore[arg-type]


async def received(files: FileService) -> bytes:
    request = common_pb2.BlobRequest(sha256=DIGEST)
    return b"".join([chunk.body async for chunk in files.send(request, fetch=False)])


def damage(store: BlobStore) -> None:
    path = store.path(DIGEST)
    path.chmod(0o600)
    path.write_bytes(CONTENT[:-1] + b"X")


async def test_a_whole_copy_is_sent_and_stays(store: BlobStore) -> None:
    assert await received(service(store, others=True)) == CONTENT and store.has(DIGEST)


async def test_a_damaged_copy_ends_in_an_error_and_is_given_up_when_others_have_the_blob(
    store: BlobStore,
) -> None:
    damage(store)
    with pytest.raises(IntegrityError, match="is damaged"):
        await received(service(store, others=True))
    assert not store.has(DIGEST), "the next wish fetches it from another node"


async def test_the_only_copy_stays_even_when_it_is_damaged(store: BlobStore) -> None:
    damage(store)
    with pytest.raises(IntegrityError, match="is damaged"):
        await received(service(store, others=False))
    assert store.path(DIGEST).exists()
