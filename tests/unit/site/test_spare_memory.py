"""Memory that was freed is given back when the process has grown; what is in use is not asked for again and again."""

from __future__ import annotations

import asyncio

from iceprod_p2p.site.spare_memory import GROWN_MIB, PAUSE_STEPS_MAX, SpareMemory


class Process:
    """A process of which some is in use and some is kept though it is free."""

    def __init__(self, used_mib: float) -> None:
        self.used_mib, self.kept_mib = used_mib, 0.0
        self.asked = 0
        self._role = SpareMemory(own_mib=lambda: self.used_mib + self.kept_mib, give_back=self._give_back)

    def _give_back(self) -> bool:
        self.asked += 1
        self.kept_mib = 0.0
        return True

    def steps(self, count: int) -> None:
        async def take() -> None:
            for _ in range(count):
                await self._role.step()

        asyncio.run(take())


def test_memory_that_does_not_grow_is_left_alone() -> None:
    process = Process(300)
    process.steps(10)
    process.kept_mib = GROWN_MIB - 1
    process.steps(10)
    assert process.asked == 0


def test_what_a_burst_left_is_given_back() -> None:
    process = Process(300)
    process.steps(1)
    process.kept_mib = 200
    process.steps(1)
    assert process.asked == 1 and process.kept_mib == 0
    process.kept_mib = 200
    process.steps(1)
    assert process.asked == 2 and process.kept_mib == 0


def test_what_is_in_use_when_it_is_looked_at_is_given_back_later() -> None:
    process = Process(300)
    process.steps(1)
    process.used_mib = 500
    process.steps(4)
    assert process.asked >= 1
    process.used_mib, process.kept_mib = 300, 200
    process.steps(8)
    assert process.kept_mib == 0


def test_what_the_node_needs_is_not_asked_for_again_and_again() -> None:
    process = Process(300)
    process.steps(1)
    process.used_mib = 500
    process.steps(4 * PAUSE_STEPS_MAX)
    asked = process.asked
    assert asked < 10
    process.steps(100)
    assert process.asked == asked
    process.kept_mib = GROWN_MIB + 1
    process.steps(1)
    assert process.asked == asked + 1 and process.kept_mib == 0


def test_a_burst_waits_for_no_pause_of_what_came_before() -> None:
    process = Process(300)
    process.steps(1)
    process.used_mib = 350
    process.steps(PAUSE_STEPS_MAX)
    process.used_mib = 550
    process.steps(1)
    process.used_mib, process.kept_mib = 350, 200
    process.steps(4)
    assert process.kept_mib == 0


def test_a_system_that_does_not_tell_is_left_alone() -> None:
    asked: list[int] = []
    role = SpareMemory(own_mib=lambda: None, give_back=lambda: not asked.append(1))
    asyncio.run(role.step())
    assert asked == []
