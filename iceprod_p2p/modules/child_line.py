"""The child's end of the two pipes to its pilot: one request in, messages out, answers to calls in."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from iceprod_p2p.modules.protocol import (
    REQUEST_BYTES_MAX,
    Answer,
    FrameReader,
    Message,
    ModuleRequest,
    ProtocolError,
    SiteCall,
    decode_answer,
    decode_request,
    encode_message,
)

READ_BYTES = 65_536


class Line:
    """Both pipes, by their descriptors; what the module starts does not hold them open.  For one thread at a time."""

    def __init__(self, request_fd: int, result_fd: int) -> None:
        self._request_fd = request_fd
        self._result_fd = result_fd
        self._frames = FrameReader(limit_bytes=REQUEST_BYTES_MAX)
        self._come: deque[dict[str, Any]] = deque()

    def read_request(self) -> ModuleRequest:
        """Read the one request; ProtocolError when the pipe holds none, a bad one, or too large a one."""
        os.set_inheritable(self._result_fd, False)
        os.set_inheritable(self._request_fd, False)
        return decode_request(self._next("a request"))

    def send(self, message: Message) -> None:
        """Write one message whole.  BrokenPipeError when the pilot is gone: then the module's run ends too."""
        frame = memoryview(encode_message(message))
        while frame:
            frame = frame[os.write(self._result_fd, frame) :]

    def ask(self, call: SiteCall) -> Answer:
        """Send a call and wait for its answer, which the pilot gives in bounded time."""
        self.send(call)
        return decode_answer(self._next("an answer"))

    def _next(self, what: str) -> dict[str, Any]:
        while not self._come:
            data = os.read(self._request_fd, READ_BYTES)
            if not data:
                raise ProtocolError(f"the pipe ended before {what} came")
            self._come.extend(self._frames.feed(data))
        return self._come.popleft()
