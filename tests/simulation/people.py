"""People: submit datasets, change their minds, and in the end see to it that everything can end."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import (
    AddJobs,
    Command,
    ControlDataset,
    ControlSite,
    ControlTasks,
    SetDataset,
    SiteVerb,
    SubmitDataset,
    Verb,
)
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.resources import Requirements
from iceprod_p2p.model.states import DatasetState, SiteState
from tests.simulation.calls import Calls
from tests.simulation.cluster import Cluster
from tests.simulation.process import Process
from tests.simulation.production import OPERATOR

SHAPES = (
    ((),),
    ((), (0,)),
    ((), (), (0, 1)),
    ((), (0,), (0,), (1, 2)),
)
MIND = (
    (Verb.SUSPEND, 3),
    (Verb.RESUME, 4),
    (Verb.RESET, 1),
    (Verb.RESET_FAILED, 3),
    (Verb.ABORT, 1),
    (Verb.TRUNCATE, 1),
)
UNDONE = (DatasetState.PROCESSING, DatasetState.SUSPENDED, DatasetState.ERRORS)


class People:
    """Ada administers; Paul submits."""

    def __init__(
        self, cluster: Cluster, calls: Calls, *, datasets: int, restless: float, tasks_max: int
    ) -> None:
        self._cluster = cluster
        self._calls = calls
        self._world = cluster.world
        self._left = datasets
        self._restless = restless
        self._tasks_max = tasks_max
        self.asked = 0  # How many datasets were submitted.
        self._stopped = False
        self.submitted: dict[str, int] = {}  # Description -> dataset number.

    def ask_for(self, *, datasets: int, tasks_max: int) -> None:
        """Set how much they will submit, instead of what was drawn."""
        self._left, self._tasks_max = datasets, tasks_max

    def begin(self) -> None:
        """Begin to submit and to change minds."""
        self._world.after(1.0 + self._world.random.random(), self._submit)
        if self._restless:
            self._world.after(3.0, self._change_mind)

    def stop(self) -> None:
        """Ask for nothing new."""
        self._stopped = True
        self._world.after(1.0, self._tidy)

    def _send(self, command: Command, actor: str, done: Callable[[Any], None] = lambda outcome: None) -> None:
        node = self._world.random.choice(self._cluster.alive()).node_id
        self._calls.command(command, actor, node, done)

    def _submit(self) -> None:
        if self._stopped or not self._left:
            return
        self._left -= 1
        self.asked += 1
        random = self._world.random
        shapes = random.choice(SHAPES)
        name = f"submission {self._left}"
        needs = [Requirements(memory_mib=random.choice((512, 1_024, 2_048))) for _ in shapes]
        command = SubmitDataset(
            steering_sha256=sha256(name.encode()).hexdigest(),
            jobs=1 + random.randrange(max(1, self._tasks_max // len(shapes))),
            shapes=tuple(TaskShape(f"t{i}", parents, needs[i]) for i, parents in enumerate(shapes)),
            seed=7,
            owner="paul",
            group=random.choice(("", "simprod")),
            description=name,
            priority=random.choice((100, 500, 900)),
            attempts_max=random.choice((1, 3)),
            retry_pause_ms=500,
            closing=(TaskShape("merge"), TaskShape("tell", (0,))) if self._left % 2 else (),
        )

        def submitted(outcome: Any) -> None:
            if isinstance(outcome, Applied):
                self.submitted[name] = outcome.number

        self._send(command, "person:paul", submitted)
        self._world.after(random.expovariate(1 / 3.0), self._submit)

    def _change_mind(self) -> None:
        if self._stopped:
            return
        random = self._world.random
        self._world.after(random.expovariate(self._restless), self._change_mind)
        numbers = sorted(self.submitted.values())
        if not numbers:
            return
        number = random.choice(numbers)
        verb = random.choices([verb for verb, _ in MIND], [weight for _, weight in MIND])[0]
        kind = random.random()
        command: Command = ControlDataset(number, verb)
        if kind < 0.4 and verb is not Verb.TRUNCATE:
            first = random.randrange(6)
            command = ControlTasks(
                number, verb, first, first + random.randrange(3), random.choice((-1, -1, 0))
            )
        elif kind < 0.5:
            command = SetDataset(number, priority=random.randrange(1_001))
        elif kind < 0.6:
            command = AddJobs(number, random.randrange(1, 4))
        elif kind < 0.7:
            self._drain_and_resume(random.choice(sorted(self._cluster.processes)))
            return
        self._world.note("people", "ask", command=repr(command))
        self._send(command, random.choice(("person:paul", OPERATOR)))

    def _drain_and_resume(self, node: str) -> None:
        with self._cluster.processes[node].disk.image.read() as snapshot:
            sites = [row.site for row in queries.sites(snapshot.ledger)]
        if sites:
            site = self._world.random.choice(sites)
            self._world.note("people", "drain", site=site)
            self._send(ControlSite(site, SiteVerb.DRAIN), OPERATOR)
            self._world.after(4.0, self._send, ControlSite(site, SiteVerb.RESUME), OPERATOR)

    def _tidy(self) -> None:
        """Resume what is suspended or drained and reset what failed, until nothing is left to do."""
        with self._most_advanced().disk.image.read() as snapshot:
            drained = [row.site for row in queries.sites(snapshot.ledger) if row.state is SiteState.DRAINING]
        for site in drained:
            self._send(ControlSite(site, SiteVerb.RESUME), OPERATOR)
        for row in self.datasets():
            if row.state is DatasetState.WAITING:
                continue
            if row.state is DatasetState.SUSPENDED or self._has_suspended(row):
                self._send(ControlDataset(row.dataset, Verb.RESUME), OPERATOR)
            elif row.state is DatasetState.ERRORS:
                self._send(ControlDataset(row.dataset, Verb.RESET_FAILED), OPERATOR)
        self._world.after(3.0, self._tidy)

    @staticmethod
    def _has_suspended(row: Any) -> bool:
        return any(count for state, count in row.tasks.items() if state == "suspended")

    def _most_advanced(self) -> Process:
        """Return the leader, or else the node that stands furthest."""
        processes = self._cluster.processes.values()
        return self._cluster.leader() or max(processes, key=self._cluster.applied_index)

    def datasets(self) -> list[Any]:
        """Return every dataset's row as the most advanced node knows it."""
        with self._most_advanced().disk.image.read() as snapshot:
            return list(queries.datasets(snapshot.ledger, limit=1_000).rows)

    def done(self) -> bool:
        """Whether every dataset has ended."""
        return all(row.state not in UNDONE for row in self.datasets())
