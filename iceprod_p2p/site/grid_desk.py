"""What people ask about grid jobs and pilots: gathered from the nodes that know, each from its own notes.

Grid jobs are known to the node that keeps them, pilots to the node that they call; none of it is in the ledger.
A node that does not answer in time is named, never guessed about.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import IceProdError, NotFound, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.site.capacity import SILENT_S
from iceprod_p2p.site.grid_jobs import GridJob, GridJobBook
from iceprod_p2p.site.grid_probe import GridProbe
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.site.pilot_board import PilotBoard, PilotNote
from iceprod_p2p.wire.calls import call
from iceprod_p2p.wire.errors import rpc_errors
from iceprod_p2p.wire.pb import common_pb2, control_pb2

ASK_S: Final = 4.0
LIMIT: Final = 1_000
LIMIT_MAX: Final = 5_000
TASKS_MAX: Final = 256  # Named of one pilot; it tells how many there are.
log = get_logger("grid desk")


class DeskView(Protocol):
    """What is read of the cluster."""

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node of the cluster."""
        ...

    def sites(self) -> tuple[str, ...]:
        """The names of all sites."""
        ...


class GridDesk:
    """Used on the event loop only."""

    def __init__(
        self,
        *,
        config: Callable[[], SiteConfig],
        book: GridJobBook,
        board: PilotBoard,
        cluster: DeskView,
        peers: Peers,
        probe: GridProbe,
        problems: Callable[[], Sequence[str]],
        clock: Clock,
    ) -> None:
        self._config = config
        self._book = book
        self._board = board
        self._cluster = cluster
        self._peers = peers
        self._probe = probe
        self._problems = problems
        self._clock = clock

    # The whole cluster, as one node is asked.

    async def grid_jobs(self, request: control_pb2.ListGridJobsRequest) -> control_pb2.ListGridJobsReply:
        """Ask the nodes of a site, or of all; NotFound for an unknown site."""
        nodes = self._nodes_of(request.site)
        replies = await asyncio.gather(*(self._grid_jobs_of(node, request) for node in nodes))
        result = control_pb2.ListGridJobsReply()
        for reply in replies:
            result.MergeFrom(reply)
        return result

    async def pilots(self, request: control_pb2.ListPilotsRequest) -> control_pb2.ListPilotsReply:
        """Ask every node, for pilots call others when their own is silent; the latest word about each counts."""
        self._nodes_of(request.site)
        nodes = self._cluster.nodes()
        replies = await asyncio.gather(*(self._pilots_of(node, request) for node in nodes))
        latest: dict[tuple[str, str], control_pb2.PilotRow] = {}
        for row in (row for reply in replies for row in reply.pilots):
            known = latest.get((row.site, row.pilot))
            if known is None or row.heard_ms < known.heard_ms:
                latest[row.site, row.pilot] = row
        return control_pb2.ListPilotsReply(
            pilots=[latest[key] for key in sorted(latest)],
            silent_nodes=[name for reply in replies for name in reply.silent_nodes],
            left_out=sum(reply.left_out for reply in replies),
        )

    async def test(self, request: control_pb2.TestSiteRequest, *, who: str) -> AsyncGenerator[Any]:
        """Let a node of the site test its batch system; yields its steps as they come.

        NotFound for a site, node or class that there is not, Unavailable when no node of the site answers.
        """
        nodes = [node for node in self._nodes_of(request.site) if request.node_id in ("", node.node_id)]
        if not nodes:
            raise NotFound(f"site {request.site} has no node {request.node_id[:80]!r}")
        own = self._config().node.id
        log.info("test of a batch system", site=request.site, by=who)
        if any(node.node_id == own for node in nodes):
            async with aclosing(self._probe.run(request)) as steps:
                async for step in steps:
                    yield step
            return
        last = Unavailable(f"no node of site {request.site} answers")
        for node in nodes:
            begun = False
            try:
                with rpc_errors(f"node {node.node_id}"):
                    async for step in self._peers.peer(node).TestGrid(request):
                        begun = True
                        yield step
                return
            except Unavailable as silent:
                if begun:
                    raise
                last = silent
        raise last

    # This node alone, as other nodes ask.

    def own_grid_jobs(self, request: control_pb2.ListGridJobsRequest) -> control_pb2.ListGridJobsReply:
        """Return what this node has noted, the youngest first; live ones before ended ones."""
        config = self._config()
        jobs = [job for job in self._book if job.live or request.ended]
        jobs.sort(key=lambda job: (not job.live, -job.noted_ms, job.pilot))
        limit = _limit(request.limit)
        counts = Counter(str(job.phase) for job in self._book)
        notes = {note.pilot: note for note in self._board.pilots()}
        queue = control_pb2.SiteQueue(
            site=config.node.site,
            node_id=config.node.id,
            reachable=True,
            grid=config.queue.plugin,
            counts=[
                control_pb2.StateCount(state=state, count=count) for state, count in sorted(counts.items())
            ],
            grid_jobs_max=config.queue.grid_jobs_max,
            left_out=max(0, len(jobs) - limit),
            troubles=self._problems(),
        )
        rows = [self._grid_job(job, notes.get(job.pilot)) for job in jobs[:limit]]
        return control_pb2.ListGridJobsReply(grid_jobs=rows, queues=[queue])

    def own_pilots(self, request: control_pb2.ListPilotsRequest) -> control_pb2.ListPilotsReply:
        """Return the pilots that call this node."""
        notes = [note for note in self._board.pilots() if request.site in ("", note.site)]
        notes.sort(key=lambda note: (note.site, note.pilot))
        limit = _limit(request.limit)
        rows = [self._pilot(note) for note in notes[:limit]]
        return control_pb2.ListPilotsReply(pilots=rows, left_out=max(0, len(notes) - limit))

    async def own_test(self, request: control_pb2.TestSiteRequest) -> AsyncGenerator[Any]:
        """Test this node's batch system for another node."""
        async with aclosing(self._probe.run(request)) as steps:
            async for step in steps:
                yield step

    def _nodes_of(self, site: str) -> list[common_pb2.NodeAddress]:
        if site and site not in self._cluster.sites():
            raise NotFound(
                f"there is no site {site[:80]!r}", remedy="`iceprod site list` lists those there are"
            )
        return [node for node in self._cluster.nodes() if site in ("", node.site)]

    async def _grid_jobs_of(
        self, node: common_pb2.NodeAddress, request: control_pb2.ListGridJobsRequest
    ) -> control_pb2.ListGridJobsReply:
        if node.node_id == self._config().node.id:
            return self.own_grid_jobs(request)
        try:
            reply: control_pb2.ListGridJobsReply = await call(
                self._peers.peer(node).GetGridJobs, request, timeout_s=ASK_S, peer=f"node {node.node_id}"
            )
        except IceProdError as silent:
            missing = control_pb2.SiteQueue(site=node.site, node_id=node.node_id, troubles=[silent.message])
            return control_pb2.ListGridJobsReply(queues=[missing])
        for row in reply.grid_jobs:  # A node speaks for itself alone.
            row.site, row.node_id = node.site, node.node_id
        for queue in reply.queues:
            queue.site, queue.node_id = node.site, node.node_id
        return reply

    async def _pilots_of(
        self, node: common_pb2.NodeAddress, request: control_pb2.ListPilotsRequest
    ) -> control_pb2.ListPilotsReply:
        if node.node_id == self._config().node.id:
            return self.own_pilots(request)
        try:
            reply: control_pb2.ListPilotsReply = await call(
                self._peers.peer(node).GetPilots, request, timeout_s=ASK_S, peer=f"node {node.node_id}"
            )
        except IceProdError:
            return control_pb2.ListPilotsReply(silent_nodes=[node.node_id])
        for row in reply.pilots:
            row.node_id = node.node_id
        return reply

    def _grid_job(self, job: GridJob, note: PilotNote | None) -> control_pb2.GridJobRow:
        config, now_ms = self._config().node, self._clock.wall_ms()
        return control_pb2.GridJobRow(
            site=config.site,
            node_id=config.id,
            grid_job=job.grid_job_id,
            pilot=job.pilot,
            resource_class=job.resource_class,
            state=str(job.phase),
            host=job.host,
            slots=job.slots,
            tasks=len(note.running) if note is not None and job.live else 0,
            enrolled=bool(job.enrolled_key),
            reason=job.reason,
            age_ms=max(0, now_ms - job.noted_ms),
            ended_age_ms=max(1, now_ms - job.ended_ms) if job.ended_ms else 0,
        )

    def _pilot(self, note: PilotNote) -> control_pb2.PilotRow:
        silent_s = self._board.silent_s(note)
        if silent_s >= SILENT_S:
            state = "silent"
        elif note.ending:
            state = "ending"
        else:
            state = "working" if note.running else "idle"
        tasks = sorted((ref.dataset, ref.job, ref.task) for ref in note.running)
        return control_pb2.PilotRow(
            site=note.site,
            pilot=note.pilot,
            host=note.host,
            resource_class=note.resource_class,
            state=state,
            node_id=self._config().node.id,
            tasks=[f"{dataset}.{job}.{task}" for dataset, job, task in tasks[:TASKS_MAX]],
            slots_free=note.room.slots,
            heard_ms=int(silent_s * 1_000),
        )


def _limit(asked: int) -> int:
    return min(asked or LIMIT, LIMIT_MAX)
