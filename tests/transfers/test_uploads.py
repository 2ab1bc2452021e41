"""Uploads that broke off: which go on where they were, against real servers, and which cannot."""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.transfers.limits import Limits
from tests.grids.daemons import until
from tests.transfers.wires import Wire

MIB = 1024 * 1024
FAST = Limits(attempts=3, pause_s=0.1, timeout_s=30)


class Script:
    """A `globus-url-copy` whose first call is another one; it keeps the arguments of all."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
        (folder / "tools").mkdir()
        self._asked = folder / "asked"
        script = folder / "tools" / "globus-url-copy"
        script.write_text(
            f'#!/bin/sh\nreal={shutil.which("globus-url-copy")}\necho "$*" >>{self._asked}\n'
            f'[ $(wc -l <{self._asked}) = 1 ] || exec "$real" "$@"\n{first}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}/tools:{os.environ['PATH']}")

    def asked(self) -> list[list[str]]:
        """Return the arguments of the calls so far."""
        return [line.split() for line in self._asked.read_text().splitlines()]


def test_a_gridftp_upload_that_is_cut_goes_on_where_it_was(servers, transfers, tmp_path, monkeypatch):
    place = servers.place("gsiftp")
    content = os.urandom(24 * MIB)
    source = tmp_path / "source"
    source.write_bytes(content)
    # The first call gets nine of the bytes to send and waits for more; then its connection ends under it.
    called = Script(
        tmp_path,
        monkeypatch,
        f"""mkfifo {tmp_path}/pipe
        for word; do case $word in file:*) word=-;; esac; set -- "$@" "$word"; shift; done
        {{ head -c {9 * MIB} {source}; sleep 120; }} >{tmp_path}/pipe 2>/dev/null &
        exec "$real" "$@" <{tmp_path}/pipe""",
    )
    place.path("cut-up").unlink(missing_ok=True)
    wires = [Wire(place.port)]
    port = wires[0].port

    def cut_and_mend() -> None:
        until(
            lambda: place.path("cut-up").exists() and len(place.read("cut-up")) > 8 * MIB, "a part is there"
        )
        wires[0].close()
        wires.append(Wire(place.port, port=port))

    cutting = threading.Thread(target=cut_and_mend, daemon=True)
    cutting.start()
    try:
        limits = Limits(attempts=3, pause_s=1.0, timeout_s=30)
        copied = transfers(place, port=port).copy(str(source), place.url("cut-up", port=port), limits=limits)
        cutting.join()
    finally:
        for wire in wires:
            wire.close()
    assert copied.attempts >= 2 and place.read("cut-up") == content
    again = called.asked()[1]
    assert int(again[again.index("-off") + 1]) > 8 * MIB


@pytest.mark.parametrize(
    ("left", "sent"),
    [
        ("tail -c 9000000 $source", "all"),
        ("cat $source", "nothing"),
    ],
    ids=["other bytes", "all of it"],
)
def test_what_lies_after_a_broken_gridftp_upload_is_used_only_if_it_is_ours(
    servers, transfers, tmp_path, monkeypatch, left, sent
):
    place = servers.place("gsiftp")
    content = os.urandom(12 * MIB)
    source = tmp_path / "source"
    source.write_bytes(content)
    place.write("left", b"before")
    called = Script(
        tmp_path,
        monkeypatch,
        f'source={source}\n{left} >{place.path("left")}\necho "an end of file was reached" >&2\nexit 1',
    )
    copied = transfers(place).copy(str(source), place.url("left"), limits=FAST)
    # A second attempt, or, when the server was busy, a third.
    assert copied.attempts >= 2 and place.read("left") == content
    writes = [words for words in called.asked()[1:] if words[-1] == place.url("left")]
    assert bool(writes) == (sent == "all") and not any("-off" in words for words in writes)


@pytest.mark.parametrize("left", ["ours", "others"])
def test_a_gridftp_upload_that_is_given_up_takes_its_part_away_and_nothing_else(
    servers, transfers, tmp_path, monkeypatch, left
):
    place = servers.place("gsiftp")
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * MIB))
    place.write("given-up", b"kept by somebody")
    part = f"head -c {MIB} {source} >{place.path('given-up')}" if left == "ours" else ":"
    Script(tmp_path, monkeypatch, f'{part}\necho "an end of file was reached" >&2\nexit 1')
    with pytest.raises(Unavailable):
        transfers(place).copy(str(source), place.url("given-up"), limits=Limits(attempts=1, timeout_s=30))
    if left == "ours":
        assert not place.path("given-up").exists()
    else:
        assert place.read("given-up") == b"kept by somebody"


def test_the_tools_of_the_others_cannot_go_on_with_uploads(servers, tmp_path):
    """When one of these has learnt it, docs/transfers.md and the storage may too."""
    content = os.urandom(2 * MIB)
    source = tmp_path / "source"
    source.write_bytes(content)
    place = servers.place("root")
    place.write("half", content[:MIB])
    said = subprocess.run(
        ["xrdcp", "--nopbar", "--continue", str(source), place.url("half")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode and "exists" in said.stderr and place.read("half") == content[:MIB]
    for kind, outcome in (("https", content[:MIB]), ("davs", content[MIB:])):
        place = servers.place(kind)  # nginx refuses a part (501), XRootD takes it for the whole.
        place.write("half", content[:MIB])
        door = http.client.HTTPSConnection(
            "localhost",
            place.port,
            timeout=60,
            context=ssl.create_default_context(cafile=place.credentials().ca_file),
        )
        door.request(
            "PUT",
            "/half",
            body=content[MIB:],
            headers={"Content-Range": f"bytes {MIB}-{2 * MIB - 1}/{2 * MIB}"},
        )
        assert door.getresponse().status == (501 if kind == "https" else 200)
        door.close()
        assert place.read("half") == outcome


def test_a_server_that_must_read_a_large_file_first_is_given_time():
    assert [FAST.for_reading(size).timeout_s for size in (-1, 0, 300 * MIB)] == [30, 30, 30]
    assert FAST.for_reading(301 * MIB).timeout_s == 60 and FAST.for_reading(100_000 * MIB).timeout_s == 15_360
