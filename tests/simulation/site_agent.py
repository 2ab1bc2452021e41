"""One site of a history: the node's real roles (timekeeper, heartbeat, volunteer) and the pilots of its grid.

The roles live and die with the node's process.  The pilots do not: they go on running, and report to another
node when their own does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import FailTask, TaskRef
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.resources import Offer
from iceprod_p2p.model.site import SiteCounts
from iceprod_p2p.model.states import FailReason, SiteState
from iceprod_p2p.site.cluster_view import ClusterView
from iceprod_p2p.site.plans.claims import ClassCapacity
from iceprod_p2p.site.plans.orders import Candidate
from iceprod_p2p.site.timekeeper import SiteHeartbeat, Timekeeper
from iceprod_p2p.site.volunteer import Volunteer
from tests.simulation.awaiting import NodeDoor, run
from tests.simulation.process import Process
from tests.simulation.world import World

VOUCH_S = 10.0


class SimulatedView(ClusterView):
    """What the roles read, without certificates."""

    def __init__(self, door: NodeDoor, process: Process) -> None:
        super().__init__(door, None, cluster="icecube", clock=process.clock)  # type: ignore[arg-type]

    def knows(self, node_id: str) -> bool:
        with self._raft.view() as kv:
            return queries.node(kv, node_id) is not None

    def draining(self, site: str) -> bool:
        with self._raft.view() as kv:
            record = Tables(kv).site(site)
        return record is None or record.state is not SiteState.ACTIVE

    def term(self) -> int:
        return int(self._raft.status().term)

    def idle_claims_elsewhere(self, site: str) -> bool:
        with self._raft.view() as kv:
            t = Tables(kv)
            own, last = t.site(site), t.cluster.sites if t.cluster is not None else 0
            others = (number for number in range(1, last + 1) if own is None or number != own.number)
            return any(tally.claimed + tally.queued > 0 for tally in map(t.site_tally, others))


class _Stock:
    """Stands for `site.stock.Stock`: pilots ask the ledger's table directly."""

    def refresh(self) -> None:
        """Nothing is kept."""


class _Capacity:
    """Stands for `site.capacity.Capacity`: one class, as many slots as the site has pilots."""

    def __init__(self, slots: Callable[[], int]) -> None:
        self._slots = slots

    def classes(self) -> list[ClassCapacity]:
        offer = Offer("default", 0, cpus=8, memory_mib=8_192, disk_mib=65_536, walltime_s=86_400)
        return [ClassCapacity(offer, self._slots(), 0)]


class SiteAgent:
    """What a node does beside consensus, in one process's life after the other."""

    def __init__(self, world: World, process: Process, site: str, slots: int, *, pace_s: float) -> None:
        self.world = world
        self.process = process
        self.site = site
        self.slots = slots
        self.door = NodeDoor(process, world.identifier)
        self.view = SimulatedView(self.door, process)
        self._pace_s = pace_s
        self._vouched: dict[TaskRef, float] = {}
        self._reserved: set[TaskRef] = set()
        self._busy: set[str] = set()
        self.lost: list[tuple[TaskRef, str]] = []  # What pilots held that are gone; the grid knows it.
        process.on_boot.append(self._begin)
        if process.engine is not None:
            self._begin()

    @property
    def name(self) -> str:
        """The node's name."""
        return self.process.node_id

    @property
    def up(self) -> bool:
        """Whether the node answers."""
        return self.process.up and not self.process.paused

    @property
    def is_member(self) -> bool:
        """Whether the node knows that it belongs to the cluster: pilots are told of members only."""
        return self.view.knows(self.name)

    def _begin(self) -> None:
        """Start the roles of a new process."""
        self._vouched.clear()
        self._reserved.clear()
        self._busy.clear()
        process, clock = self.process, self.process.clock
        self.view = SimulatedView(self.door, process)
        timekeeper = Timekeeper(
            node_id=self.name, consensus=_TickDoor(self.door, self.world), cluster=self.view, clock=clock
        )
        heartbeat = SiteHeartbeat(
            site=self.site,
            node_id=self.name,
            consensus=self.door,
            cluster=self.view,
            counts=SiteCounts,
            vouched=self._vouched_now,
        )
        volunteer = Volunteer(
            site=self.site,
            node_id=self.name,
            ahead=0.5,
            pause_s=1.0,
            capacity=_Capacity(lambda: self.slots),  # type: ignore[arg-type]
            stock=_Stock(),  # type: ignore[arg-type]
            consensus=self.door,
            cluster=self.view,
            clock=clock,
            has_disk=lambda: True,
            granted=lambda: None,
        )
        life = process.life
        # As often as a node's configuration has it, unless told otherwise.
        self._repeat("tick", life, 0.5, timekeeper.tick)
        self._repeat("heartbeat", life, self._pace_s, heartbeat.beat)
        self._repeat("volunteer", life, 1.0, volunteer.step)
        self._repeat("lost pilots", life, 2.0, self._report_lost)

    def _repeat(self, role: str, life: Any, interval_s: float, step: Callable[[], Any]) -> None:
        """Run a role's step again and again while its process lives; never two at once."""

        def again() -> None:
            if life is not self.process.life or not self.process.up:
                return
            self.world.after(interval_s * (0.9 + 0.2 * self.world.random.random()), again)
            if not self.process.paused and role not in self._busy:
                self._busy.add(role)
                run(self.world, self.name, step(), lambda: self._busy.discard(role))

        self.world.after(interval_s * self.world.random.random(), again)

    def _vouched_now(self) -> tuple[TaskRef, ...]:
        now = self.world.now
        self._vouched = {ref: until for ref, until in self._vouched.items() if until > now}
        return tuple(self._vouched)

    def vouch(self, ref: TaskRef) -> None:
        """A pilot of another site reports here: this node's heartbeat speaks for its attempt."""
        self._vouched[ref] = self.world.now + VOUCH_S

    async def _report_lost(self) -> None:
        """Report what pilots held whose grid jobs have ended."""
        if not self.lost:
            return
        await self.door.barrier(3.0)  # A start that this node has not heard of yet must not be passed over.
        held = {task.ref for task in self.view.running(self.site)}
        for ref, pilot in list(self.lost):
            if ref in held:
                command = FailTask(
                    ref, b"", self.site, FailReason.PILOT_LOST, message=f"pilot {pilot} is gone"
                )
                await self.door.propose(command, actor=f"node:{self.name}", timeout_s=3.0)
            if (ref, pilot) in self.lost:
                self.lost.remove((ref, pilot))

    def choose(self) -> Candidate | None:
        """Set one claimed attempt aside for a pilot; None when there is none."""
        if not self.up:
            return None
        waiting: Sequence[Candidate] = self.view.claimed(self.site)
        for candidate in waiting:
            if candidate.ref not in self._reserved:
                self._reserved.add(candidate.ref)
                return candidate
        return None


class _TickDoor:
    """A door whose request ids tell the checkers that nothing remembers them."""

    def __init__(self, door: NodeDoor, world: World) -> None:
        self._door = door
        self._world = world

    @property
    def is_leader(self) -> bool:
        return self._door.is_leader

    async def propose(self, command: Any, *, actor: str, timeout_s: float) -> Any:
        request_id = b"tick" + self._world.random.randbytes(12)
        return await self._door.propose(command, actor=actor, request_id=request_id, timeout_s=timeout_s)
