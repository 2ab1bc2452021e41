"""Tasks start in their order, as many at once as fit, and free room is told truly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import pytest
from iceprod_pilot.attempt import Attempt
from iceprod_pilot.report import Ref
from iceprod_pilot.slots import Slots

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2


class Bench:
    """Slots whose attempts run until they are let go."""

    def __init__(self, slots: int = 2, cpus: int = 4, gpus: tuple[str, ...] = ()) -> None:
        self.clock = ManualClock()
        self.started: list[int] = []
        self.gates: dict[int, threading.Event] = {}
        self.changed = threading.Condition()
        self.slots = Slots(
            slots=slots,
            cpus=cpus,
            gpus=gpus,
            memory_mib=1_000,
            disk_mib=1_000,
            run=self.run,
            clock=self.clock,
        )

    def run(self, attempt: Attempt) -> None:
        with self.changed:
            self.started.append(attempt.ref.job)
            self.changed.notify_all()
        self.gates[attempt.ref.job].wait(120)

    def give(self, job: int, **need: int) -> Attempt:
        amounts = {"cpus": 1, "memory_mib": 100, "disk_mib": 100, **need}
        order = pilot_pb2.Order(
            ref=Ref(1, job, 0, 0).message(), requirements=common_pb2.Requirements(**amounts)
        )
        attempt = Attempt(order)
        self.gates[job] = threading.Event()
        self.slots.accept(attempt)
        return attempt

    def expect(self, *groups: set[int]) -> None:
        """Wait until these have started, group after group; who starts at the same time comes in either order."""
        jobs = sum(map(len, groups))
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.started) >= jobs, 60), self.started
        left = iter(self.started)
        assert [set(islice(left, len(group))) for group in groups] == list(groups)
        assert not list(left), self.started


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for gate in bench.gates.values():
        gate.set()
    bench.slots.close()


def test_as_many_run_as_there_are_slots_and_the_next_follows_by_itself(bench: Bench) -> None:
    for job in range(3):
        bench.give(job)
    bench.expect({0, 1})
    assert bench.slots.running == 2
    bench.gates[0].set()
    bench.expect({0, 1}, {2})


def test_a_large_task_waits_until_it_fits_and_nobody_overtakes_it(bench: Bench) -> None:
    bench.give(0, cpus=2)
    bench.expect({0})
    bench.give(1, cpus=3)
    bench.give(2, cpus=1)
    assert bench.started == [0]
    bench.gates[0].set()
    bench.expect({0}, {1, 2})


def test_a_task_larger_than_the_pilot_runs_alone(bench: Bench) -> None:
    bench.give(0, cpus=99)
    bench.expect({0})


def test_free_room_shrinks_by_what_runs_and_waits(bench: Bench) -> None:
    assert (bench.slots.free().slots, bench.slots.free().cpus) == (2, 4)
    bench.give(0, cpus=3, memory_mib=600)
    bench.expect({0})
    free = bench.slots.free()
    assert (free.slots, free.cpus, free.memory_mib, free.disk_mib) == (1, 1, 400, 900)


def test_nothing_is_asked_for_in_advance_while_tasks_are_long(bench: Bench) -> None:
    bench.give(0)
    bench.expect({0})
    bench.clock.advance(60)
    bench.gates[0].set()
    assert bench.slots.wait_idle(60)
    assert bench.slots.free().slots == 2


def test_short_tasks_are_asked_for_in_advance(bench: Bench) -> None:
    bench.give(0)
    bench.expect({0})
    bench.clock.advance(0.125)
    bench.gates[0].set()
    assert bench.slots.wait_idle(60)
    free = bench.slots.free()
    assert free.slots == 2 + 2 * 4
    assert free.cpus == 4 * 5


def test_what_has_not_started_can_be_taken_back(bench: Bench) -> None:
    for job in range(4):
        bench.give(job)
    bench.expect({0, 1})
    assert bench.slots.remove(Ref(1, 3, 0, 0)) is not None
    assert [attempt.ref.job for attempt in bench.slots.withdraw()] == [2]
    assert bench.slots.find(Ref(1, 2, 0, 0)) is None
    assert bench.slots.find(Ref(1, 1, 0, 0)) is not None


def test_gpus_are_given_by_name_and_come_back() -> None:
    bench = Bench(slots=3, gpus=("GPU-a", "GPU-b"))
    first, second = bench.give(0, gpus=1), bench.give(1, gpus=1)
    bench.expect({0, 1})
    assert sorted((*first.gpus, *second.gpus)) == ["GPU-a", "GPU-b"]
    third = bench.give(2, gpus=2)
    bench.gates[0].set()
    bench.gates[1].set()
    bench.expect({0, 1}, {2})
    assert sorted(third.gpus) == ["GPU-a", "GPU-b"]
    bench.gates[2].set()
    bench.slots.close()


def test_it_tells_which_attempts_it_has_and_for_how_long_they_last(bench: Bench) -> None:
    assert bench.slots.ready_s() == 0
    for job in range(3):
        bench.give(job)
    bench.expect({0, 1})
    assert {ref.job for ref in bench.slots.refs()} == {0, 1, 2}
    assert bench.slots.ready_s() == 0, "nothing has ended, so nobody knows how long tasks take"
    bench.clock.advance(8)
    bench.gates[0].set()
    bench.expect({0, 1}, {2})
    bench.give(3)
    assert bench.slots.ready_s() == pytest.approx(1 * 8 / 2)
    for gate in bench.gates.values():
        gate.set()
