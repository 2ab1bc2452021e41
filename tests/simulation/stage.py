"""A cluster of counters on which a scenario is played: the hands that cut, hold back, deliver and wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iceprod_p2p.raft.messages import Message, decode, encode
from iceprod_p2p.raft.settings import RaftSettings
from tests.simulation.checks import Checks
from tests.simulation.cluster import Cluster
from tests.simulation.counter import CounterMachine, proposal
from tests.simulation.process import Process
from tests.simulation.profile import Profile
from tests.simulation.world import Violation, World

Frame = tuple[str, str, bytes]


class Stage:
    """A cluster of counters without chance faults, and the hands that play a scenario on it."""

    def __init__(self, seed: int, voters: int, *, delay_s: float = 0.002, **settings: Any) -> None:
        self.world = World(seed)
        self.checks = Checks(self.world)
        self.machine = CounterMachine()
        profile = Profile(
            production=False,
            grace_s=3.0,
            voters=voters,
            observers=0,
            delay_s=delay_s,
            jitter_s=0.0,
            loss=0.0,
            double=0.0,
            straggle=0.0,
            in_order=True,
            rate_bytes_per_s=1e9,
            fsync_s=0.0,
            clock_drift=0.0,
            faults=(),
            fault_interval_s=1.0,
            faults_for_s=0.0,
            settle_s=30.0,
            clients=0,
            client_pause_s=0.0,
            command_bytes=0,
            settings=RaftSettings(**settings),
        )
        self.cluster = Cluster(self.world, profile, self.machine, self.checks)
        self.cluster.found()
        self.network = self.cluster.network

    def node(self, name: str) -> Process:
        """Return a node by name."""
        return self.cluster.processes[name]

    def engine(self, name: str) -> Any:
        """Return the engine of a node that runs."""
        engine = self.node(name).engine
        assert engine is not None, f"{name} is down"
        return engine

    def until(self, what: str, holds: Callable[[], Any], limit_s: float = 20.0) -> None:
        """Let time pass until something holds; a scenario that gets stuck is a violation."""
        if not self.world.run_until(self.world.now + limit_s, lambda: bool(holds())):
            raise Violation(f"after {limit_s:.0f} s it is still not true that {what}")

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now + seconds)

    def lead(self, name: str) -> None:
        """Make a node the leader, by hand-over."""
        self.until("somebody leads", self.cluster.leader)
        for _ in range(5):
            leader = self.cluster.leader()
            if leader is not None and leader.engine is not None and leader.node_id != name:
                leader.engine.transfer(name)
                leader.poke()
            if self.world.run_until(self.world.now + 3.0, lambda: self.leads(name)):
                return
        raise Violation(f"leadership could not be handed to {name}")

    def leads(self, name: str) -> bool:
        """Whether a node leads and its first entry is applied."""
        engine = self.node(name).engine
        return engine is not None and engine.is_leader and engine.core.applied >= engine.core.noop_index

    def add(self, name: str, count: int = 1, size: int = 0) -> None:
        """Propose additions at a node, each an entry of its own."""
        for _ in range(count):
            request_id = self.world.identifier()
            body = proposal(request_id, ["add", "c", 1, "x" * size])
            self.node(name).propose(request_id, body, 5.0, lambda outcome: None)
            self.wait(0.004)

    def cut(self, *names: str) -> None:
        """Cut nodes off from all others, but not from each other."""
        for one in self.cluster.processes:
            for other in self.cluster.processes:
                if one != other and (one in names) != (other in names):
                    self.network.cut(one, other, holds=False)

    def heal(self) -> None:
        """Mend every link."""
        self.network.heal_all()

    def keep(self, wanted: Callable[[str, str, Message], bool]) -> list[Frame]:
        """Take frames off the wire from now on; they are in the list that is returned."""
        kept: list[Frame] = []

        def intercept(source: str, target: str, frame: bytes) -> bool:
            if not wanted(source, target, decode(frame)):
                return False
            kept.append((source, target, frame))
            return True

        self.network.intercept = intercept
        return kept

    def deliver(self, kept: list[Frame]) -> None:
        """Deliver frames that were kept."""
        for source, target, frame in kept:
            self.node(target).receive(source, frame)
        self.wait(0.01)

    def say(self, source: str, target: str, message: Message) -> None:
        """Deliver a message as if `source` had sent it."""
        self.node(target).receive(source, encode(message))
        self.wait(0.01)
