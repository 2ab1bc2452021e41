"""One history from its seed: found, work under faults, mend, converge, compare."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.calls import Calls
from tests.simulation.checks import Checks
from tests.simulation.cluster import Cluster
from tests.simulation.counter import CounterMachine
from tests.simulation.counting import CounterMembers, CounterWork
from tests.simulation.ledger_watch import LedgerWatch
from tests.simulation.ledger_work import LedgerCalls, LedgerWork
from tests.simulation.members import MemberCommands, Operator
from tests.simulation.nemesis import Nemesis
from tests.simulation.production import LedgerMachine, LedgerMembers
from tests.simulation.profile import Profile, draw
from tests.simulation.virtual import virtual_time
from tests.simulation.world import Violation, World

STORY_LINES = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one history gave; `violation` is empty when nothing was wrong."""

    seed: int
    profile: Profile
    violation: str
    story: str
    trace: str
    virtual_s: float
    real_s: float
    ticks: int
    entries: int
    acknowledged: int
    retries: int
    reads: int
    terms: int
    boots: int

    @property
    def speed(self) -> float:
        """Virtual seconds per real second."""
        return self.virtual_s / self.real_s if self.real_s else 0.0


class History:
    """One run of one seed."""

    def __init__(self, seed: int, profile: Profile | None = None) -> None:
        self.seed = seed
        self.profile = profile or draw(Random(f"profile {seed}"))
        self.world = World(seed)
        self.checks = Checks(self.world)
        self._target = 0

    def run(self) -> Outcome:
        """Run it; a violation or any exception of the code under test is reported, not raised."""
        started = time.process_time()
        violation = ""
        with virtual_time(self.world):
            try:
                self.build()
                self._play()
            except Violation as fact:
                violation = str(fact)
            except Exception as error:  # Whatever escapes from the code under test is a finding.
                violation = f"{type(error).__name__}: {error}"
                self.trouble = error
        return self._outcome(violation, time.process_time() - started)

    def build(self) -> None:
        """Make the cluster and its work."""
        profile = self.profile
        machine: Any = CounterMachine()
        if profile.production:
            machine = LedgerMachine(site_grace_ms=int(profile.grace_s * 1_000))
            self.checks.watchers.append(LedgerWatch(self.world).look)
        self.cluster = Cluster(self.world, profile, machine, self.checks)
        self.cluster.found()
        if profile.production:
            self.calls = calls = LedgerCalls(self.cluster)
            self.work: Any = LedgerWork(self.cluster, calls, grace_s=profile.grace_s)
            members: MemberCommands = LedgerMembers()
        else:
            self.calls = Calls(self.cluster)
            self.work = CounterWork(self.cluster, self.calls)
            members = CounterMembers()
        self.operator = Operator(self.cluster, self.calls, members)
        self.nemesis = Nemesis(self.cluster, self.operator)

    def _play(self) -> None:
        world, profile = self.world, self.profile
        self.work.begin()
        self.nemesis.begin(until_s=profile.faults_for_s)
        world.run_until(profile.faults_for_s)
        self.nemesis.end()
        self.work.stop()
        deadline = world.now + profile.settle_s
        while not self._settled():
            if world.now >= deadline:
                raise Violation(f"{profile.settle_s:.0f} s after the last fault: {self._what_is_missing()}")
            world.run_until(min(world.now + 0.5, deadline))
        self._check_end()

    def _settled(self) -> bool:
        """Whether all work is done, and every member has applied what the leader held when it was."""
        if not self.work.done() or not self.operator.done or self.nemesis.missing():
            self._target = 0
            return False
        leader = self.cluster.leader()
        if not self._target and leader is not None and leader.engine is not None:
            self._target = leader.engine.journal.last_index
        return bool(self._target) and self.calls.open == 0 and self.cluster.converged(self._target)

    def _what_is_missing(self) -> str:
        leader = self.cluster.leader()
        stands = ", ".join(
            f"{process.node_id} {process.engine.core.role.name.lower()} of term {process.engine.core.term} "
            f"applied {process.engine.core.applied}/{process.engine.core.commit}/{process.engine.journal.last_index}"
            if process.engine is not None
            else f"{process.node_id} down ({process.refused})"
            for process in self.cluster.alive()
        )
        return (
            f"{self.calls.open} calls unanswered, {self.work.missing()}, {self.nemesis.missing()}, "
            f"leader {leader.node_id if leader else 'none'}, "
            f"members {sorted(self.cluster.members())}: {stands}"
        )

    def _check_end(self) -> None:
        """Nothing that was ever applied is missing in the end; the tables were compared at every entry."""
        leader = self.cluster.leader()
        assert leader is not None and leader.engine is not None
        if leader.engine.journal.last_index < self.checks.last:
            raise Violation(
                f"entry {self.checks.last} was applied; the log ends at {leader.engine.journal.last_index}"
            )
        self.work.check_end()

    def _outcome(self, violation: str, real_s: float) -> Outcome:
        world = self.world
        processes = self.cluster.processes.values() if hasattr(self, "cluster") else ()
        return Outcome(
            seed=self.seed,
            profile=self.profile,
            violation=violation,
            story=self.story() if violation else "",
            trace=world.trace_digest(),
            virtual_s=world.now,
            real_s=real_s,
            ticks=world.ticks,
            entries=self.checks.last,
            acknowledged=len(self.calls.acknowledged) if hasattr(self, "calls") else 0,
            retries=self.calls.retries if hasattr(self, "calls") else 0,
            reads=self.calls.reads if hasattr(self, "calls") else 0,
            terms=max(self.checks.leaders, default=0),
            boots=sum(process.boots for process in processes),
        )

    def story(self, lines: int = STORY_LINES) -> str:
        """Return the last events, one line each: when, who, what."""
        told = list(self.world.story)[-lines:]
        return "\n".join(
            f"{when:10.4f} s  {who:9} {what}"
            + "".join(f"  {name}={value}" for name, value in sorted(fields.items()))
            for when, who, what, fields in told
        )
