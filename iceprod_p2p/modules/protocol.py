"""What the pilot and a module's process say to each other: framed msgpack over two private pipes.

    pilot -> child    one ModuleRequest; then an Answer to each SiteCall
    child -> pilot    Statistic | Progress | SiteCall, any number; then exactly one Result; then end of file

A frame is a 4-byte big-endian length and that many bytes of msgpack (one map with text keys).  Both ways
have a size limit, checked before anything is allocated.  stdout and stderr are no part of this: they are
the log. A process that ends without a Result was killed or crashed; the pilot says so from its exit status.
There is no I/O here: `FrameReader` and `MessageReader` feed on bytes, the `encode_` functions return them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]

from iceprod_p2p.base.errors import BadInput, IceProdError
from iceprod_p2p.modules import statistics as stats

REQUEST_BYTES_MAX = 4 * 1024 * 1024  # a task's expanded parameters, with room for long lists
MESSAGE_BYTES_MAX = 1024 * 1024  # every statistic with the longest name, and an error
CALL_BYTES_MAX = (
    48 * 1024
)  # Of a call to the site, and of its answer: with its frame it fits into an empty pipe.
NOTE_CHARS_MAX = 200
ERROR_MESSAGE_CHARS_MAX = 2_000
TRACEBACK_CHARS_MAX = 4_000

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
Arguments = None | str | list[Value] | dict[str, Value]

_LENGTH = struct.Struct(">I")


class ProtocolError(IceProdError):
    """The other end of the pipe sent what is not in the protocol; the module's run cannot be trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRequest:
    """One run of one module.

    `class_name` names a module (built-in, entry point, dotted path, or a class in the file `src`); without
    it `src` is a script or executable.  `src` is a local path, relative to `work_dir` unless
    absolute.  `cpu_count` > 0 holds numerical libraries to that many threads.  Of `inherited` a class
    takes what it declares and is not given otherwise.
    """

    work_dir: str
    name: str = ""
    class_name: str = ""
    src: str = ""
    args: Arguments = None
    parameters: Mapping[str, Value] = field(default_factory=dict)
    cpu_count: int = 0
    inherited: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Statistic:
    """A statistic as it stands now; the Result repeats the last value of each."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the module is: `fraction` from 0 to 1, and a short note."""

    fraction: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class SiteCall:
    """A question to the site; the module waits for the answer, so there is one at a time."""

    method: str
    argument: Value = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the site says: a value, or in `refusal` why there is none."""

    value: Value = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class ModuleFailure:
    """Why a module failed: the exception's type, its message and the last lines of its traceback."""

    type: str
    message: str
    traceback_tail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The end of a module's run.

    `code` is what the module returned (0: good).  Times are of the module and the processes it waited for,
    in seconds.
    """

    ok: bool
    code: int
    statistics: Mapping[str, float] = field(default_factory=dict)
    error: ModuleFailure | None = None
    real_s: float = 0.0
    user_s: float = 0.0
    system_s: float = 0.0


Message = Statistic | Progress | SiteCall | Result


def encode_frame(value: Mapping[str, Any], *, limit_bytes: int) -> bytes:
    """Return the frame of one map; BadInput when it is too large or holds what msgpack cannot carry."""
    try:
        payload: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as wrong:
        raise BadInput(f"the message cannot be written: {wrong}") from wrong
    if len(payload) > limit_bytes:
        raise BadInput(f"the message has {len(payload)} bytes, more than the {limit_bytes} allowed")
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Cuts a byte stream into frames, whatever the chunks it arrives in.

    Holds at most one frame and one chunk.
    """

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the maps that `data` completes.

        ProtocolError on an oversized frame or one that is no map.
        """
        self._buffer += data
        values = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            if size > self._limit_bytes:
                raise ProtocolError(f"a frame of {size} bytes is larger than the {self._limit_bytes} allowed")
            end = start + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            values.append(_unpack(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return values

    def finish(self) -> None:
        """Say that the stream has ended; ProtocolError when it ended inside a frame."""
        if self._buffer:
            raise ProtocolError(f"the pipe ended inside a frame, {len(self._buffer)} bytes into it")


class MessageReader:
    """The pilot's end: feeds on bytes, gives messages, and knows the Result once it came."""

    def __init__(self) -> None:
        self._frames = FrameReader(limit_bytes=MESSAGE_BYTES_MAX)
        self.result: Result | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes.

        ProtocolError on a bad one, or on any after the Result.
        """
        messages = []
        for value in self._frames.feed(data):
            if self.result is not None:
                raise ProtocolError("a message came after the result")
            message = decode_message(value)
            if isinstance(message, Result):
                self.result = message
            messages.append(message)
        return messages

    def finish(self) -> Result | None:
        """Return the Result, or None when the child ended without one; ProtocolError inside a frame."""
        if self.result is None:
            self._frames.finish()
        return self.result


def encode_request(request: ModuleRequest) -> bytes:
    """Return the frame of a request; BadInput when it is over REQUEST_BYTES_MAX."""
    return encode_frame(
        {
            "class": request.class_name,
            "src": request.src,
            "name": request.name,
            "args": request.args,
            "parameters": dict(request.parameters),
            "work_dir": request.work_dir,
            "cpu_count": request.cpu_count,
            "inherited": dict(request.inherited),
        },
        limit_bytes=REQUEST_BYTES_MAX,
    )


def decode_request(value: Mapping[str, Any]) -> ModuleRequest:
    """Return the request in a frame's map; ProtocolError when a field is missing or of the wrong type."""
    request = ModuleRequest(
        work_dir=_text(value, "work_dir"),
        name=_text(value, "name", ""),
        class_name=_text(value, "class", ""),
        src=_text(value, "src", ""),
        args=_typed(value, "args", (str, list, dict, type(None)), None),
        parameters=_typed(value, "parameters", (dict,), {}),
        cpu_count=_typed(value, "cpu_count", (int,), 0),
        inherited=_typed(value, "inherited", (dict,), {}),
    )
    if not request.work_dir:
        raise ProtocolError("the request names no work_dir")
    if not request.class_name and not request.src:
        raise ProtocolError("the request names neither a class nor a src")
    return request


def encode_message(message: Message) -> bytes:
    """Return the frame of a message.

    BadInput when a statistic is none or the whole is over MESSAGE_BYTES_MAX, a call over CALL_BYTES_MAX.
    """
    limit = CALL_BYTES_MAX if isinstance(message, SiteCall) else MESSAGE_BYTES_MAX
    return encode_frame(_message_fields(message), limit_bytes=limit)


def _message_fields(message: Message) -> dict[str, Any]:
    match message:
        case Statistic(name, value):
            return {
                "kind": "statistic",
                "name": stats.check_name(name),
                "value": stats.check_value(name, value),
            }
        case Progress(fraction, note):
            return {"kind": "progress", "fraction": _fraction(fraction), "note": note[:NOTE_CHARS_MAX]}
        case SiteCall(method, argument):
            return {"kind": "call", "method": method, "argument": argument}
        case Result():
            return {
                "kind": "result",
                "ok": message.ok,
                "code": message.code,
                "statistics": stats.check_all(message.statistics),
                "error": _failure_fields(message.error),
                "times": [message.real_s, message.user_s, message.system_s],
            }


def _failure_fields(failure: ModuleFailure | None) -> dict[str, str] | None:
    if failure is None:
        return None
    return {
        "type": failure.type[:NOTE_CHARS_MAX],
        "message": failure.message[:ERROR_MESSAGE_CHARS_MAX],
        "traceback_tail": failure.traceback_tail[-TRACEBACK_CHARS_MAX:],
    }


def decode_message(value: Mapping[str, Any]) -> Message:
    """Return the message in a frame's map; ProtocolError when it is none of the three kinds or malformed."""
    try:
        match value.get("kind"):
            case "statistic":
                name = stats.check_name(value.get("name"))
                return Statistic(name, stats.check_value(name, value.get("value")))
            case "progress":
                return Progress(_fraction(value.get("fraction")), _text(value, "note", "")[:NOTE_CHARS_MAX])
            case "call":
                return SiteCall(_text(value, "method"), value.get("argument"))
            case "result":
                return _decode_result(value)
            case other:
                raise ProtocolError(f"a message of unknown kind {stats.clip(other)} came")
    except BadInput as wrong:
        raise ProtocolError(wrong.message) from wrong


def encode_answer(answer: Answer) -> bytes:
    """Return the frame of an answer; BadInput when it is over CALL_BYTES_MAX."""
    return encode_frame(
        {"kind": "answer", "value": answer.value, "refusal": answer.refusal}, limit_bytes=CALL_BYTES_MAX
    )


def decode_answer(value: Mapping[str, Any]) -> Answer:
    """Return the answer in a frame's map; ProtocolError when it is none."""
    if value.get("kind") != "answer":
        raise ProtocolError("what came in reply to a call is no answer")
    return Answer(value.get("value"), _text(value, "refusal", ""))


def _decode_result(value: Mapping[str, Any]) -> Result:
    times = _typed(value, "times", (list,), [0.0, 0.0, 0.0])
    if len(times) != 3 or not all(isinstance(time, int | float) and math.isfinite(time) for time in times):
        raise ProtocolError(f"the result's times are {stats.clip(times)}, not three numbers")
    error = _typed(value, "error", (dict, type(None)), None)
    return Result(
        ok=_typed(value, "ok", (bool,)),
        code=_typed(value, "code", (int,)),
        statistics=stats.check_all(_typed(value, "statistics", (dict,), {})),
        error=None if error is None else _decode_failure(error),
        real_s=times[0],
        user_s=times[1],
        system_s=times[2],
    )


def _decode_failure(value: Mapping[str, Any]) -> ModuleFailure:
    return ModuleFailure(
        _text(value, "type")[:NOTE_CHARS_MAX],
        _text(value, "message")[:ERROR_MESSAGE_CHARS_MAX],
        _text(value, "traceback_tail", "")[-TRACEBACK_CHARS_MAX:],
    )


def _unpack(payload: bytes) -> dict[str, Any]:
    try:
        value = msgpack.unpackb(payload, raw=False, strict_map_key=True)
    except Exception as wrong:  # msgpack documents no common base class for its errors
        raise ProtocolError(f"a frame is not msgpack: {type(wrong).__name__}: {wrong}") from wrong
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ProtocolError("a frame is not a map with text keys")
    return value


def _fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"progress is {stats.clip(value)}, not a number from 0 to 1")
    return min(1.0, max(0.0, float(value)))


_REQUIRED: Any = object()


def _typed(value: Mapping[str, Any], key: str, types: tuple[type, ...], default: Any = _REQUIRED) -> Any:
    found = value.get(key, default)
    if found is _REQUIRED:
        raise ProtocolError(f"{key!r} is missing")
    if not isinstance(found, types) or (isinstance(found, bool) and bool not in types):
        raise ProtocolError(
            f"{key!r} is {stats.clip(found)}, not {' or '.join(kind.__name__ for kind in types)}"
        )
    return found


def _text(value: Mapping[str, Any], key: str, default: Any = _REQUIRED) -> str:
    found: str = _typed(value, key, (str,), default)
    return found
