"""Child processes that are told what to do, and answer, by one line of JSON each."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks import machine

Answer = dict[str, Any]
Say = Callable[[str], None]
"""Hears of progress, one line at a time."""


class Child:
    """One process running `python -m MODULE ARGUMENT...`; its errors go to a file."""

    def __init__(self, module: str, *arguments: str, log: Path) -> None:
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [machine.python(), "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(machine.environment()),
            )

    def tell(self, **request: Any) -> None:
        """Send one request; `answer` waits for what comes back."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> Answer:
        """Return the next answer; RuntimeError, with the end of its log, when the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-2_000:]
            raise RuntimeError(f"process {self.process.pid} ended with {self.process.wait()}:\n{tail}")
        return cast(Answer, json.loads(line))

    def ask(self, **request: Any) -> Answer:
        """Send one request and return its answer."""
        self.tell(**request)
        return self.answer()

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Close its input, which ends it; kill it if it does not end."""
        assert self.process.stdin is not None and self.process.stdout is not None
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process.stdout.close()


def ask_all(children: Sequence[Child], requests: Sequence[Answer]) -> list[Answer]:
    """Send each child its request, then wait for all answers."""
    for child, request in zip(children, requests, strict=True):
        child.tell(**request)
    return [child.answer() for child in children]


def say(**answer: Any) -> None:
    """In a child: answer."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def serve(handle: Callable[[Answer], Awaitable[Answer]]) -> None:
    """In a child: answer every request until the parent closes the pipe."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        say(**await handle(json.loads(line)))
