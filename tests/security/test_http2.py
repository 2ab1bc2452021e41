"""Abuse below the calls: frames of HTTP/2 that cost their sender nothing, by a member that was removed and by nobody.

Each attack is written as bytes, on connections of its own to both doors of the leader, whose answers are not read.
The node hangs up, stops reading or puts up with it; its memory stays bounded, others are served, the leader leads on.
Sources: CVE-2024-27316 and its kin (CONTINUATION), CVE-2019-9511 to 9518 (floods of control frames, zero windows, empty
frames), CVE-2016-1544 (HPACK), CVE-2025-8671 (streams that the server is made to reset), RFC 9113 and 7541.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from iceprod_p2p.client.connection import request_id
from iceprod_p2p.wire.addresses import parse_address
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.node_processes import wait_for
from tests.security.scene import Scene, unmoved

FLOOD_S = 1.0
BYTES_MAX = 192 << 20  # Of one connection: three times what the node may take for it.
MEMORY_MIB = 64
# Of both doors together: each may take 16 MiB of headers from who has not acknowledged its limits, twice.
MEMORY_MIB_OF = {"continuations_without_end": 96}
KEPT_MIB = 64  # Of all that the attacks took together, when they are over; twice as much without `site.spare_memory`.
BOMBS = 30
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
HEADER_TABLE_SIZE, INITIAL_WINDOW = 1, 4
FRAME_BYTES = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame as RFC 9113 has it."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def setting(name: int, value: int) -> bytes:
    """One parameter of a SETTINGS frame."""
    return struct.pack(">HI", name, value)


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """One header, not compressed, kept in the table of the connection if `indexed` (RFC 7541, 6.2)."""

    def text(content: bytes) -> bytes:
        size = len(content)
        if size < 127:
            return bytes([size]) + content
        head, rest = b"\x7f", size - 127
        while rest >= 128:
            head += bytes([rest & 127 | 128])
            rest >>= 7
        return head + bytes([rest]) + content

    return (b"\x40" if indexed else b"\x00") + text(name) + text(value)


def call(path: bytes) -> bytes:
    """The headers of a call."""
    return b"".join(
        literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", path),
            (b":authority", b"node"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )


LIST, LOGIN = call(b"/iceprod.v1.Control/ListDatasets"), call(b"/iceprod.v1.Enrol/Login")
Attack = Callable[[bytes], Iterator[bytes]]  # Given a call's headers; what is written, without end.
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    """Register one."""
    ATTACKS[function.__name__] = function
    return function


@attack
def continuations_without_end(headers: bytes) -> Iterator[bytes]:
    """One header block that never ends, of headers that are not kept."""
    yield frame(HEADERS, 0, 1, headers)
    block = b"".join(literal(b"x-%d" % number, b"y" * 1_000) for number in range(15))
    while True:
        yield frame(CONTINUATION, 0, 1, block) * 4


@attack
def empty_continuations_without_end(headers: bytes) -> Iterator[bytes]:
    """The same in frames of nothing."""
    yield frame(HEADERS, 0, 1, headers)
    while True:
        yield frame(CONTINUATION, 0, 1) * 4_000


@attack
def settings_without_end(headers: bytes) -> Iterator[bytes]:
    """Each wants an answer that nobody reads."""
    while True:
        yield (
            frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW, 65_535) + setting(HEADER_TABLE_SIZE, 4_096)) * 2_000
        )


@attack
def pings_without_end(headers: bytes) -> Iterator[bytes]:
    """The same with PING."""
    while True:
        yield frame(PING, 0, 0, b"nobodies") * 3_000


@attack
def header_table_bombs(headers: bytes) -> Iterator[bytes]:
    """A header of four kilobytes put into the table once, then named sixteen thousand times by a byte each."""
    yield frame(
        HEADERS, END_HEADERS | END_STREAM, 1, headers + literal(b"x-bomb", b"y" * 3_900, indexed=True)
    )
    for stream in range(3, 3 + 2 * BOMBS, 2):
        block = b"\xbe" * (FRAME_BYTES - len(headers))  # The youngest entry of the table.
        yield frame(HEADERS, 0, stream, headers + block)
        yield frame(CONTINUATION, END_HEADERS, stream, b"\xbe" * FRAME_BYTES)


@attack
def huge_header_tables(headers: bytes) -> Iterator[bytes]:
    """A table of four gigabytes is offered for the answers, and filled by calls that all fail differently."""
    yield frame(SETTINGS, 0, 0, setting(HEADER_TABLE_SIZE, 0xFFFF_FFFF))
    for stream in count(1, 2):
        strange = literal(b"grpc-timeout", b"%dS" % stream) + literal(
            b"x-%d" % stream, b"y" * 500, indexed=True
        )
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, headers + strange)


@attack
def windows_of_nothing(headers: bytes) -> Iterator[bytes]:
    """Calls whose answers may not be sent: the window is zero, and nobody reads."""
    yield frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW, 0))
    for stream in count(1, 2):
        yield frame(HEADERS, END_HEADERS, stream, headers)
        yield frame(DATA, END_STREAM, stream, b"\0\0\0\0\0")


@attack
def uploads_that_stop(headers: bytes) -> Iterator[bytes]:
    """Messages of four megabytes are announced, begun and left, until no stream is free; then tried again."""
    for stream in count(1, 2):
        yield frame(HEADERS, END_HEADERS, stream, headers)
        yield frame(DATA, 0, stream, b"\0" + struct.pack(">I", 4 << 20) + b"x" * 16_000)


@attack
def streams_reset_at_once(headers: bytes) -> Iterator[bytes]:
    """By their caller, who pays nothing for them."""
    for stream in count(1, 2):
        yield frame(HEADERS, END_HEADERS, stream, headers) + frame(RESET, 0, stream, b"\0\0\0\x08")


@attack
def streams_that_the_server_is_made_to_reset(headers: bytes) -> Iterator[bytes]:
    """By a window that grows by nothing, which is an error of one stream."""
    for stream in count(1, 2):
        yield frame(HEADERS, END_HEADERS, stream, headers) + frame(WINDOW, 0, stream, bytes(4))


@attack
def frames_of_nothing(headers: bytes) -> Iterator[bytes]:
    """Empty DATA, and priorities of streams that there are not."""
    yield frame(HEADERS, END_HEADERS, 1, headers)
    for stream in count(3, 2):
        yield frame(DATA, 0, 1) * 500 + frame(PRIORITY, 0, stream & 0x7FFF_FFFF, b"\0\0\0\x01\xff") * 500


@dataclass(frozen=True)
class Attacker:
    """Somebody with a door: who it is, where it leads, by what certificate, and what is asked there."""

    address: str
    tls: ssl.SSLContext
    headers: bytes
    calm_mib: float  # What the node took before all attacks.

    def connect(self) -> ssl.SSLSocket:
        """A connection that has said hello."""
        at = parse_address(self.address)
        wire = self.tls.wrap_socket(socket.create_connection((at.host, at.port), timeout=20))
        wire.settimeout(FLOOD_S)  # A node that reads no more holds nobody up here.
        wire.sendall(PREFACE + frame(SETTINGS, 0, 0))
        return wire


def _context(chain: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if chain is not None:
        context.load_cert_chain(chain, key)
    return context


@pytest.fixture(scope="module")
def attackers(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> list[Attacker]:
    """A node that joined and was removed, with the certificate that it still has; and nobody."""
    directory = tmp_path_factory.mktemp("gone") / "gone"
    directory.mkdir(mode=0o700)
    model = scene.cluster.cluster.sites[0]
    ports = iter(("1", "2"))  # It is never started.
    text = re.sub(rf'"{model.name}([^"]*)"', r'"gone\1"', model.config.read_text())
    text = text.replace(str(model.directory), str(directory))
    text = re.sub(r"127\.0\.0\.1:\d+", lambda _: f"127.0.0.1:{next(ports, '3')}", text)
    (directory / "site.toml").write_text(text)
    session = scene.cluster.session.connection
    invite = control_pb2.InviteRequest(site="gone", lifetime_s=300, request_id=request_id())
    words = session.call("Invite", invite).line.split()
    arguments = words[words.index("join") :]
    done = subprocess.run(
        [sys.executable, "-m", "iceprod_p2p.daemon", *arguments, "--config", str(directory / "site.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=directory,
    )
    assert done.returncode == 0, done.stderr
    member = next(row for row in scene.status().members if row.site == "gone")
    remove = control_pb2.ControlMemberRequest(node_id=member.node_id, verb="remove", request_id=request_id())
    session.call("ControlMember", remove)
    keys, calm_mib = directory / "data" / "keys", _memory_mib(_leader(scene))
    return [
        Attacker(scene.node.address, _context(keys / "node.pem", keys / "node.key"), LIST, calm_mib),
        Attacker(scene.node.enrol_address, _context(), LOGIN, calm_mib),
    ]


def _leader(scene: Scene) -> int:
    """The process id of the node that is attacked."""
    leader = next(site for site in scene.cluster.cluster.sites if site.address == scene.node.address)
    assert leader.process is not None
    return leader.process.pid


def _memory_mib(pid: int) -> float:
    """What a process has for itself, not shared with a parent."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1_024


def _flood(attacker: Attacker, what: Attack, wires: ExitStack, written: list[int]) -> None:
    sent = 0
    try:
        wire = wires.enter_context(attacker.connect())
        sent = len(PREFACE)
        end = time.monotonic() + FLOOD_S
        for piece in what(attacker.headers):
            wire.sendall(piece)
            sent += len(piece)
            if sent > BYTES_MAX or time.monotonic() > end:
                break
    except OSError:
        pass  # Hung up on, or read no more.
    written.append(sent)


@pytest.mark.parametrize("name", ATTACKS)
def test_frames_that_cost_nothing_cost_the_node_little(
    scene: Scene, attackers: list[Attacker], name: str
) -> None:
    leader = _leader(scene)
    before = most = _memory_mib(leader)
    written: list[int] = []
    with ExitStack() as wires, unmoved(scene) as others_are_served:
        hands = [
            threading.Thread(target=_flood, args=(attacker, ATTACKS[name], wires, written))
            for attacker in attackers
        ]
        for hand in hands:
            hand.start()
        others_are_served()
        while any(hand.is_alive() for hand in hands):
            most = max(most, _memory_mib(leader))
            time.sleep(0.02)
        others_are_served()  # While the connections are open yet.
        most = max(most, _memory_mib(leader))
    print(f"{name}: wrote {[size >> 10 for size in written]} KiB, the node took {most - before:.1f} MiB more")
    assert len(written) == len(attackers) and all(written), "every attack was carried out"
    assert most - before <= MEMORY_MIB_OF.get(name, MEMORY_MIB), f"{most - before:.0f} MiB more"


def test_what_the_attacks_took_is_given_back(scene: Scene, attackers: list[Attacker]) -> None:
    leader, written = _leader(scene), list[int]()
    with ExitStack() as wires, unmoved(scene) as others_are_served:
        for attacker in attackers * 4:
            _flood(attacker, ATTACKS["header_table_bombs"], wires, written)
        others_are_served()
    calm = attackers[0].calm_mib
    print(
        f"after the last attack the node takes {_memory_mib(leader) - calm:.1f} MiB more than before the first"
    )
    wait_for("memory is given back", lambda: _memory_mib(leader) <= calm + KEPT_MIB, timeout_s=60)
