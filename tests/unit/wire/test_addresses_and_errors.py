"""Addresses are read strictly; errors keep class, sentence and remedy on their way and bring nothing else."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.base.errors import (
    BadInput,
    ConfigError,
    IceProdError,
    IntegrityError,
    NotAllowed,
    NotFound,
    Refused,
    Unavailable,
    Unreachable,
)
from iceprod_p2p.wire.addresses import Address, parse_address
from iceprod_p2p.wire.channel import METADATA_BYTES_MAX, TlsMaterial, secure_channel
from iceprod_p2p.wire.errors import from_rpc_error, to_status


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:4410", Address("127.0.0.1", 4410), True),
        ("localhost:1", Address("localhost", 1), True),
        ("[::1]:65535", Address("::1", 65535), True),
        ("[2001:db8::1]:4410", Address("2001:db8::1", 4410), False),
        ("node1.example.org:4410", Address("node1.example.org", 4410), False),
        ("0.0.0.0:4410", Address("0.0.0.0", 4410), False),
    ],
)
def test_addresses_are_read_and_written_back(text: str, address: Address, loopback: bool) -> None:
    assert parse_address(text) == address
    assert str(address) == text
    assert address.is_loopback == loopback


@pytest.mark.parametrize(
    "text",
    ["", ":", "host", "host:", ":4410", "host:0", "host:65536", "host:-1", "host:1x", "host:٤", "ho st:1",
     "::1:4410", "[::1]", "[::1]4410", "[host]:1", "[fe80::1%eth0]:1", "unix:/tmp/x", "dns:///x:1", "a/b:1",
     "host:1:2", "h" * 254 + ":1", "-host:1", "x" * 100_000],
)  # fmt: skip
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_address(text)
    assert "host:port" in refused.value.remedy
    assert len(str(refused.value)) < 600


def test_port_0_is_for_listeners() -> None:
    assert parse_address("127.0.0.1:0", may_be_any_port=True) == Address("127.0.0.1", 0)


async def test_a_channel_needs_a_server_name_and_an_address() -> None:
    tls = TlsMaterial.anonymous(b"")
    with pytest.raises(BadInput, match="server's name"):
        secure_channel("127.0.0.1:1", tls, server_name="")
    with pytest.raises(BadInput, match="no port"):
        secure_channel("127.0.0.1", tls, server_name="x")


def test_a_private_key_is_never_shown() -> None:
    assert "PRIVATE" not in repr(TlsMaterial(b"chain", b"PRIVATE", b"root"))


class Failure:
    """A failed call as both gRPC stacks show it."""

    def __init__(self, code: grpc.StatusCode, details: str | None, metadata: Any = ()) -> None:
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._metadata


def travel(error: IceProdError) -> IceProdError:
    return from_rpc_error(Failure(*to_status(error)))


@pytest.mark.parametrize(
    "error",
    [
        BadInput("a", remedy="b"),
        ConfigError("a", faults=("line 1", "line 2"), remedy="b"),
        NotAllowed("a", remedy="b"),
        NotFound("a"),
        Refused("wrong_state", "a", remedy="b"),
        Unavailable("a", remedy="b", retry_after_s=2.5),
        IntegrityError("a", remedy="Größe ≠ 5"),
        IceProdError("a"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_class_survives_the_way(error: IceProdError) -> None:
    arrived = travel(error)
    assert type(arrived) is type(error)
    assert (arrived.message, arrived.remedy) == (error.message, error.remedy)
    assert getattr(arrived, "code", None) == getattr(error, "code", None)
    assert getattr(arrived, "retry_after_s", None) == getattr(error, "retry_after_s", None)


@given(message=st.text(max_size=6_000), remedy=st.text(max_size=3_000))
def test_any_text_arrives_bounded_and_without_control_characters(message: str, remedy: str) -> None:
    _, details, metadata = to_status(BadInput(message, remedy=remedy))
    assert len(details) + sum(len(value) for _, value in metadata) < METADATA_BYTES_MAX
    arrived = travel(BadInput(message, remedy=remedy))
    assert all(c.isprintable() or c in "\n\t" for c in arrived.message + arrived.remedy)


def test_a_hostile_servers_answer_is_shown_not_sent() -> None:
    answer = Failure(grpc.StatusCode.ABORTED, "\x1b]0;owned\x07", (("iceprod-code", "x\x1b[2J" * 100),))
    arrived = from_rpc_error(answer)
    assert isinstance(arrived, Refused)
    assert "\x1b" not in str(arrived) + arrived.code
    for value in ("-5", "nan", "9" * 30, "²"):
        late = from_rpc_error(Failure(grpc.StatusCode.UNAVAILABLE, "x", (("iceprod-retry-after-ms", value),)))
        assert isinstance(late, Unavailable) and 0 <= late.retry_after_s <= 600


@pytest.mark.parametrize(
    ("code", "details", "kind", "words"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", Unavailable, "n1 gave no answer in time"),
        (grpc.StatusCode.CANCELLED, "", Unavailable, "cancelled"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many", Unavailable, "n1 is busy"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (5 vs. 4)", BadInput, "too large"),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", IceProdError, "n1 does not know this call"),
        (grpc.StatusCode.UNAUTHENTICATED, "who?", NotAllowed, "who?"),
        (grpc.StatusCode.UNAVAILABLE, "x; last error: UNKNOWN: Connection refused", Unreachable, "Connection refused"),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect: last error: ipv4:x: Socket closed", Unavailable, "hung up"),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect: recvmsg:Connection reset by peer", Unavailable, "hung up"),
        (grpc.StatusCode.UNAVAILABLE, None, Unreachable, "cannot reach n1"),
        (grpc.StatusCode.UNAVAILABLE, "CERTIFICATE_VERIFY_FAILED: certificate has expired", NotAllowed, "expired"),
        (grpc.StatusCode.INTERNAL, "", IceProdError, "n1 failed"),
        (grpc.StatusCode.OK, "", IceProdError, "n1 failed"),
    ],
)  # fmt: skip
def test_failures_that_no_server_worded_are_put_in_words(
    code: grpc.StatusCode, details: str | None, kind: type[IceProdError], words: str
) -> None:
    arrived = from_rpc_error(Failure(code, details), peer="n1")
    assert type(arrived) is kind
    assert words in str(arrived)
