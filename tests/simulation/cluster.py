"""The nodes of one history and how they are founded, joined and found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft.founding import found, prepare_joiner
from tests.simulation.checks import Checks
from tests.simulation.network import Life, Link, Network
from tests.simulation.process import NodeClock, Process
from tests.simulation.profile import Profile
from tests.simulation.world import World


class Cluster:
    """All processes by node id, running or not."""

    def __init__(self, world: World, profile: Profile, machine: Any, checks: Checks) -> None:
        self.world = world
        self.profile = profile
        self.machine = machine
        self.checks = checks
        self.network = Network(world)
        self.network.arrive = self._arrive
        self.processes: dict[str, Process] = {}
        self.calm = False  # Faults are over: new nodes and links are healthy.
        self.on_new: list[Callable[[Process], None]] = []

    def found(self) -> None:
        """Make the first members; the first of them holds the cluster's first entry."""
        profile = self.profile
        count = profile.voters + profile.observers
        members = [
            Member(
                f"n{number}",
                f"site{number}",
                f"n{number}:1",
                MemberRole.VOTER if number <= profile.voters else MemberRole.OBSERVER,
            )
            for number in range(1, count + 1)
        ]
        for member in members:
            process = self.add(member.node_id)
            if member is members[0]:
                found(
                    process.disk,  # type: ignore[arg-type]
                    member.node_id,
                    self.machine.genesis(members),
                    apply=process.apply,  # type: ignore[arg-type]
                )
            else:
                prepare_joiner(process.disk, member.node_id)  # type: ignore[arg-type]
        for process in self.processes.values():
            process.boot()

    def add(self, node_id: str) -> Process:
        """Make a node with an empty disk, and its links."""
        random, profile = self.world.random, self.profile
        clock = NodeClock(
            self.world,
            offset_s=1e5 * random.random(),
            rate=1 + profile.clock_drift * (2 * random.random() - 1),
        )
        made = Process(self.world, node_id, self.network, self.machine, profile.settings, self.checks, clock)
        made.disk.fsync_s = profile.fsync_s
        for other in self.processes:
            for pair in ((other, node_id), (node_id, other)):
                self.network.links[pair] = self.healthy_link()
        self.processes[node_id] = made
        made.on_boot.append(lambda: self._connect(made))
        for act in self.on_new:
            act(made)
        return made

    def _connect(self, process: Process) -> None:
        """The links of a process that has just begun come up, one after the other, and both ends notice."""
        for name in sorted(self.processes):
            if name != process.node_id:
                pause_s = 0.001 + 0.2 * self.world.random.random()
                self.world.after(pause_s, self._notice, process.node_id, name, process.life)

    def _notice(self, name: str, other: str, life: Life) -> None:
        here, there = self.processes[name], self.processes[other]
        if here.life is life and here.up and there.up and not self.network.link(name, other).cut:
            here.link_changed(other)
            there.link_changed(name)

    def healthy_link(self) -> Link:
        """Return a link as the profile has them."""
        profile = self.profile
        return Link(
            delay_s=profile.delay_s,
            jitter_s=profile.jitter_s,
            loss=profile.loss,
            double=profile.double,
            straggle=profile.straggle,
            rate_bytes_per_s=profile.rate_bytes_per_s,
            in_order=profile.in_order,
        )

    def _arrive(self, source: str, target: str, frame: bytes) -> None:
        process = self.processes.get(target)
        if process is not None:
            self.world.trace_frame(source, target, frame)
            process.receive(source, frame)

    # Who is there.

    def running(self) -> list[Process]:
        """Processes whose Raft part works, in order of their names."""
        return [process for _, process in sorted(self.processes.items()) if process.up]

    def alive(self) -> list[Process]:
        """Nodes that have not left for ever."""
        return [process for _, process in sorted(self.processes.items()) if not process.gone]

    def leader(self) -> Process | None:
        """The leader of the highest term, if one runs."""
        leaders = [
            (process.engine.core.term, process.node_id)
            for process in self.running()
            if process.engine is not None and process.engine.is_leader
        ]
        return self.processes[max(leaders)[1]] if leaders else None

    def members(self) -> dict[str, Member]:
        """The members as the most advanced replica knows them."""
        best = max(self.processes.values(), key=self.applied_index)
        with best.disk.image.read() as snapshot:
            return {member.node_id: member for member in self.machine.read_members(snapshot.ledger)}

    def applied_index(self, process: Process) -> tuple[int, str]:
        """Return where a node's tables stand, and its name to break ties."""
        with process.disk.image.read() as snapshot:
            return self.machine.applied_index(snapshot.ledger), process.node_id

    def ledger_time_ms(self, process: Process) -> int:
        """Return the ledger time as a node knows it."""
        with process.disk.image.read() as snapshot:
            return int(self.machine.ledger_time_ms(snapshot.ledger))

    def voters(self) -> list[str]:
        """The voters' names, in order."""
        return sorted(name for name, member in self.members().items() if member.role is MemberRole.VOTER)

    def converged(self, index: int) -> bool:
        """Whether one leads, and every member runs and has applied at least entry `index`."""
        leader = self.leader()
        if leader is None or leader.engine is None:
            return False
        for name in leader.engine.context.members:
            process = self.processes[name]
            engine = process.engine
            if not process.up or engine is None or process.paused or engine.core.applied < index:
                return False
        return True
