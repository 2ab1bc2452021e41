"""Runs a module in its real child process, as a pilot does, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from iceprod_p2p.modules.protocol import Message, MessageReader, ModuleRequest, Result, encode_request

TIMEOUT_S = 200


@dataclass(frozen=True)
class Run:
    """How a module's process ended."""

    result: Result | None
    messages: list[Message]
    log: str
    exit_code: int


def run_module(request: ModuleRequest | bytes, *, environ: Mapping[str, str] | None = None) -> Run:
    """Run one module to its end; bytes are sent as they are, to try what a broken parent sends."""
    frame = request if isinstance(request, bytes) else encode_request(request)
    request_read, request_write = os.pipe()
    result_read, result_write = os.pipe()
    command = [sys.executable, "-P", "-m", "iceprod_p2p.modules.child"]
    child = subprocess.Popen(
        [*command, "--request-fd", str(request_read), "--result-fd", str(result_write)],
        pass_fds=(request_read, result_write),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environ or {})},
    )
    os.close(request_read)
    os.close(result_write)
    reader = MessageReader()
    messages: list[Message] = []
    try:
        try:
            with open(request_write, "wb") as pipe:
                pipe.write(frame)
        except BrokenPipeError:
            pass  # the child refused the request before it had read it all
        with open(result_read, "rb", buffering=0) as pipe:
            while data := pipe.read(65_536):
                messages += reader.feed(data)
        output, _ = child.communicate(timeout=TIMEOUT_S)
    finally:
        child.kill()
        child.wait()
    return Run(reader.finish(), messages, output.decode(), child.returncode)
