"""Floods against a real leader: calls, streams opened and reset, handshakes, half-open and silent connections,
oversized messages and headers.  Who floods is told to come back; the leader leads on, and others are served.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.errors
import pytest

from iceprod_p2p.base.errors import BadInput, IceProdError, Unavailable
from iceprod_p2p.wire.channel import MESSAGE_BYTES_MAX
from iceprod_p2p.wire.errors import from_rpc_error
from iceprod_p2p.wire.pb import control_pb2, control_pb2_grpc
from tests.security.scene import Scene, unmoved

FLOOD_S = 2.0


def flooded(work: Callable[[Counter[str]], None], *, threads: int, least: int) -> Counter[str]:
    """Run `work` again and again on some threads for a while; return what it counted.

    A slow machine takes longer, until `least` have been counted in all: less would be no flood.
    """
    counted: Counter[str] = Counter()
    began = time.monotonic()

    def run() -> None:
        while (spent := time.monotonic() - began) < FLOOD_S or (counted.total() < least and spent < 60):
            work(counted)

    hands = [threading.Thread(target=run) for _ in range(threads)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join(120)
    return counted


def test_a_person_who_calls_without_end_is_told_to_come_back(scene: Scene) -> None:
    with scene.channel() as channel, unmoved(scene):
        stub = control_pb2_grpc.ControlStub(channel)
        pending: list[Any] = []
        counted: Counter[str] = Counter()
        for _ in range(2_500):
            pending.append(stub.WhoAmI.future(control_pb2.WhoAmIRequest(), timeout=30))
        for call in pending:
            try:
                call.result()
                counted["served"] += 1
            except grpc.RpcError as failure:
                error = from_rpc_error(failure)  # type: ignore[arg-type]
                assert isinstance(error, Unavailable) and error.retry_after_s > 0, error
                counted["told"] += 1
        assert counted["served"] >= 1 and counted["told"] >= 100, counted


def test_calls_begun_and_cancelled_at_once_harm_nobody(scene: Scene) -> None:
    def begin_and_reset(counted: Counter[str]) -> None:
        """A thousand streams on one connection, each reset as soon as it is open (CVE-2023-44487)."""
        try:
            with scene.tls() as wire:
                client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
                client.initiate_connection()
                headers = [
                    (":method", "POST"),
                    (":path", "/iceprod.v1.Control/ListDatasets"),
                    (":scheme", "https"),
                    (":authority", scene.node.server_name),
                    ("content-type", "application/grpc"),
                    ("te", "trailers"),
                ]
                for _ in range(1_000):
                    stream = client.get_next_available_stream_id()
                    client.send_headers(stream, headers)
                    client.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                    counted["streams"] += 1
                    if counted["streams"] % 100 == 0:
                        wire.sendall(client.data_to_send())
                wire.sendall(client.data_to_send())
        except OSError:
            counted["hung up on"] += 1

    with unmoved(scene) as others_are_served:
        counted = flooded(begin_and_reset, threads=2, least=1_000)
        others_are_served()
    assert counted["streams"] >= 900, counted  # Beside those that hung up on it.


def test_handshakes_without_end_harm_nobody(scene: Scene) -> None:
    strange = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    strange.check_hostname, strange.verify_mode = False, ssl.CERT_NONE

    def shake(counted: Counter[str]) -> None:
        try:
            with strange.wrap_socket(scene.tcp(), server_hostname="x") as wire:
                wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                counted["answered" if wire.recv(1) else "hung up on"] += 1
        except (OSError, ssl.SSLError):
            counted["refused"] += 1

    with unmoved(scene):
        counted = flooded(shake, threads=3, least=10)
    assert counted.total() >= 10 and not counted["answered"], counted


def test_half_open_and_talkative_strangers_harm_nobody(scene: Scene) -> None:
    with unmoved(scene) as others_are_served:
        silent = [scene.tcp() for _ in range(300)]
        noise = (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\0" * 70_000, bytes(range(256)) * 40)
        for number, wire in enumerate(silent):
            if number % 2:
                try:
                    wire.sendall(noise[number // 2 % len(noise)])
                except OSError:
                    continue  # It has hung up already.
        others_are_served()
        for wire in silent:
            wire.close()


@pytest.mark.parametrize("size", [MESSAGE_BYTES_MAX + 1, 8 * MESSAGE_BYTES_MAX])
def test_an_oversized_message_is_one_refusal(scene: Scene, size: int) -> None:
    with scene.channel(max_send_message_length=-1) as channel, unmoved(scene):
        with pytest.raises(grpc.RpcError) as failure:
            channel.unary_unary("/iceprod.v1.Control/Submit")(b"x" * size, timeout=30)
        error = from_rpc_error(failure.value)  # type: ignore[arg-type]
        assert isinstance(error, BadInput) and "too large" in error.message, error


def test_oversized_headers_are_refused(scene: Scene) -> None:
    with scene.channel(max_metadata_size=10_000_000) as channel, unmoved(scene):
        stub = control_pb2_grpc.ControlStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.WhoAmI(control_pb2.WhoAmIRequest(), timeout=30, metadata=[("x-long", "y" * 200_000)])
        stub.WhoAmI(control_pb2.WhoAmIRequest(), timeout=30)


def test_bytes_that_are_no_message_are_refused(scene: Scene) -> None:
    with scene.channel() as channel, unmoved(scene):
        for method in (
            "Control/Submit",
            "Control/ListTasks",
            "Peer/GetMember",
            "Nothing/AtAll",
            "Control/Nothing",
        ):
            for content in (b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x0f", b"\x08" * 1_000, b""):
                call = channel.unary_unary(f"/iceprod.v1.{method}")
                try:
                    call(content, timeout=30)
                except grpc.RpcError as failure:
                    error = from_rpc_error(failure)  # type: ignore[arg-type]
                    assert isinstance(error, IceProdError) and "Traceback" not in error.message
