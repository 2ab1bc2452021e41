"""Clients: calls that are repeated with the same request id, here or at another node, until they are answered.

Checked here: an answer is the outcome that was applied, the entry lies after everything that was acknowledged
before the call began (linearizability in real time), and a confirmed read sees all of that too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iceprod_p2p.base.errors import IceProdError
from tests.simulation.cluster import Cluster
from tests.simulation.world import Violation

TRY_S = 3.0


class Calls:
    """Every call of a history."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._checks = cluster.checks
        self.acknowledged: dict[bytes, Any] = {}
        self.acknowledged_index = 1  # The highest entry of which anybody was told.
        self.open = 0
        self.retries = 0
        self.reads = 0
        self.reads_refused = 0

    def submit(self, request_id: bytes, body: bytes, node_id: str, done: Callable[[Any], None]) -> None:
        """Propose at `node_id`, and elsewhere when that fails; `done` gets the outcome."""
        self.open += 1
        _Call(self, request_id, body, node_id, done).attempt()

    def read(self, node_id: str, timeout_s: float = 5.0) -> None:
        """Ask one node for a linearizable read point, once."""
        floor = self.acknowledged_index
        process = self._cluster.processes[node_id]
        self.reads += 1

        def done(index: Any) -> None:
            if isinstance(index, IceProdError):
                self.reads_refused += 1
                return
            if index < floor:
                raise Violation(
                    f"a confirmed read at {node_id} saw entry {index}; {floor} was acknowledged before it began"
                )
            self.acknowledged_index = max(self.acknowledged_index, index)

        process.read_barrier(timeout_s, done)

    def answered(self, call: _Call, outcome: Any) -> None:
        """A call got its outcome."""
        checks, name = self._checks, call.request_id.hex()[:8]
        index = checks.index_of.get(call.request_id)
        if index is None:
            raise Violation(f"request {name} was acknowledged with {outcome}, but never applied")
        if checks.outcome_of[call.request_id] != outcome:
            raise Violation(
                f"request {name} was told {outcome}, but entry {index} gave {checks.outcome_of[call.request_id]}"
            )
        if index <= call.floor:
            raise Violation(
                f"request {name} began after entry {call.floor} was acknowledged, and was applied at {index}"
            )
        self.acknowledged[call.request_id] = outcome
        self.acknowledged_index = max(self.acknowledged_index, index)
        self.open -= 1
        call.done(outcome)


class _Call:
    """One call and its tries."""

    def __init__(
        self, calls: Calls, request_id: bytes, body: bytes, node_id: str, done: Callable[[Any], None]
    ) -> None:
        self.request_id = request_id
        self.floor = calls.acknowledged_index
        self.done = done
        self._calls = calls
        self._body = body
        self._node_id = node_id
        self._try = 0
        self._finished = False

    def attempt(self) -> None:
        """Try once; a silence longer than the time-out counts as a failure."""
        calls = self._calls
        world, cluster = calls._world, calls._cluster
        self._try += 1
        number = self._try
        if number > 1:
            calls.retries += 1
            if world.random.random() < 0.5:
                alive = cluster.alive()
                self._node_id = alive[world.random.randrange(len(alive))].node_id
        process = cluster.processes[self._node_id]
        world.after(TRY_S + 0.5, self._silent, number)
        process.propose(self.request_id, self._body, TRY_S, lambda outcome: self._hear(number, outcome))

    def _hear(self, number: int, outcome: Any) -> None:
        if self._finished:
            return
        if isinstance(outcome, IceProdError):
            self._again(number)
            return
        self._finished = True
        self._calls.answered(self, outcome)

    def _silent(self, number: int) -> None:
        self._again(number)

    def _again(self, number: int) -> None:
        if not self._finished and number == self._try:
            self._try += 1  # A late answer to this try still counts; its silence does not.
            world = self._calls._world
            world.after(0.05 + 0.3 * world.random.random(), self._retry, self._try)

    def _retry(self, number: int) -> None:
        if not self._finished and number == self._try:
            self.attempt()
