"""Roles go on whatever happens to one of them."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from iceprod_p2p.base import logs
from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.site.roles import Role, Roles


async def test_a_failing_role_backs_off_and_the_others_go_on() -> None:
    logs.configure()  # Plain tracebacks, as a node has them.
    loop = asyncio.get_running_loop()
    steps: dict[str, list[float]] = {"good": [], "bad": [], "broken": []}

    async def good() -> None:
        steps["good"].append(loop.time())

    async def bad() -> None:
        steps["bad"].append(loop.time())
        raise Unavailable("no")

    async def broken() -> None:
        steps["broken"].append(loop.time())
        raise ZeroDivisionError

    roles = Roles(chance=lambda: 0.5)
    for name, step in (("good", good), ("bad", bad), ("broken", broken)):
        roles.add(Role(name, 0.01, step))
    roles.start()
    async with asyncio.timeout(60):
        while len(steps["good"]) <= 10 or min(len(times) for times in steps.values()) < 3:
            await asyncio.sleep(0.01)
    await roles.stop()
    for name in ("bad", "broken"):  # Pauses may be longer on a busy machine, and never shorter.
        first_s, second_s, *_ = (later - earlier for earlier, later in pairwise(steps[name]))
        assert first_s > 0.39 and second_s > 0.79, steps


async def test_a_role_is_woken_before_its_interval_and_recovers_after_failures() -> None:
    outcomes = [Unavailable("no"), None, None]
    done = asyncio.Event()

    async def step() -> None:
        outcome = outcomes.pop(0) if outcomes else None
        if not outcomes:
            done.set()
        if outcome is not None:
            raise outcome

    roles = Roles(chance=lambda: 0.5)
    role = roles.add(Role("keeper", 0.05, step))
    roles.start()
    await asyncio.sleep(0)  # The role's first step, which is over at once.
    assert role.failed_in_a_row == 1 and "no" in role.last_error
    async with asyncio.timeout(60):
        while not done.is_set():
            role.wake.set()
            await asyncio.sleep(0.01)
    await roles.stop()
    assert role.failed_in_a_row == 0 and roles.problems() == []


async def test_a_role_that_fails_again_and_again_is_named_as_a_problem() -> None:
    async def step() -> None:
        raise Unavailable("the batch system is silent")

    roles = Roles(chance=lambda: 0.0)
    role = roles.add(Role("keeper", 0.0, step))
    roles.start()
    await asyncio.sleep(0)
    role.failed_in_a_row = 3
    assert roles.problems() == ["keeper failed 3 times in a row: the batch system is silent"]
    await roles.stop()
