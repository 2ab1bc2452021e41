"""Content arrives verified or not at all, is fetched once, resumed when broken, and kept within bounds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from iceprod_pilot.staging import Content, Staging

from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound, Unavailable
from iceprod_p2p.wire.pb import common_pb2

BIG = b"0123456789" * 50_000


class FakeLink:
    """Serves blobs in pieces; breaks off, lies or loses what it is told to."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.offsets: list[int] = []
        self.break_after: int | None = None
        self.kept: dict[str, bytes] = {}
        self.sent_from: list[int] = []
        self.cut_uploads = 0

    def add(self, content: bytes, *, claimed: str = "") -> str:
        digest = claimed or sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    def get_blob(self, digest: str, *, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        if digest not in self.blobs:
            raise NotFound(f"nobody has {digest[:8]}")
        content = self.blobs[digest]
        for start in range(offset, len(content), 65_536):
            if self.break_after is not None and start >= self.break_after:
                self.break_after = None
                raise Unavailable("the link broke")
            yield content[start : start + 65_536]

    def upload_state(self, digest: str) -> common_pb2.UploadState:
        kept = self.kept.get(digest, b"")
        return common_pb2.UploadState(kept_bytes=len(kept), kept_sha256=sha256(kept).hexdigest())

    def put_blob(
        self, digest: str, size_bytes: int, pieces: Any, *, node: object = None, offset: int = 0
    ) -> common_pb2.BlobReply:
        self.sent_from.append(offset)
        content = self.kept.pop(digest, b"")[:offset]
        for piece in pieces:
            content += piece
            if self.cut_uploads:
                self.cut_uploads -= 1
                self.kept[digest] = content
                raise Unavailable("the link broke")
        self.stored[digest] = content
        return common_pb2.BlobReply(sha256=sha256(content).hexdigest(), size_bytes=len(content))


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def staging(link: FakeLink, tmp_path: Path) -> Staging:
    return Staging(link, tmp_path / "cache", cache_mib=1)  # type: ignore[arg-type]


def go_on(_seconds: float) -> bool:
    return False


def test_content_is_delivered_and_fetched_once(link: FakeLink, staging: Staging, tmp_path: Path) -> None:
    content = Content(link.add(BIG), len(BIG), "photons")
    for name in ("a", "b"):
        assert staging.deliver(content, tmp_path / name / "file", wait=go_on) == len(BIG)
        assert (tmp_path / name / "file").read_bytes() == BIG
    assert link.offsets == [0]


def test_tasks_that_want_the_same_at_once_share_one_fetch(
    link: FakeLink, staging: Staging, tmp_path: Path
) -> None:
    content = Content(link.add(BIG))
    threads = [
        threading.Thread(target=staging.deliver, args=(content, tmp_path / str(n)), kwargs={"wait": go_on})
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert link.offsets == [0]
    assert all((tmp_path / str(n)).read_bytes() == BIG for n in range(8))


def test_a_broken_transfer_is_resumed_where_it_ended(
    link: FakeLink, staging: Staging, tmp_path: Path
) -> None:
    content = Content(link.add(BIG))
    link.break_after = 200_000
    staging.deliver(content, tmp_path / "file", wait=go_on)
    assert (tmp_path / "file").read_bytes() == BIG
    assert link.offsets == [0, 262_144]


def test_wrong_content_is_never_delivered_and_named(link: FakeLink, staging: Staging, tmp_path: Path) -> None:
    promised = sha256(b"right").hexdigest()
    link.add(b"wrong", claimed=promised)
    with pytest.raises(IntegrityError) as failure:
        staging.deliver(Content(promised, 5, "photons"), tmp_path / "file", wait=go_on)
    for part in ("photons", promised, sha256(b"wrong").hexdigest()):
        assert part in failure.value.message
    assert not (tmp_path / "file").exists()
    assert not list((tmp_path / "cache" / "sha256").iterdir())


def test_a_spoilt_cache_is_noticed_and_mended(link: FakeLink, staging: Staging, tmp_path: Path) -> None:
    content = Content(link.add(BIG))
    staging.deliver(content, tmp_path / "file", wait=go_on)
    cached = tmp_path / "cache" / "sha256" / content.sha256
    cached.chmod(0o600)
    cached.write_bytes(b"altered by a payload")
    staging.deliver(content, tmp_path / "file", wait=go_on)
    assert (tmp_path / "file").read_bytes() == BIG
    assert staging.read(content, size_max=len(BIG), wait=go_on) == BIG


def test_what_nobody_has_is_missing(staging: Staging, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        staging.deliver(Content(sha256(b"?").hexdigest()), tmp_path / "file", wait=lambda _: True)


def test_giving_up_ends_a_fetch(link: FakeLink, staging: Staging, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        staging.deliver(Content(link.add(BIG)), tmp_path / "file", wait=lambda _: True)


def test_the_cache_drops_what_was_not_used_for_longest(
    link: FakeLink, staging: Staging, tmp_path: Path
) -> None:
    contents = [Content(link.add(BIG + bytes([n]))) for n in range(4)]
    for number, content in enumerate(contents):
        staging.deliver(content, tmp_path / "file", wait=go_on)
        os.utime(tmp_path / "cache" / "sha256" / content.sha256, (number, number))  # Clocks tick too slowly.
    kept = {path.name for path in (tmp_path / "cache" / "sha256").iterdir()}
    assert contents[3].sha256 in kept and contents[0].sha256 not in kept
    assert sum(path.stat().st_size for path in (tmp_path / "cache" / "sha256").iterdir()) <= 1024 * 1024


def test_an_output_is_sent_by_content_and_serves_later_tasks(
    link: FakeLink, staging: Staging, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"result")
    sent = staging.send(path, wait=go_on, progress=lambda: True)
    assert sent == Content(sha256(b"result").hexdigest(), 6, "out")
    assert link.stored[sent.sha256] == b"result"
    path.unlink()
    staging.deliver(sent, tmp_path / "again", wait=go_on)
    assert (tmp_path / "again").read_bytes() == b"result" and not link.offsets


@pytest.mark.parametrize("digest", ["", "A" * 64, "../../etc/passwd", "a" * 63])
def test_what_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(BadInput):
        Content(digest)


def test_an_upload_that_was_cut_goes_on_where_the_node_has_verified_bytes(
    link: FakeLink, staging: Staging, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    path.write_bytes(BIG * 10)
    link.cut_uploads = 2
    sent = staging.send(path, wait=go_on, progress=lambda: True)
    assert link.stored[sent.sha256] == BIG * 10
    first, second, third = link.sent_from
    assert first == 0 < second < third < len(BIG) * 10


def test_what_a_node_kept_of_something_else_is_not_gone_on_with(
    link: FakeLink, staging: Staging, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    path.write_bytes(BIG * 10)
    link.cut_uploads = 1
    link.upload_state = lambda digest: common_pb2.UploadState(  # type: ignore[method-assign]
        kept_bytes=100, kept_sha256=sha256(b"else").hexdigest()
    )
    staging.send(path, wait=go_on, progress=lambda: True)
    assert link.sent_from == [0, 0]


def test_tasks_with_more_content_than_the_cache_holds_take_nothing_from_each_other(
    link: FakeLink, staging: Staging, tmp_path: Path
) -> None:
    """Each fetch that ends finds the cache too full, and the others' half-way in it."""
    contents = [bytes([number]) * 3 * 2**20 for number in range(4)]
    digests = [link.add(content) for content in contents]
    together = threading.Barrier(len(contents), timeout=60)
    serve = link.get_blob

    def in_step(digest: str, *, offset: int) -> Iterator[bytes]:
        for number, piece in enumerate(serve(digest, offset=offset)):
            if number == 20:
                together.wait()  # All are half-way now.
            yield piece

    link.get_blob = in_step  # type: ignore[method-assign]
    failures: list[BaseException] = []

    def deliver(number: int) -> None:
        try:
            staging.deliver(Content(digests[number]), tmp_path / f"out-{number}", wait=lambda _: False)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert [(tmp_path / f"out-{number}").read_bytes() for number in range(len(contents))] == contents
    assert len(link.offsets) == len(contents)


def test_what_a_pilot_that_died_left_half_fetched_is_dropped_after_a_day(
    link: FakeLink, staging: Staging, tmp_path: Path
) -> None:
    cache = tmp_path / "cache" / "sha256"
    old, young = cache / f".{'a' * 64}.x.partial", cache / f".{'b' * 64}.y.partial"
    for path in (old, young):
        path.write_bytes(bytes(2**20))
    os.utime(old, (old.stat().st_atime, old.stat().st_mtime - 90_000))
    staging.deliver(Content(link.add(BIG * 2)), tmp_path / "out", wait=lambda _: False)
    staging.deliver(Content(link.add(BIG + b"!")), tmp_path / "out", wait=lambda _: False)
    assert young.exists() and not old.exists()
