"""The frames between pilot and module: whatever the chunks, the same messages; whatever is bad, one clear error."""

from __future__ import annotations

import math
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules import protocol
from iceprod_p2p.modules.protocol import (
    MESSAGE_BYTES_MAX,
    FrameReader,
    MessageReader,
    ModuleFailure,
    ModuleRequest,
    Progress,
    ProtocolError,
    Result,
    Statistic,
)

names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
statistics = st.dictionaries(names, numbers, max_size=5)
failures = st.none() | st.builds(ModuleFailure, names, st.text(max_size=50), st.text(max_size=50))
early = st.builds(Statistic, names, numbers) | st.builds(Progress, st.floats(0, 1), st.text(max_size=50))
results = st.builds(
    Result,
    ok=st.booleans(),
    code=st.integers(0, 255),
    statistics=statistics,
    error=failures,
    real_s=st.floats(0, 1e6),
)


@given(st.lists(early, max_size=5), results, st.lists(st.integers(1, 50), min_size=1))
def test_messages_arrive_as_they_were_sent_in_whatever_pieces(messages, result, sizes):
    stream = b"".join(map(protocol.encode_message, [*messages, result]))
    reader, arrived, start = MessageReader(), [], 0
    while start < len(stream):
        for size in sizes:
            arrived += reader.feed(stream[start : start + size])
            start += size
    assert arrived == [*messages, result]
    assert reader.finish() == result


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_protocol_error(data):
    reader = MessageReader()
    try:
        reader.feed(data)
        reader.finish()
    except ProtocolError as wrong:
        assert str(wrong)


arguments = (
    st.none()
    | names
    | st.lists(st.integers() | names, max_size=3)
    | st.dictionaries(names, names, max_size=3)
)


@given(
    arguments.filter(
        lambda args: not isinstance(args, list) or all(abs(x) < 2**63 for x in args if isinstance(x, int))
    )
)
def test_requests_arrive_as_they_were_sent(args):
    request = ModuleRequest(
        work_dir="/w", name="n", src="s.py", args=args, parameters={"a": [1, None, 2.5]}, cpu_count=2
    )
    (value,) = FrameReader(limit_bytes=10_000).feed(protocol.encode_request(request))
    assert protocol.decode_request(value) == request


def test_an_oversized_frame_is_refused_before_it_is_read():
    reader = FrameReader(limit_bytes=100)
    with pytest.raises(ProtocolError, match="101 bytes is larger than the 100"):
        reader.feed(struct.pack(">I", 101))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_statistic_that_is_not_finite_is_refused_by_name_on_both_ways(value):
    with pytest.raises(BadInput, match="'mean_energy'"):
        protocol.encode_message(Statistic("mean_energy", value))
    with pytest.raises(BadInput, match="'mean_energy'"):
        protocol.encode_message(Result(ok=True, code=0, statistics={"mean_energy": value}))
    payload = msgpack.packb({"kind": "statistic", "name": "mean_energy", "value": value})
    with pytest.raises(ProtocolError, match="'mean_energy'"):
        MessageReader().feed(struct.pack(">I", len(payload)) + payload)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "dance"}, "unknown kind 'dance'"),
        ({}, "unknown kind None"),
        ({"kind": "result", "code": 0}, "'ok' is missing"),
        ({"kind": "result", "ok": 1, "code": 0}, "'ok' is 1"),
        ({"kind": "result", "ok": True, "code": True}, "'code' is True"),
        ({"kind": "result", "ok": True, "code": 0, "statistics": {"": 1.0}}, "cannot name a statistic"),
        ({"kind": "result", "ok": True, "code": 0, "times": [1]}, "times"),
        ({"kind": "progress", "fraction": "half"}, "'half'"),
        ({"kind": "statistic", "name": 5, "value": 1.0}, "5 cannot name"),
    ],
)
def test_a_malformed_message_says_what_is_wrong(fields, words):
    with pytest.raises(ProtocolError) as caught:
        protocol.decode_message(fields)
    assert words in str(caught.value)


def test_nothing_may_follow_a_result_and_a_cut_stream_has_none():
    frame = protocol.encode_message(Result(ok=True, code=0))
    reader = MessageReader()
    with pytest.raises(ProtocolError, match="after the result"):
        reader.feed(frame + protocol.encode_message(Progress(1.0)))
    cut = MessageReader()
    cut.feed(frame[:-1])
    with pytest.raises(ProtocolError, match="inside a frame"):
        cut.finish()
    assert MessageReader().finish() is None


def test_the_longest_result_fits_its_limit():
    statistics = {f"{number:03d}" + "é" * 125: 1.0 for number in range(256)}
    failure = ModuleFailure("é" * 500, "é" * 5_000, "é" * 9_000)
    frame = protocol.encode_message(Result(ok=False, code=1, statistics=statistics, error=failure))
    assert len(frame) < MESSAGE_BYTES_MAX
    with pytest.raises(BadInput, match="257 statistics"):
        protocol.encode_message(Result(ok=True, code=0, statistics=dict.fromkeys(map(str, range(257)), 1.0)))


@pytest.mark.parametrize(
    "fields", [{}, {"work_dir": "/w"}, {"work_dir": "", "src": "x"}, {"work_dir": "/w", "class": 3}]
)
def test_a_request_without_a_place_or_a_module_is_refused(fields):
    with pytest.raises(ProtocolError):
        protocol.decode_request(fields)
