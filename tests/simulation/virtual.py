"""Makes sure that nothing in a simulated history reads a real clock, real chance, or writes a log anywhere."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NoReturn

import pysyncobj.syncobj
import structlog

from iceprod_p2p.base.clock import SystemClock
from tests.simulation.world import World


class _NoChance:
    """Stands where PySyncObj would find `random`."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"PySyncObj asked for random.{name} past the engine's own source of chance")


def _no_clock(*_: object) -> NoReturn:
    raise AssertionError("a simulated history asked for the machine's clock")


@contextmanager
def virtual_time(world: World) -> Iterator[None]:
    """Run with PySyncObj's clock, chance and poller replaced, and every log event told to the world's story."""

    def tell(_logger: object, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        if method == "debug":
            raise structlog.DropEvent
        fields = dict(event)
        fields.pop("part", None)
        fields.pop("exc_info", None)
        what = str(fields.pop("event", ""))
        who = str(fields.pop("node", world.speaker))
        world.note(who, what if method == "info" else f"{what} ({method})", **fields)
        raise structlog.DropEvent

    module = pysyncobj.syncobj
    kept = (module.monotonicTime, module.random, module.createPoller)
    clocks = (SystemClock.monotonic_s, SystemClock.wall_ms)
    config = structlog.get_config()
    module.monotonicTime = lambda: world.now
    module.random = _NoChance()
    module.createPoller = lambda kind: None
    SystemClock.monotonic_s = SystemClock.wall_ms = _no_clock  # type: ignore[method-assign,assignment]
    structlog.configure(
        processors=[tell], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        module.monotonicTime, module.random, module.createPoller = kept
        SystemClock.monotonic_s, SystemClock.wall_ms = clocks  # type: ignore[method-assign]
        structlog.configure(**config)
