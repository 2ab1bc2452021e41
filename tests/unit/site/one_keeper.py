"""One node's keeper over the real ledger, and a batch system whose behaviour tests choose."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Self, TypeVar

from iceprod_p2p.base import config as site_config
from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.grids.base import (
    Capabilities,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    History,
    NotSubmitted,
    Queued,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Unclear,
    is_final,
)
from iceprod_p2p.grids.errors import GridDown
from iceprod_p2p.ledger.commands import (
    Claim,
)
from iceprod_p2p.model.resources import Offer
from iceprod_p2p.site.capacity import Capacity
from iceprod_p2p.site.cluster_facts import ClusterFacts
from iceprod_p2p.site.cluster_view import ClusterView
from iceprod_p2p.site.grid_jobs import GridJobBook
from iceprod_p2p.site.keeper import Keeper
from iceprod_p2p.site.lost_pilots import LostPilots
from iceprod_p2p.site.pilot_board import PilotBoard
from iceprod_p2p.site.pilot_files import PilotKit
from iceprod_p2p.site.stock import Stock
from tests.unit.site.one_ledger import CLUSTER, OneLedger, root_of

AnyGrid = TypeVar("AnyGrid", bound=Grid)


class FakeGrid(Grid):
    """A batch system with behaviour: `down`, `answers_lost`, `refuses`, and jobs that run or end on
    demand.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[GridRequest, GridState]] = {}
        self.submissions = 0
        self.down = self.answers_lost = self.refuses = False

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        return cls()

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def write_config(self, request: GridRequest) -> SubmitConfig:
        return SubmitConfig(())

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        if self.down:
            raise GridDown("no answer")
        results: list[SubmitResult] = []
        for request in requests:
            self.submissions += 1
            if self.refuses:
                results.append(NotSubmitted(request.tag, "no such queue"))
                continue
            self.jobs[str(request.tag)] = (request, Queued())
            lost = self.answers_lost
            results.append(
                Unclear(request.tag, "time-out") if lost else Submitted(request.tag, str(request.tag))
            )
        return results

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        if self.down:
            raise GridDown("no answer")
        return {name: self.jobs[name][1] for name in grid_job_ids if name in self.jobs}

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        return {
            n: History(n, self.jobs[n][1])
            for n in grid_job_ids
            if n in self.jobs and is_final(self.jobs[n][1])
        }

    def remove(self, grid_job_ids: Collection[str]) -> None:
        for name in grid_job_ids:
            self.jobs.pop(name, None)

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        if self.down:
            raise GridDown("no answer")
        return [
            GridJobStatus(name, request.tag, state)
            for name, (request, state) in self.jobs.items()
            if request.tag.owner == owner
        ]

    def all_are(self, state: GridState) -> None:
        self.jobs = {name: (request, state) for name, (request, _) in self.jobs.items()}


class Site(Generic[AnyGrid]):
    """A keeper over a fake grid and the real ledger; `again` makes what a restart of the node would."""

    def __init__(
        self,
        directory: Path,
        ledger: OneLedger,
        grid: AnyGrid,
        clock: ManualClock,
        *,
        node_id: str = "madison-1",
        queue: str = "",
    ) -> None:
        """`queue` are more lines of [queue]."""
        self.ledger, self.grid, self.clock = ledger, grid, clock
        config = site_config.parse(
            f'[node]\nsite = "madison"\nid = "{node_id}"\ncluster = "ice"\ndata_dir = "{directory}"\n'
            f'[queue]\ngrid_jobs_max = 3\n{queue}\n[[queue.class]]\nname = "cpu"\nslots = 2\n'
        )
        roots = root_of(ledger.keys)
        facts = ClusterFacts(ledger, cluster=CLUSTER, roots=lambda: roots, clock=clock)  # type: ignore[arg-type]
        self.cluster = ClusterView(ledger, facts, cluster=CLUSTER, clock=clock)  # type: ignore[arg-type]
        self.book = GridJobBook(directory / "pilots")
        self.board = PilotBoard(clock)
        self.stock = Stock(lambda: self.cluster.claimed("madison"))
        self.capacity = Capacity(config.queue, self.book, self.board)
        self.kit = PilotKit(config, ledger.keys.root_pem)
        self.executor = ThreadPoolExecutor(1)
        self.keeper = Keeper(
            config,
            grid,
            self.kit,
            self.book,
            self.capacity,
            self.stock,
            ledger,
            self.cluster,
            self.executor,
            clock,
        )
        self.lost = LostPilots(
            site="madison",
            node_id=node_id,
            book=self.book,
            board=self.board,
            consensus=ledger,
            cluster=self.cluster,
            clock=clock,
        )
        self.stock.refresh()

    def again(self, directory: Path, *, node_id: str = "madison-1") -> Site[AnyGrid]:
        return Site(directory, self.ledger, self.grid, self.clock, node_id=node_id)

    def claim(self, count: int) -> None:
        self.ledger.must(Claim("madison", (Offer("cpu", count),), count))
        self.stock.refresh()

    def proposed(self, kind: type) -> list[object]:
        return [command for command in self.ledger.proposed if isinstance(command, kind)]
