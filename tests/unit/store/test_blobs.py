"""Content-addressed files: whole, verified, never outside the store."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound, Unavailable
from iceprod_p2p.store.blobs import Blob, BlobStore


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def incoming(store: BlobStore) -> list[str]:
    return os.listdir(store._root / "incoming")


def test_what_was_put_is_read_back_by_its_sum(store: BlobStore, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    blob = store.put_file(tmp_path / "file")
    assert blob == Blob(digest_of(content), len(content))
    with store.open(blob.digest) as stream:
        assert stream.read() == content
    assert store.has(blob.digest) and store.size_bytes(blob.digest) == len(content)
    assert store.verify(blob.digest) == blob
    assert store.read(blob.digest, max_bytes=len(content)) == content
    assert stat.S_IMODE(store.path(blob.digest).stat().st_mode) == 0o444
    assert incoming(store) == []


def test_the_same_bytes_are_stored_once(store: BlobStore) -> None:
    assert store.put_bytes(b"x") == store.put_stream(iter([b"", b"x", b""]))
    assert list(store) == [Blob(digest_of(b"x"), 1)]
    assert store.put_bytes(b"").size_bytes == 0


def test_a_wrong_sum_leaves_nothing(store: BlobStore) -> None:
    with pytest.raises(IntegrityError, match="instead of"):
        store.put_stream([b"abc"], expected_digest=digest_of(b"abd"))
    assert list(store) == [] and incoming(store) == []
    assert store.put_stream([b"abc"], expected_digest=digest_of(b"abc")).size_bytes == 3


def test_too_many_bytes_are_refused_before_the_rest_is_read(store: BlobStore) -> None:
    given_out: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            given_out.append(1)
            yield bytes(100)

    with pytest.raises(BadInput, match="more than 1000 bytes"):
        store.put_stream(endless(), max_bytes=1_000)
    assert len(given_out) == 11
    assert incoming(store) == []
    assert store.put_stream([bytes(1_000)], max_bytes=1_000).size_bytes == 1_000


def test_a_source_that_breaks_leaves_nothing(store: BlobStore) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"first"
        raise Unavailable("the other node went away")

    with pytest.raises(Unavailable, match="went away"):
        store.put_stream(breaks())
    assert list(store) == [] and incoming(store) == []


def test_a_writer_without_commit_stores_nothing(store: BlobStore) -> None:
    with store.writer() as writer:
        writer.write(b"half")
    assert list(store) == [] and incoming(store) == []


HOSTILE = [
    "",
    "..",
    "/etc/passwd",
    "../" * 20 + "etc/passwd",
    "a" * 63,
    "a" * 65,
    "A" * 64,
    "g" * 64,
    "٣" * 64,
]


@pytest.mark.parametrize("digest", [*HOSTILE, "a" * 64 + "\n", "ab/../" + "a" * 58, "\0" * 64])
def test_a_hostile_digest_goes_nowhere(store: BlobStore, digest: str) -> None:
    for method in (store.open, store.path, store.has, store.delete, store.verify, store.size_bytes):
        with pytest.raises(BadInput, match="not a SHA-256"):
            method(digest)


@given(digest=st.text(max_size=80))
def test_every_path_lies_inside_the_store(tmp_path_factory: pytest.TempPathFactory, digest: str) -> None:
    root = tmp_path_factory.getbasetemp() / "inside"
    try:
        path = BlobStore(root).path(digest)
    except BadInput:
        return
    assert path.resolve().is_relative_to(root.resolve())


def test_what_is_missing_is_not_found(store: BlobStore, tmp_path: Path) -> None:
    missing = digest_of(b"missing")
    for method in (store.open, store.verify, store.size_bytes):
        with pytest.raises(NotFound, match=missing):
            method(missing)
    assert not store.has(missing) and not store.delete(missing)
    with pytest.raises(NotFound, match="cannot read"):
        store.put_file(tmp_path / "none")


def test_deleting_leaves_open_readers_in_peace(store: BlobStore) -> None:
    blob = store.put_bytes(b"still here")
    with store.open(blob.digest) as stream:
        assert store.delete(blob.digest)
        assert stream.read() == b"still here"
    assert not store.has(blob.digest)


def test_damage_on_disk_is_found(store: BlobStore) -> None:
    blob = store.put_bytes(b"precious")
    path = store.path(blob.digest)
    path.chmod(0o644)
    path.write_bytes(b"preciouz")
    with pytest.raises(IntegrityError, match="damaged on disk"):
        store.verify(blob.digest)
    with pytest.raises(IntegrityError, match="damaged on disk"):
        store.read(blob.digest, max_bytes=100)
    store.put_bytes(b"precious")
    assert store.verify(blob.digest) == blob  # Putting it again mends it.


def test_a_small_read_of_a_large_blob_is_refused(store: BlobStore) -> None:
    blob = store.put_bytes(bytes(1_001))
    with pytest.raises(BadInput, match="more than 1000 bytes"):
        store.read(blob.digest, max_bytes=1_000)


def test_many_threads_put_the_same_and_different_bytes(store: BlobStore) -> None:
    contents = [bytes([number % 4]) * 100_000 for number in range(16)]
    failures: list[BaseException] = []

    def put(content: bytes) -> None:
        try:
            assert store.put_bytes(content).digest == digest_of(content)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=put, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert [blob.digest for blob in store] == sorted({digest_of(content) for content in contents})
    assert all(store.verify(blob.digest) for blob in store)
    assert incoming(store) == []


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    first = BlobStore(tmp_path / "blobs")
    kept = first.put_bytes(b"kept")
    (tmp_path / "blobs" / "incoming" / "tmphalf").write_bytes(b"half")
    (tmp_path / "blobs" / "notes.txt").write_bytes(b"of an operator")
    second = BlobStore(tmp_path / "blobs")
    assert incoming(second) == []
    assert list(second) == [kept]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "is full"), (errno.EDQUOT, "is full"), (errno.EROFS, "Read-only")]
)
def test_a_full_or_sick_disk_is_one_clear_error(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def sick(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", sick)
    with pytest.raises(Unavailable, match=words):
        store.put_bytes(b"x")
    monkeypatch.undo()
    assert list(store) == [] and incoming(store) == []


def test_a_really_full_disk_is_one_clear_error(store: BlobStore) -> None:
    with store.writer() as writer:
        writer._file.close()
        writer._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the writer closes it.
        with pytest.raises(Unavailable, match=r"the disk that holds .* is full"):
            writer.write(b"x")


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot use"):
        BlobStore(tmp_path / "file")


def test_of_a_transfer_that_a_full_disk_ended_nothing_is_kept(store: BlobStore) -> None:
    digest = "c" * 64
    with pytest.raises(Unavailable), store.writer(resumes=digest) as writer:
        writer.write(bytes(2 * 2**20))
        writer._file.close()
        writer._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the writer closes it.
        writer.write(b"more")
    assert store.kept(digest) == (0, "") and list((store._root / "partial").iterdir()) == []
