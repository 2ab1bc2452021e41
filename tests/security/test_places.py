"""Places that somebody else names: files that are none, the node's own files, addresses in other spellings, and
where a page of a list goes on.  Sources: OWASP's pages on path traversal and server-side request forgery.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed, Unavailable
from iceprod_p2p.model.external import parse_external
from iceprod_p2p.modules import outbound
from iceprod_p2p.modules.outbound import OutboundPolicy, connect, resolve
from iceprod_p2p.site.site_calls import _mark
from iceprod_p2p.site.url_copies import UrlCopies
from iceprod_p2p.store.blobs import BlobStore
from iceprod_p2p.transfers.engine import Transfers
from iceprod_p2p.transfers.limits import Limits
from iceprod_p2p.transfers.registry import Registry
from iceprod_p2p.wire import translate
from iceprod_p2p.wire.pb import common_pb2
from tests.security.cost import bounded

NAMES = (
    "",
    "/etc/passwd",
    "//etc/passwd",
    "../x",
    "a/../x",
    "a/../../x",
    "..",
    "a/..",
    "a\x00b",
    "a\nb",
    "\x1b[2J",
    "a\x9bb",
    "\u202egnp.exe",
    "x" * 256,
    "é" * 300,
)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_an_output_cannot_bear_such_a_name(name: str) -> None:
    entry = common_pb2.FileEntry(name=name, size_bytes=1, sha256="0" * 64)
    with bounded(cpu_s=0.5, memory_mib=4), pytest.raises(BadInput) as refusal:
        translate.file_from(entry)
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 1_500


@pytest.mark.parametrize(
    "sha256",
    [
        "",
        "0" * 63,
        "0" * 65,
        "../" + "0" * 61,
        "0" * 62 + "/.",
        "0" * 63 + "\n",
        "F" * 64,
        "٠" * 64,
        "0" * 63 + "\0",
        "x" * 10_000,
    ],
    ids=ascii,
)
def test_a_blob_is_named_by_its_digest_alone(sha256: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        translate.require_sha256(sha256)
    blobs = BlobStore(tmp_path / "blobs")
    for look in (blobs.has, blobs.open, blobs.path, blobs.delete):
        try:
            found = look(sha256)
        except (IceProdError, ValueError):
            continue
        assert found is False or not Path(str(found)).exists()


def test_a_file_that_is_none_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # The address of a socket is a short one.
    up = "../" * len(tmp_path.parts)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        (tmp_path / "link").symlink_to("/dev/zero")
        transfers, limits = Transfers(Registry()), Limits(attempts=1)
        for name in ("pipe", "socket", "link", f"{up}dev/zero", f"{up}dev/full"):
            place = tmp_path / name
            with bounded(cpu_s=1.0), pytest.raises(NotAllowed, match="no regular file"):
                transfers.measure(f"file://{place}", limits=limits)
            with pytest.raises(NotAllowed, match="no regular file"):
                transfers.copy(str(place), str(tmp_path / "copy"), limits=limits)
    assert not (tmp_path / "copy").exists()


async def test_a_node_reads_none_of_its_own_files_for_others(tmp_path: Path) -> None:
    own, shared = tmp_path / "data", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    (own / "node.key").write_text("secret")
    (shared / "out").write_text("result")
    (shared / "way").symlink_to(own)
    copies = UrlCopies("", private=own)
    assert await copies.read(f"file://{shared}/out")
    for url in (
        f"file://{own}/node.key",
        f"file://localhost{own}/node.key",
        f"{own}/node.key",
        f"file://{shared}/way/node.key",
        f"file://{shared}/../data/node.key",
        f"file://{shared}/%2e%2e/data/node.key",
        f"FILE://{own}/node.key",
    ):
        with pytest.raises((NotAllowed, BadInput)):
            await copies.read(url)
    for url in (
        "file://other/x",
        "file:///a%00b",
        "gopher://x/",
        "javascript:alert(1)",
        "http://[",
        "file://" + "x" * 9_999,
    ):
        try:
            assert await asyncio.wait_for(copies.read(url), 20) == "", "nothing is there"
        except IceProdError as refusal:
            assert len(str(refusal)) < 5_000


@pytest.mark.parametrize(
    "after",
    [
        [],
        [1],
        [1, 2],
        ["1", "a"],
        [True, "a"],
        [1.5, "a"],
        [float("nan"), "a"],
        [10**30, "a"],
        [-(10**30), "a"],
        {"a": 1},
        "1a",
        7,
        [1, "a", 2],
        [1, "x" * 5_000],
        [None, None],
    ],
    ids=str,
)
def test_a_module_that_goes_on_nowhere_is_told_so(after: Any) -> None:
    with pytest.raises(BadInput, match="goes on after"):
        _mark(after)
    assert _mark([3, "a"]) == (3, "a")


def test_the_name_that_is_judged_is_the_name_that_is_connected_to() -> None:
    for src in ("https://example.org./m.py", "git+https://example.org.:443/r.git"):
        external = parse_external(src)
        assert external.host == "example.org" and "example.org." not in external.url


def test_a_name_server_that_changes_its_mind_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: public when judged, this machine when connected to.  It is asked once."""
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])

    def lying(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(outbound.socket, "getaddrinfo", lying)
    (judged,) = resolve("rebinding.example", 443, OutboundPolicy())
    assert str(judged) == "93.184.216.34"
    dialled: list[str] = []

    class Socket:
        def __init__(self, *_: Any) -> None: ...
        def settimeout(self, _: float) -> None: ...
        def close(self) -> None: ...
        def connect(self, address: tuple[str, int]) -> None:
            dialled.append(address[0])
            raise OSError("not today")

    monkeypatch.setattr(outbound.socket, "socket", Socket)
    with pytest.raises(Unavailable):
        connect((judged,), 443, timeout_s=1.0, policy=OutboundPolicy())
    assert dialled == ["93.184.216.34"]
    with pytest.raises(NotAllowed):
        resolve("rebinding.example", 443, OutboundPolicy())
