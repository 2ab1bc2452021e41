"""Which accepted task runs when: in the order of arrival, as many at once as slots, cores, GPUs, memory and disk allow.

One thread per slot; a thread that ends a task takes the next one by itself, without waiting for the exchange with the
node.  While tasks are short, some more are asked for than can run, so that none of the slots waits for a round trip.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.wire.pb import pilot_pb2
from iceprod_pilot.attempt import Attempt
from iceprod_pilot.report import Ref

LOOKAHEAD_S: Final = 0.5  # Tasks are held ready for so long: several round trips to a node.
LOOKAHEAD_MAX: Final = 64  # Per slot.
_SMOOTHING: Final = 0.2  # Weight of the newest task's duration.


class _Use(NamedTuple):
    cpus: int
    gpus: int
    memory_mib: int
    disk_mib: int


class Slots:
    """Accepted tasks, waiting and running.  Thread-safe.

    `run` performs one attempt on a slot's thread and never raises; `close` ends the threads when nothing runs.
    """

    def __init__(
        self,
        *,
        slots: int,
        cpus: int,
        gpus: Sequence[str],
        memory_mib: int,
        disk_mib: int,
        run: Callable[[Attempt], None],
        clock: Clock,
    ) -> None:
        self._slots = slots
        self._total = _Use(cpus, len(gpus), memory_mib, disk_mib)
        self._gpus_free = list(gpus)
        self._run = run
        self._clock = clock
        self._waiting: deque[Attempt] = deque()
        self._running: dict[Ref, Attempt] = {}
        self._threads = 0
        self._closed = False
        self._duration_s = float("inf")  # Until a task has ended nothing is asked for in advance.
        self._changed = threading.Condition()

    def accept(self, *attempts: Attempt) -> None:
        """Queue attempts; each starts when it fits."""
        with self._changed:
            for attempt in attempts:
                self._waiting.append(attempt)
                if self._threads < self._slots and len(self._running) + len(self._waiting) > self._threads:
                    self._threads += 1
                    threading.Thread(target=self._work, name=f"slot-{self._threads}", daemon=True).start()
            self._changed.notify(len(attempts))

    def withdraw(self) -> list[Attempt]:
        """Take back everything that has not started and return it."""
        with self._changed:
            waiting = list(self._waiting)
            self._waiting.clear()
            return waiting

    def remove(self, ref: Ref) -> Attempt | None:
        """Take an attempt out of the queue, if it stands there."""
        with self._changed:
            for attempt in self._waiting:
                if attempt.ref == ref:
                    self._waiting.remove(attempt)
                    return attempt
        return None

    def find(self, ref: Ref) -> Attempt | None:
        """Return an attempt that waits or runs."""
        with self._changed:
            return self._running.get(ref) or next((a for a in self._waiting if a.ref == ref), None)

    def attempts(self) -> list[Attempt]:
        """Return everything that runs, then everything that waits."""
        with self._changed:
            return [*self._running.values(), *self._waiting]

    def ready_s(self) -> float:
        """Return for about how long what waits will keep the slots busy; 0 until a task has ended."""
        with self._changed:
            if self._duration_s == float("inf"):
                return 0.0
            return len(self._waiting) * self._duration_s / self._slots

    def refs(self) -> set[Ref]:
        """Return which attempts run or wait."""
        return {attempt.ref for attempt in self.attempts()}

    @property
    def running(self) -> int:
        """How many attempts run now."""
        return len(self._running)

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._running or self._waiting)

    def free(self) -> pilot_pb2.Free:
        """Return what further orders may use, what is asked for in advance included."""
        with self._changed:
            ahead = self._ahead()
            held = [*self._running.values(), *self._waiting]
            slots = max(0, self._slots + ahead - len(held))
            # Each task asked for in advance may be as large as one slot's share.
            share = (self._slots + ahead) / self._slots
            used = _sum(held)
            return pilot_pb2.Free(
                slots=slots,
                cpus=max(0, int(self._total.cpus * share) - used.cpus),
                gpus=max(0, self._total.gpus - used.gpus),
                memory_mib=max(0, int(self._total.memory_mib * share) - used.memory_mib),
                disk_mib=max(0, int(self._total.disk_mib * share) - used.disk_mib),
            )

    def close(self) -> None:
        """Let every thread end after what it runs."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing runs; return whether that came true in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout=seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._head_fits())
                if self._closed:
                    return
                attempt = self._waiting.popleft()
                attempt.gpus = tuple(self._gpus_free.pop(0) for _ in range(self._gpus_of(attempt)))
                self._running[attempt.ref] = attempt
                self._changed.notify()
            started_s = self._clock.monotonic_s()
            try:
                self._run(attempt)
            finally:
                with self._changed:
                    self._running.pop(attempt.ref, None)
                    self._gpus_free.extend(attempt.gpus)
                    self._note_duration(self._clock.monotonic_s() - started_s)
                    self._changed.notify_all()

    def _head_fits(self) -> bool:
        """Whether the oldest waiting task fits beside what runs.

        One that is larger than the pilot runs when nothing else does: the node that gave it will have known why.
        """
        if not self._waiting or len(self._running) >= self._slots:
            return False
        if not self._running:
            return True
        sum_of_all = _sum([*self._running.values(), self._waiting[0]])
        return (
            sum_of_all.cpus <= self._total.cpus
            and sum_of_all.gpus <= self._total.gpus
            and sum_of_all.memory_mib <= self._total.memory_mib
            and sum_of_all.disk_mib <= self._total.disk_mib
        )

    def _gpus_of(self, attempt: Attempt) -> int:
        return min(attempt.order.requirements.gpus, len(self._gpus_free))

    def _note_duration(self, duration_s: float) -> None:
        if self._duration_s == float("inf"):
            self._duration_s = duration_s
        self._duration_s += _SMOOTHING * (duration_s - self._duration_s)

    def _ahead(self) -> int:
        per_slot = min(LOOKAHEAD_MAX, int(LOOKAHEAD_S / max(self._duration_s, 1e-3)))
        return self._slots * per_slot


def _sum(attempts: Sequence[Attempt]) -> _Use:
    cpus = gpus = memory_mib = disk_mib = 0
    for attempt in attempts:
        want = attempt.order.requirements
        cpus += want.cpus
        gpus += want.gpus
        memory_mib += want.memory_mib
        disk_mib += want.disk_mib
    return _Use(cpus, gpus, memory_mib, disk_mib)
