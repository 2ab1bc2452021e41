"""A node's roles: tasks of the event loop that do one thing again and again, and are never given up.

A step that fails is logged and counted, and repeated after a pause that doubles up to a minute; the others go
on meanwhile.  Pauses carry jitter, so that the nodes of a cluster do not step in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger

PAUSE_S_MAX: Final = 60.0
JITTER: Final = 0.1
log = get_logger("roles")


@dataclass(slots=True)
class Role:
    """One role: `step` does its work once; after it the role sleeps `interval_s`, or less when `wake` is
    set.
    """

    name: str
    interval_s: float
    step: Callable[[], Awaitable[None]]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    steps: int = 0
    failures: int = 0
    failed_in_a_row: int = 0
    last_error: str = ""


class Roles:
    """Runs roles until they are stopped; used on one event loop."""

    def __init__(self, *, chance: Callable[[], float]) -> None:
        """`chance` gives a number in [0, 1) for the jitter."""
        self._chance = chance
        self._roles: list[Role] = []
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, role: Role) -> Role:
        """Add a role before `start`."""
        self._roles.append(role)
        return role

    def __iter__(self) -> Iterator[Role]:
        return iter(tuple(self._roles))

    def start(self) -> None:
        """Begin to run all roles."""
        self._tasks = [asyncio.create_task(self._run(role), name=role.name) for role in self._roles]

    async def stop(self) -> None:
        """End all roles and return when none runs any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def problems(self) -> list[str]:
        """Return one sentence for each role whose last steps failed."""
        return [
            f"{role.name} failed {role.failed_in_a_row} times in a row: {role.last_error}"
            for role in self._roles
            if role.failed_in_a_row >= 3
        ]

    async def _run(self, role: Role) -> None:
        while True:
            role.wake.clear()
            pause_s = role.interval_s
            try:
                await role.step()
            except Exception as failure:
                pause_s = self._failed(role, failure)
            else:
                role.failed_in_a_row, role.last_error = 0, ""
            role.steps += 1
            await self._sleep(role, pause_s)

    def _failed(self, role: Role, failure: Exception) -> float:
        role.failures += 1
        role.failed_in_a_row += 1
        role.last_error = str(failure) or type(failure).__name__
        if isinstance(failure, IceProdError):
            log.warning("role step failed", role=role.name, error=role.last_error, times=role.failed_in_a_row)
        else:
            log.error("role step failed", role=role.name, times=role.failed_in_a_row, exc_info=failure)
        pause_s = max(role.interval_s, 0.2) * float(1 << min(role.failed_in_a_row, 10))
        return min(pause_s, max(PAUSE_S_MAX, role.interval_s))

    async def _sleep(self, role: Role, pause_s: float) -> None:
        pause_s *= 1 + JITTER * (2 * self._chance() - 1)
        if role.failed_in_a_row:
            await asyncio.sleep(pause_s)  # A step that fails is not hurried by being woken.
            return
        try:
            await asyncio.wait_for(role.wake.wait(), pause_s)
        except TimeoutError:
            return
