"""Every kind of storage against its real server: up, down, broken off, altered, away, forbidden, strangely named."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from dataclasses import replace

import pytest
from iceprod_cli.free_ports import free_ports

from iceprod_p2p.base.errors import IceProdError, IntegrityError, NotAllowed, NotFound, Unavailable
from iceprod_p2p.transfers.limits import Limits
from iceprod_p2p.transfers.sums import ExpectedChecksum, measure_file
from tests.transfers.wires import Wire

MIB = 1024 * 1024
FAST = Limits(attempts=3, pause_s=0.1, timeout_s=30)
EVERY = ["file", "https", "davs", "gsiftp", "root", "s3"]
SERVED = [name for name in EVERY if name != "file"]
STRANGE = "räume/a b%41 ünï+(1)&x=y~'.i3.zst"


def sha256(content: bytes) -> ExpectedChecksum:
    return ExpectedChecksum("sha256", hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("name", ["new/deep/events.i3", STRANGE])
def test_a_file_goes_up_and_comes_down_whole_whatever_its_name(servers, transfers, tmp_path, kind, name):
    place = servers.place(kind)
    # Two doors of XRootD lead to one place, and it keeps a checksum for as long as a file's second is the same.
    name = f"{kind}/{name}"
    content = os.urandom(300_000)
    source = tmp_path / "source"
    source.write_bytes(content)
    mover = transfers(place)
    stored = mover.copy(str(source), place.url(name), limits=FAST)
    assert place.read(name) == content
    assert stored.sums == measure_file(source).sums and set(stored.sums) == {"sha256", "md5", "adler32"}
    fetched = mover.copy(
        place.url(name), str(tmp_path / "out" / "x"), expected=[sha256(content)], limits=FAST
    )
    assert (tmp_path / "out" / "x").read_bytes() == content
    assert fetched.sums == stored.sums and fetched.size_bytes == stored.size_bytes == len(content)
    assert mover.measure(place.url(name), limits=FAST).sums == stored.sums
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]


@pytest.mark.parametrize("kind", EVERY)
def test_a_stored_file_is_replaced_and_removed(servers, transfers, tmp_path, kind):
    place = servers.place(kind)
    source = tmp_path / "source"
    mover = transfers(place)
    for content in (b"first, and longer", b""):
        source.write_bytes(content)
        # XRootD keeps a checksum for as long as a file's time is the same, which it counts in seconds.
        mover.copy(str(source), place.url("again"), limits=replace(FAST, pause_s=0.6))
        assert place.read("again") == content
        assert mover.copy(place.url("again"), str(tmp_path / "out"), limits=FAST).size_bytes == len(content)
    mover.remove(place.url("again"), limits=FAST)
    with pytest.raises(FileNotFoundError):
        place.read("again")


@pytest.mark.parametrize("kind", EVERY)
def test_a_file_that_is_not_there_is_said_so_at_once(servers, transfers, tmp_path, kind):
    place = servers.place(kind)
    began_s = time.monotonic()
    with pytest.raises(NotFound, match="does not exist"):
        transfers(place).copy(place.url("no/such file"), str(tmp_path / "out"), limits=Limits(pause_s=30))
    with pytest.raises(NotFound):
        transfers(place).measure(place.url("no/such file"), limits=Limits(pause_s=30))
    assert time.monotonic() - began_s < 25 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["https", "davs", "gsiftp", "root"])
def test_a_file_that_may_not_be_read_is_said_so_at_once(servers, transfers, tmp_path, kind):
    place = servers.place(kind)
    with pytest.raises(NotAllowed, match="permission"):
        transfers(place).copy(place.forbid("forbidden"), str(tmp_path / "out"), limits=Limits(pause_s=30))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("found", [b"the quick brown cat", b"the quick"], ids=["altered", "truncated"])
def test_what_is_not_as_promised_is_refused_and_both_sums_are_named(
    servers, transfers, tmp_path, kind, found
):
    place = servers.place(kind)
    place.write("damaged", found)
    promised = sha256(b"the quick brown fox")
    target = tmp_path / "out"
    target.write_text("before")
    with pytest.raises(IntegrityError) as wrong:
        transfers(place).copy(place.url("damaged"), str(target), expected=[promised], limits=FAST)
    assert place.url("damaged") in wrong.value.message
    assert promised.digest in wrong.value.message and hashlib.sha256(found).hexdigest() in wrong.value.message
    assert target.read_text() == "before" and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["https", "s3", "davs"])
def test_a_download_that_is_cut_goes_on_where_it_was(servers, transfers, tmp_path, kind):
    place = servers.place(kind)
    content = os.urandom(24 * MIB)
    place.write("large", content)
    wire = Wire(place.port, cut_after_bytes=9 * MIB, cuts=1)
    try:
        copied = transfers(place, port=wire.port).copy(
            place.url("large", port=wire.port), str(tmp_path / "out"), limits=FAST
        )
    finally:
        wire.close()
    assert wire.cuts_left == 0 and copied.attempts >= 2 and copied.sha256 == sha256(content).digest
    assert (tmp_path / "out").read_bytes() == content
    if kind != "davs":  # XRootD's HTTP door gives neither ETag nor time: nothing says it is the same file.
        assert copied.resumed_bytes > 1 * MIB


@pytest.mark.parametrize(
    ("kind", "tool", "first"),
    [
        (
            "gsiftp",
            "globus-url-copy",
            '"$real" "$@" | head -c "$part"; echo "an end of file was reached" >&2',
        ),
        (
            "root",
            "xrdcp",
            'for a; do at=$to; to=$a; done; "$real" -s "$at" - | head -c "$part" >"$to"; '
            'echo "[FATAL] Connection error" >&2',
        ),
    ],
)
def test_a_tool_that_is_cut_goes_on_where_it_was(
    servers, transfers, tmp_path, monkeypatch, kind, tool, first
):
    place = servers.place(kind)
    content = os.urandom(24 * MIB)
    place.write("large", content)
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools" / tool
    script.write_text(
        f"#!/bin/sh\nreal={shutil.which(tool)}\npart={9 * MIB}\nmark={tmp_path}/mark\n"
        f'[ -e $mark ] && exec "$real" "$@"\ntouch $mark\n{first}\nexit 51\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/tools:{os.environ['PATH']}")
    copied = transfers(place).copy(place.url("large"), str(tmp_path / "out"), limits=FAST)
    assert copied.attempts >= 2 and copied.resumed_bytes == 9 * MIB
    assert copied.sha256 == sha256(content).digest and (tmp_path / "out").read_bytes() == content


def test_an_xrootd_connection_that_is_cut_costs_nothing(servers, transfers, tmp_path):
    place = servers.place("root")
    content = os.urandom(24 * MIB)
    place.write("cut", content)
    wire = Wire(place.port, cut_after_bytes=9 * MIB, cuts=1)
    try:
        mover = transfers(place, port=wire.port)
        copied = mover.copy(place.url("cut", port=wire.port), str(tmp_path / "out"), limits=FAST)
    finally:
        wire.close()
    assert wire.cuts_left == 0 and copied.sha256 == sha256(content).digest


def test_a_download_begins_anew_when_the_file_has_changed_meanwhile(servers, transfers, tmp_path):
    place = servers.place("https")
    old, new = os.urandom(16 * MIB), os.urandom(16 * MIB)
    place.write("changing", old)
    wire = Wire(place.port, cut_after_bytes=5 * MIB, cuts=1)

    def pause(seconds: float) -> bool:
        if seconds:
            place.write("changing", new)
            os.utime(place.path("changing"), (1e9, 1e9))  # nginx tells versions apart by the second.
        return False

    limits = Limits(attempts=3, pause_s=0.1, timeout_s=30, wait=pause)
    try:
        copied = transfers(place, port=wire.port).copy(
            place.url("changing", port=wire.port), str(tmp_path / "out"), limits=limits
        )
    finally:
        wire.close()
    assert copied.sha256 == sha256(new).digest and (tmp_path / "out").read_bytes() == new


@pytest.mark.parametrize("kind", ["https", "root", "s3"])
def test_an_upload_that_is_cut_is_made_whole(servers, transfers, tmp_path, kind):
    place = servers.place(kind)
    content = os.urandom(70 * MIB if kind == "s3" else 24 * MIB)
    source = tmp_path / "source"
    source.write_bytes(content)
    # Of 70 MiB in parts of 32 the first is through when the wire is cut.
    wire = Wire(place.port, cut_after_bytes=(40 if kind == "s3" else 9) * MIB, cuts=1)
    try:
        copied = transfers(place, port=wire.port).copy(
            str(source), place.url("up", port=wire.port), limits=FAST
        )
    finally:
        wire.close()
    assert wire.cuts_left == 0 and copied.attempts >= (1 if kind == "root" else 2)
    assert hashlib.sha256(place.read("up")).hexdigest() == copied.sha256
    if kind == "s3":
        # The part that was through is not sent again, and what the service confirmed is not read back.
        assert wire.passed_bytes < (40 + 38 + 4) * MIB


@pytest.mark.parametrize("kind", SERVED)
def test_a_server_that_is_away_and_comes_back_is_waited_for(servers, transfers, tmp_path, kind):
    place = servers.place(kind)
    place.write("patience", b"found at last")
    (port,) = free_ports(1)
    wires: list[Wire] = []

    def pause(seconds: float) -> bool:
        if seconds and not wires:  # The server comes back while the first pause is made.
            wires.append(Wire(place.port, port=port))
        time.sleep(seconds)
        return False

    limits = Limits(attempts=3, pause_s=0.1, timeout_s=30, wait=pause)
    try:
        copied = transfers(place, port=port).copy(
            place.url("patience", port=port), str(tmp_path / "out"), limits=limits
        )
    finally:
        for wire in wires:
            wire.close()
    assert copied.attempts >= 2 and (tmp_path / "out").read_bytes() == b"found at last"


@pytest.mark.parametrize("kind", ["https", "gsiftp", "root", "s3"])
def test_a_server_that_stays_away_is_given_up_after_all_attempts(servers, transfers, tmp_path, kind):
    place = servers.place(kind)
    (port,) = free_ports(1)
    source = tmp_path / "source"
    source.write_bytes(b"x")
    limits = Limits(attempts=2, pause_s=0.05, timeout_s=5)
    for copy in (
        lambda m: m.copy(place.url("x", port=port), str(tmp_path / "out"), limits=limits),
        lambda m: m.copy(str(source), place.url("x", port=port), limits=limits),
    ):
        with pytest.raises(Unavailable, match="2 attempts"):
            copy(transfers(place, port=port))
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("https", "https"),
        ("davs", "davs-2"),
        ("gsiftp", "gsiftp-2"),
        ("root", "root-2"),
        ("s3", "s3"),
    ],
)
def test_servers_copy_between_themselves(servers, transfers, tmp_path, first, second):
    source, target = servers.place(first), servers.place(second)
    content = os.urandom(2 * MIB)
    source.write("here", content)
    mover = transfers(source, target)
    there = f"there/it is {first}"  # Of two doors to one server, neither writes over what the other wrote.
    copied = mover.copy(source.url("here"), target.url(there), limits=FAST)
    assert copied.direct and copied.size_bytes == len(content)
    assert target.read(there) == content
    with pytest.raises(NotFound):
        mover.copy(source.url("not here"), target.url("there/2"), limits=FAST)
    with pytest.raises(IntegrityError):
        mover.copy(source.url("here"), target.url("there/3"), expected=[sha256(b"other")], limits=FAST)


@pytest.mark.parametrize(("first", "second"), [("https", "s3"), ("root", "https"), ("gsiftp", "root")])
def test_servers_that_do_not_understand_each_other_are_copied_through_here(
    servers, transfers, tmp_path, monkeypatch, first, second
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    source, target = servers.place(first), servers.place(second)
    source.write("across", b"events" * 1000)
    copied = transfers(source, target).copy(source.url("across"), target.url("across-2"), limits=FAST)
    assert not copied.direct and copied.sha256 == sha256(b"events" * 1000).digest
    assert target.read("across-2") == b"events" * 1000 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["https", "gsiftp", "root"])
def test_a_transfer_that_is_no_longer_wanted_ends_soon(servers, transfers, tmp_path, kind):
    place = servers.place(kind)
    place.write("huge", os.urandom(8 * MIB))
    stop = threading.Event()
    wire = Wire(place.port, stall_after_bytes=MIB if kind != "gsiftp" else 100)
    limits = Limits(timeout_s=60, wait=stop.wait)
    threading.Timer(1.0, stop.set).start()
    began_s = time.monotonic()
    try:
        with pytest.raises(IceProdError):
            transfers(place, port=wire.port).copy(
                place.url("huge", port=wire.port), str(tmp_path / "out"), limits=limits
            )
    finally:
        wire.close()
    assert time.monotonic() - began_s < 40 and not list(tmp_path.iterdir())
