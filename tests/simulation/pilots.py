"""Pilots: take one attempt after the other, run it, and report until somebody has answered.

They outlive their node.  Some fail, some die without a word, some sleep until long after their lease and then
report as if nothing had happened.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from iceprod_p2p.ledger.commands import (
    Command,
    CopyTask,
    FailTask,
    FinishTask,
    StartTasks,
    TaskRef,
    TaskStart,
)
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.resources import Usage
from iceprod_p2p.model.states import FailReason
from tests.simulation.calls import Calls
from tests.simulation.site_agent import SiteAgent
from tests.simulation.world import World

REASONS = (FailReason.PAYLOAD, FailReason.MEMORY, FailReason.STORAGE, FailReason.EVICTED)
PASSKEY_MS = 3_600_000


class Pilots:
    """Every pilot of a history; one slot each."""

    def __init__(self, world: World, calls: Calls, agents: dict[str, SiteAgent], *, trouble: float) -> None:
        self.world = world
        self.calls = calls
        self.agents = agents
        self.trouble = trouble  # How often an attempt does not end well.
        self.calm = False
        self._number = 0

    def add(self, agent: SiteAgent) -> None:
        """Start a pilot at a site."""
        self._number += 1
        pilot = Pilot(self, agent, f"p{self._number}")
        self.world.after(self.world.random.random(), pilot.ask)


class Pilot:
    """One pilot and what it runs."""

    def __init__(self, pilots: Pilots, agent: SiteAgent, name: str) -> None:
        self._pilots = pilots
        self._world = pilots.world
        self._agent = agent
        self._name = name
        self._holder = sha256(name.encode()).digest()

    def ask(self) -> None:
        """Ask the home node for work."""
        if self._agent.process.gone:
            return
        candidate = self._agent.choose()
        if candidate is None:
            self._world.after(1.0 + 2 * self._world.random.random(), self.ask)
            return
        ref = candidate.ref
        start = TaskStart(
            ref,
            self._world.identifier(),
            f"key-{self._agent.name}",
            self._holder,
            self._name,
            f"host-{self._name}",
            self._agent.door.ledger_time_ms() + PASSKEY_MS,
        )

        if self._world.random.random() < 0.05:
            self._world.after(0.5, self._hand_out_again, start)

        def answered(outcome: Any) -> None:
            if _granted(outcome, ref):
                self._run(ref)
            else:
                self._world.after(0.3, self.ask)

        self._submit(StartTasks(self._agent.site, (start,)), self._agent.name, answered)

    def _hand_out_again(self, start: TaskStart) -> None:
        """The node has forgotten, and hands the attempt to another pilot too, which is lost at once if it gets it."""
        twin = msgspec.structs.replace(
            start, passkey_id=self._world.identifier(), holder=sha256(b"twin" + start.passkey_id).digest()
        )

        def answered(outcome: Any) -> None:
            if _granted(outcome, start.ref):
                self._agent.lost.append((start.ref, f"{self._name}-twin"))

        self._submit(StartTasks(self._agent.site, (twin,)), self._agent.name, answered)

    def _run(self, ref: TaskRef) -> None:
        random = self._world.random
        self._world.note(self._name, "runs", task=f"{ref.dataset}.{ref.job}.{ref.task}", attempt=ref.attempt)
        lasts_s = 0.2 + random.expovariate(1.0)
        fate = random.random()
        trouble = 0.0 if self._pilots.calm else self._pilots.trouble
        if fate < trouble / 4:
            self._world.after(lasts_s * random.random(), self._die, ref)
            return
        if fate < trouble / 2:  # It sleeps until its lease is long over, then reports.
            lasts_s += 40 * random.random()
        slept_well = 3 * trouble / 8 <= fate < trouble / 2
        end = self._fail if fate < trouble and not slept_well else self._finish
        if random.random() < 0.3:
            self._world.after(lasts_s * 0.8, self._copy, ref)
        self._world.after(lasts_s, end, ref)
        self._world.after(2.0, self._call, ref, self._world.now + lasts_s)

    def _call(self, ref: TaskRef, until: float) -> None:
        """Show life to a node: the home node, or another that then vouches for the attempt."""
        if self._world.now >= until:
            return
        if not self._agent.up:
            other = self._other()
            if other is not None:
                other.vouch(ref)
        self._world.after(2.0, self._call, ref, until)

    def _other(self) -> SiteAgent | None:
        up = [agent for name, agent in sorted(self._pilots.agents.items()) if agent.up and agent.is_member]
        return self._world.random.choice(up) if up else None

    def _die(self, ref: TaskRef) -> None:
        self._world.note(self._name, "is lost")
        self._agent.lost.append((ref, self._name))
        self._pilots.add(self._agent)

    def _copy(self, ref: TaskRef) -> None:
        self._submit(CopyTask(ref, self._holder), self._near(), lambda outcome: None)

    def _finish(self, ref: TaskRef) -> None:
        near = self._near()
        content = sha256(repr((ref, self._name)).encode())
        command = FinishTask(
            ref=ref,
            holder=self._holder,
            site=self._pilots.agents[near].site,
            statistics={"events": float(self._world.random.randrange(1_000))},
            files=(FileEntry(f"out.{ref.task}.{ref.attempt}", 1_000, content.hexdigest(), "job_temp"),),
            usage=Usage(wall_ms=1_000),
        )
        self._submit(command, near, lambda outcome: self._reported(ref, outcome))
        again = self._world.random.random()
        if again < 0.1:  # The same report once more, as from a pilot that lost the answer.
            self._submit(command, self._near(), lambda outcome: None)
        elif again < 0.15:  # Another result of the same attempt, as from a pilot that is out of its mind.
            other = msgspec.structs.replace(command, statistics={"events": -1.0})
            self._world.after(self._world.random.random(), self._submit, other, near, lambda outcome: None)

    def _fail(self, ref: TaskRef) -> None:
        command = FailTask(
            ref,
            self._holder,
            self._agent.site,
            self._world.random.choice(REASONS),
            message="trouble",
            exit_code=1,
        )
        self._submit(command, self._near(), lambda outcome: self._reported(ref, outcome))

    def _reported(self, ref: TaskRef, outcome: Any) -> None:
        self._world.note(
            self._name,
            "reported",
            task=f"{ref.dataset}.{ref.job}.{ref.task}",
            attempt=ref.attempt,
            answer="applied" if isinstance(outcome, Applied) else str(outcome.code),
        )
        self.ask()

    def _near(self) -> str:
        """The node to report to: home, or any other that answers."""
        if self._agent.up and self._world.random.random() < 0.9:
            return self._agent.name
        other = self._other()
        return other.name if other is not None else self._agent.name

    def _submit(self, command: Command, node: str, done: Any) -> None:
        self._pilots.calls.command(command, f"pilot:{self._agent.site}/{self._name}", node, done)


def _granted(outcome: Any, ref: TaskRef) -> bool:
    grants = {(g.dataset, g.job, g.task, g.attempt) for g in getattr(outcome, "grants", ())}
    return (ref.dataset, ref.job, ref.task, ref.attempt) in grants
