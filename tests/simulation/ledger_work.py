"""The production on the real ledger: people, sites, pilots, and what must be true of it in the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import Command
from iceprod_p2p.model.states import TaskState
from iceprod_p2p.raft.machine import encode_proposal
from tests.simulation.calls import Calls
from tests.simulation.cluster import Cluster
from tests.simulation.ledger_watch import LedgerWatch
from tests.simulation.people import People
from tests.simulation.pilots import Pilots
from tests.simulation.process import Process
from tests.simulation.site_agent import SiteAgent
from tests.simulation.task_model import TaskModel
from tests.simulation.world import Violation


class LedgerCalls(Calls):
    """Calls whose bodies are ledger commands."""

    def command(self, command: Command, actor: str, node_id: str, done: Any) -> None:
        """Propose a command at a node, made at the ledger time which that node knows."""
        request_id = self._world.identifier()
        with self._cluster.processes[node_id].disk.image.read() as snapshot:
            made_at_ms = queries.ledger_time_ms(snapshot.ledger)
        body = encode_proposal(request_id, made_at_ms, actor, command)
        self.submit(request_id, body, node_id, done)


class LedgerWork:
    """Everybody who works on a history's cluster."""

    def __init__(self, cluster: Cluster, calls: LedgerCalls, *, grace_s: float) -> None:
        random = cluster.world.random
        self._cluster = cluster
        self._calls = calls
        self._world = cluster.world
        self._grace_s = grace_s
        self._stopped = False
        self.model = TaskModel()
        self.agents: dict[str, SiteAgent] = {}
        self.people = People(
            cluster,
            calls,
            datasets=random.randrange(1, 5),
            restless=random.choice((0.0, 0.2, 1.0)),
            tasks_max=random.choice((6, 20, 40)),
        )
        self.pilots = Pilots(cluster.world, calls, self.agents, trouble=random.choice((0.0, 0.1, 0.4)))
        cluster.checks.followers.append(self.model.follow)
        for process in cluster.processes.values():
            self._add_site(process)
        cluster.on_new.append(self._add_site)

    def _add_site(self, process: Process) -> None:
        slots = self._world.random.randrange(1, 4)
        agent = SiteAgent(self._world, process, f"site{process.node_id[1:]}", slots, pace_s=self._grace_s / 4)
        self.agents[process.node_id] = agent
        for _ in range(slots):
            self.pilots.add(agent)

    def begin(self) -> None:
        """Start everybody."""
        self.people.begin()
        self._world.after(1.0, self._read)

    def stop(self) -> None:
        """No more submissions, and pilots that do what they should."""
        self._stopped = True
        self.pilots.calm = True
        self.people.stop()

    def done(self) -> bool:
        """Whether every dataset has ended."""
        return self.people.done()

    def missing(self) -> str:
        """Say what has not ended."""
        return "; ".join(
            f"dataset {row.dataset} {row.state}: "
            + ", ".join(f"{count} {state}" for state, count in row.tasks.items() if count)
            for row in self.people.datasets()
            if row.state in ("processing", "suspended", "errors")
        )

    def _read(self) -> None:
        if not self._stopped:
            self._calls.read(self._world.random.choice(self._cluster.alive()).node_id)
            self._world.after(self._world.random.expovariate(0.5), self._read)

    def check_end(self) -> None:
        """The end state is what was acknowledged, counted once."""
        leader = self._cluster.leader()
        assert leader is not None
        with leader.disk.image.read() as snapshot:
            kv = snapshot.ledger
            LedgerWatch.scan(kv, "at the end")
            datasets = [row for row in queries.datasets(kv, limit=1_000).rows if not row.follows]
            if len(datasets) > self.people.asked:
                raise Violation(f"there are more datasets than the {self.people.asked} that were submitted")
            numbers = {row.description: row.dataset for row in datasets}
            for name, number in self.people.submitted.items():
                if numbers.get(name) != number:
                    raise Violation(
                        f"{name!r} was acknowledged as dataset {number}; there is {numbers.get(name)}"
                    )
            self._check_results(kv)

    def _check_results(self, kv: Any) -> None:
        """Every complete task has the result that was accepted, and tallies count each once."""
        results = self.model.results()
        sums: dict[tuple[int, str], Fraction] = defaultdict(Fraction)
        counts: dict[tuple[int, str], int] = defaultdict(int)
        for row in queries.datasets(kv, limit=1_000).rows:
            for task in _tasks(kv, row.dataset):
                accepted = results.get((task.dataset, task.job, task.task))
                if accepted is None or accepted[0] != task.attempt:
                    raise Violation(f"task {task.ref} is complete; accepted was {accepted}")
                detail = queries.task(kv, task.dataset, task.job, task.task)
                assert detail is not None
                if dict(detail.statistics) != accepted[1]:
                    raise Violation(f"task {task.ref} has {detail.statistics}, accepted was {accepted[1]}")
                if [file.attempt for file in detail.files] != [task.attempt]:
                    raise Violation(f"task {task.ref} has the files {detail.files}")
                for value in accepted[1].values():
                    sums[row.dataset, task.name] += Fraction(value)
                    counts[row.dataset, task.name] += 1
            for name, tallies in queries.statistics(kv, row.dataset).items():
                tally = tallies.get("events")
                wanted = (counts[row.dataset, name], float(sums[row.dataset, name]))
                if tally is not None and (tally.count, tally.sum) != wanted:
                    raise Violation(f"the tally of {row.dataset} {name} is {tally}, reported was {wanted}")


def _tasks(kv: Any, dataset: int) -> Sequence[Any]:
    """Return every complete task of a dataset."""
    found: list[Any] = []
    after: tuple[int, int] | None = (-1, -1)
    while after is not None:
        page = queries.tasks(kv, dataset, state=TaskState.COMPLETE, after=after, limit=1_000)
        found.extend(page.rows)
        after = page.next_after
    return found
