"""Frames: every message comes back as it was; garbage is one clear error in bounded time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.raft.messages import (
    Append,
    Forward,
    Heartbeat,
    Message,
    SnapshotPage,
    VoteRequest,
    decode,
    encode,
    urgency,
)

index = st.integers(0, 1 << 62)
entries = st.lists(st.tuples(index, st.binary(max_size=100)), max_size=5)
digest = st.binary(min_size=16, max_size=16)
messages = st.one_of(
    st.builds(VoteRequest, index, index, index, index, st.booleans(), st.booleans()),
    st.builds(Append, index, index, index, digest, index, entries),
    st.builds(Heartbeat, index, index, index),
    st.builds(Forward, st.lists(st.tuples(digest, st.binary(max_size=50), st.booleans()), max_size=5)),
    st.builds(
        SnapshotPage,
        digest,
        index,
        st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5),
        st.booleans(),
        st.binary(max_size=32),
        index,
    ),
)


@given(messages)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=300))
def test_garbage_is_refused_by_name_and_nothing_else_happens(frame: bytes) -> None:
    try:
        decode(frame)
    except BadInput as fault:
        assert str(fault)


@given(messages, st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_message_is_refused_or_is_another_message(message: Message, at: int, value: int) -> None:
    frame = bytearray(encode(message))
    frame[at % len(frame)] = value
    try:
        decode(bytes(frame))
    except BadInput as fault:
        assert str(fault)


def test_heartbeats_and_votes_go_before_entries_and_entries_before_pages() -> None:
    beat = encode(Heartbeat(1, 1, 1))
    vote = encode(VoteRequest(1, 1, 1, 1, False, False))
    data = encode(Append(1, 0, 0, bytes(16), 0, [(1, b"\x00\x90")]))
    forward = encode(Forward([]))
    page = encode(SnapshotPage(bytes(16), 0, [], True, b"", 0))
    assert [urgency(frame) for frame in (beat, vote, data, forward, page, b"")] == [0, 0, 1, 1, 2, 0]
