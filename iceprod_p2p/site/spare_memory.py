"""Memory that a burst of calls took is given back when they are over.

The C library keeps it otherwise (`base.memory`): a node that was flooded once would look as if it leaked for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from iceprod_p2p.base import memory
from iceprod_p2p.base.logs import get_logger

GROWN_MIB: Final = 16.0  # Less is not worth the time.
PAUSE_STEPS_MAX: Final = 64
log = get_logger("memory")


class SpareMemory:
    """The role; `step` is called by one task of the event loop, and costs next to nothing while memory does not grow.

    What has grown may be in use yet, so it is tried again after 1, 2, 4 ... `PAUSE_STEPS_MAX` steps, or at once when it
    grows further; what is there even then is what the node needs now, and only growth beyond that counts from then on.
    """

    def __init__(
        self,
        *,
        own_mib: Callable[[], float | None] = memory.own_mib,
        give_back: Callable[[], bool] = memory.give_back,
    ) -> None:
        self._own_mib = own_mib
        self._give_back = give_back
        self._needed_mib: float | None = None
        self._after_mib = 0.0  # When some was given back last.
        self._pause = self._left = 0

    async def step(self) -> None:
        """Look once, and give back what is free when this process has grown."""
        now_mib = self._own_mib()
        if now_mib is None or self._is_small(now_mib):
            return
        if now_mib > self._after_mib + GROWN_MIB:
            self._pause = self._left = 0
        if self._left > 0:
            self._left -= 1
            return
        await asyncio.to_thread(self._give_back)
        after_mib = self._own_mib() or now_mib
        self._after_mib = after_mib
        if now_mib - after_mib >= GROWN_MIB:
            log.info("memory given back", freed_mib=round(now_mib - after_mib), left_mib=round(after_mib))
        if self._is_small(after_mib):
            return
        self._pause = 2 * self._pause or 1
        self._left = self._pause
        if self._pause > PAUSE_STEPS_MAX:
            self._use(after_mib)

    def _is_small(self, mib: float) -> bool:
        """Whether this is about what the node needs; less than that is what it needs from now on."""
        if self._needed_mib is not None and mib > self._needed_mib + GROWN_MIB:
            return False
        self._use(mib if self._needed_mib is None else min(mib, self._needed_mib))
        return True

    def _use(self, needed_mib: float) -> None:
        self._needed_mib = needed_mib
        self._pause = self._left = 0
