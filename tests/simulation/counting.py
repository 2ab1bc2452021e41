"""The workload on counters: every client adds to its own counter, one call after the other, and checks each answer."""

from __future__ import annotations

from typing import Any

from iceprod_p2p.model.site import Member
from tests.simulation.calls import Calls
from tests.simulation.cluster import Cluster
from tests.simulation.counter import proposal
from tests.simulation.world import Violation

CALLS_MAX = 1_000  # In one history: beyond it clients only call now and then.


class CounterMembers:
    """Member changes for the counter machine."""

    def join(self, member: Member) -> list[tuple[str, Any]]:
        return [("operator", ["member", member.node_id, str(member.role)])]

    def promote(self, node_id: str) -> list[tuple[str, Any]]:
        return [("operator", ["member", node_id, "voter"])]

    def remove(self, node_id: str) -> list[tuple[str, Any]]:
        return [("operator", ["member", node_id, ""])]

    def encode(self, request_id: bytes, actor: str, command: Any, made_at_ms: int) -> bytes:
        return proposal(request_id, command)


class CounterWork:
    """Clients that add and readers that ask for confirmed reads, until told to stop."""

    def __init__(self, cluster: Cluster, calls: Calls) -> None:
        self._cluster = cluster
        self._calls = calls
        self._world = cluster.world
        self._stopped = False
        self.totals: dict[str, int] = {}

    def begin(self) -> None:
        """Start every client."""
        random = self._world.random
        for number in range(self._cluster.profile.clients):
            name = f"c{number}"
            self.totals[name] = 0
            self._world.after(random.random(), self._add, name)
        self._world.after(1.0, self._read)

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True

    def done(self) -> bool:
        """Whether every call was answered."""
        return self._calls.open == 0

    def missing(self) -> str:
        """Say what has not ended."""
        return ""

    def _add(self, name: str) -> None:
        if self._stopped:
            return
        random = self._world.random
        request_id, n = self._world.identifier(), random.randrange(1, 10)
        command: list[Any] = ["add", name, n, "x" * self._cluster.profile.command_bytes]
        if random.random() < 0.02:
            command = ["nonsense"]
        body = proposal(request_id, command)
        alive = self._cluster.alive()
        node_id = alive[random.randrange(len(alive))].node_id
        self._calls.submit(request_id, body, node_id, lambda outcome: self._added(name, n, outcome))

    def _added(self, name: str, n: int, outcome: Any) -> None:
        if outcome[0] == "applied":
            self.totals[name] += n
            if outcome[1] != self.totals[name]:
                raise Violation(f"client {name} expected {self.totals[name]} and was told {outcome[1]}")
        pause_s = self._cluster.profile.client_pause_s
        if len(self._calls.acknowledged) > CALLS_MAX:
            pause_s = 0.5
        self._world.after(0.001 + pause_s * 2 * self._world.random.random(), self._add, name)

    def _read(self) -> None:
        if self._stopped:
            return
        alive = self._cluster.alive()
        self._calls.read(self._world.random.choice(alive).node_id)
        self._world.after(self._world.random.expovariate(1.0), self._read)

    def check_end(self) -> None:
        """Every replica's counters are what the clients were told."""
        for process in self._cluster.running():
            with process.disk.image.read() as snapshot:
                held = self._cluster.machine.counters(snapshot.ledger)
            wanted = {name: total for name, total in self.totals.items() if total}
            if process.node_id in self._cluster.members() and held != wanted:
                raise Violation(f"{process.node_id} holds {held}; the clients were told {wanted}")
