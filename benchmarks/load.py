"""A closed loop of callers: each waits for its answer before it asks again.  Counts, and times every call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.numbers import thinned

SAMPLES_MAX = 4_000  # Latencies handed to the parent by one process.

Call = Callable[[int], Awaitable[None]]
"""One call of `batch` commands; returns when all of them are acknowledged."""


async def drive(call: Call, *, callers: int, batch: int, warm_s: float, seconds: float) -> dict[str, Any]:
    """Let `callers` coroutines call for `warm_s`, then for `seconds` that count; return what was acknowledged."""
    begin_s = time.perf_counter() + warm_s
    end_s = begin_s + seconds
    latencies_us: list[int] = []

    async def caller() -> None:
        while (asked_s := time.perf_counter()) < end_s:
            await call(batch)
            answered_s = time.perf_counter()
            if begin_s <= answered_s < end_s:
                latencies_us.append(int((answered_s - asked_s) * 1e6))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return {"commands": len(latencies_us) * batch, "latencies_us": thinned(latencies_us, SAMPLES_MAX)}
