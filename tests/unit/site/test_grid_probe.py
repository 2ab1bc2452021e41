"""A site's test on a batch system that refuses, holds, forgets or falls silent; and tests passed on to other nodes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base import config as site_config
from iceprod_p2p.base.clock import ManualClock, SystemClock
from iceprod_p2p.base.errors import NotFound, Unavailable
from iceprod_p2p.grids.base import (
    Completed,
    Failed,
    GridRequest,
    GridState,
    Held,
    Removed,
    Running,
    SubmitResult,
)
from iceprod_p2p.site import grid_probe
from iceprod_p2p.site.grid_desk import GridDesk
from iceprod_p2p.site.grid_jobs import GridJob, GridJobBook, GridJobPhase
from iceprod_p2p.site.grid_probe import GridProbe
from iceprod_p2p.site.pilot_board import PilotBoard
from iceprod_p2p.site.pilot_files import PilotKit
from iceprod_p2p.wire.pb import common_pb2, control_pb2
from tests.unit.site.one_keeper import FakeGrid
from tests.unit.site.one_ledger import NOW_MS, OneLedger

TOML = """\
[node]
site = "madison"
id = "madison-1"
cluster = "ice"
data_dir = "{directory}"
[queue]
[[queue.class]]
name = "cpu"
"""
GOOD = {"name": "worker", "result": "ok", "text": "n7, Python 3.11", "remedy": ""}


class Played(FakeGrid):
    """Every grid job becomes `end` at once and leaves `output`."""

    def __init__(self, end: GridState | None, *, output: str = "", error: str = "") -> None:
        super().__init__()
        self.end, self.output, self.error = end, output, error
        self.removed: list[str] = []
        self.loses_all = False

    def check(self) -> str:
        return "Fake 1.0"

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        results = super().submit(requests)
        for request in requests:
            assert request.arguments[-1] == "--probe"
            Path(request.work_directory).mkdir()
            Path(request.stdout_path).write_text(self.output)
            Path(request.stderr_path).write_text(self.error)
        if self.end is not None:
            self.all_are(self.end)
        if self.loses_all:
            self.jobs.clear()
        return results

    def remove(self, grid_job_ids: Any) -> None:
        self.removed += grid_job_ids
        super().remove(grid_job_ids)


class Cluster:
    """Two sites, the second one elsewhere."""

    def draining(self, site: str) -> bool:
        return False

    def sites(self) -> tuple[str, ...]:
        return ("madison", "zeuthen")

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        return tuple(
            common_pb2.NodeAddress(node_id=f"{site}-1", site=site, address="127.0.0.1:1")
            for site in self.sites()
        )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_probe, "POLL_S", 0.01)
    monkeypatch.setattr(grid_probe, "FIND_S", 0.1)


@pytest.fixture
def probe_of(tmp_path: Path) -> Callable[[FakeGrid], GridProbe]:
    ledger = OneLedger()
    ledger.found()
    config = site_config.parse(TOML.format(directory=tmp_path))
    GridJobBook(tmp_path / "pilots")

    def make(grid: FakeGrid) -> GridProbe:
        return GridProbe(
            config=lambda: config,
            grid=grid,
            kit=PilotKit(config, ledger.keys.root_pem),
            directory=tmp_path / "pilots",
            cluster=Cluster(),
            executor=ThreadPoolExecutor(1),
            clock=SystemClock(),
        )

    return make


async def told(probe: GridProbe, *, wait_s: int = 60) -> dict[str, control_pb2.TestStep]:
    request = control_pb2.TestSiteRequest(site="madison", wait_s=wait_s)
    return {step.name: step async for step in probe.run(request)}


async def test_all_is_well_and_the_workers_findings_come_between_its_own_words(
    probe_of: Callable[[FakeGrid], GridProbe], tmp_path: Path
) -> None:
    output = f'prologue says hello\n{json.dumps(GOOD)}\n{{"name": 3}}\n[1]\n{json.dumps({**GOOD, "result": "x"})}\n'
    grid = Played(Completed(0), output=output)
    steps = await told(probe_of(grid))
    assert {name: step.result for name, step in steps.items()} == {
        "class": "ok",
        "system": "ok",
        "submit": "ok",
        "end": "ok",
        "worker": "ok",
    }
    assert grid.removed == [] and list((tmp_path / "pilots").iterdir()) == []


async def test_a_test_that_is_interrupted_while_it_submits_leaves_no_grid_job(
    probe_of: Callable[[FakeGrid], GridProbe], tmp_path: Path
) -> None:
    asked, answers = threading.Event(), threading.Event()

    class Slow(Played):
        def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
            results = super().submit(requests)
            asked.set()
            assert answers.wait(60)
            return results

    grid = Slow(None)
    test = asyncio.ensure_future(told(probe_of(grid)))
    assert await asyncio.get_running_loop().run_in_executor(None, asked.wait, 60)
    test.cancel()
    await asyncio.sleep(0)
    answers.set()
    with pytest.raises(asyncio.CancelledError):
        await test
    assert len(grid.removed) == 1 and list((tmp_path / "pilots").iterdir()) == []


@pytest.mark.parametrize(
    ("end", "error", "name", "words"),
    [
        (Completed(127), "python3: not found\n", "end", "exit code 127: python3: not found"),
        (Completed(3), "", "end", "it left no word"),
        (Held("no such image"), "", "start", "holds it: no such image"),
        (Removed("by root"), "", "end", "somebody removed it: by root"),
        (Failed("its wall time was over"), "", "end", "its wall time was over"),
    ],
)
async def test_each_bad_end_is_told_with_what_to_do(
    probe_of: Callable[[FakeGrid], GridProbe],
    tmp_path: Path,
    end: GridState,
    error: str,
    name: str,
    words: str,
) -> None:
    grid = Played(end, error=error)
    steps = await told(probe_of(grid))
    assert steps[name].result == "failed" and words in steps[name].text and steps[name].remedy
    assert grid.jobs == {} or not isinstance(end, Held), "what is held is removed"
    assert list((tmp_path / "pilots").iterdir()) == []


async def test_one_that_is_refused_silent_or_forgotten_is_told(
    probe_of: Callable[[FakeGrid], GridProbe],
) -> None:
    grid = Played(None)
    grid.refuses = True
    assert "no such queue" in (await told(probe_of(grid)))["submit"].text
    grid = Played(None)
    grid.down = True
    step = (await told(probe_of(grid)))["submit"]
    assert step.result == "failed" and "no answer" in step.text and step.remedy
    grid = Played(None)
    grid.loses_all = True
    step = (await told(probe_of(grid)))["end"]
    assert step.result == "failed" and "no longer knows it" in step.text
    grid = Played(None)
    grid.answers_lost = grid.loses_all = True
    assert "no clear answer" in (await told(probe_of(grid)))["submit"].text


async def test_a_lost_answer_is_found_by_its_tag(probe_of: Callable[[FakeGrid], GridProbe]) -> None:
    grid = Played(Completed(0), output=json.dumps(GOOD))
    grid.answers_lost = True
    assert (await told(probe_of(grid)))["end"].result == "ok"


async def test_one_that_runs_too_long_is_late_and_removed_and_there_is_one_test_at_a_time(
    probe_of: Callable[[FakeGrid], GridProbe],
) -> None:
    grid = Played(Running("n7"))
    probe = probe_of(grid)
    steps: list[str] = []

    async def run() -> None:
        async for step in probe.run(control_pb2.TestSiteRequest(wait_s=1)):
            steps.append(f"{step.name} {step.result}")

    first = asyncio.create_task(run())
    while not steps and not first.done():
        await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="another test"):
        await told(probe)
    await first
    assert steps[-2:] == ["start ok", "end late"] and len(grid.removed) == 1 and grid.jobs == {}


class Peer:
    """The other site's node."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def GetGridJobs(self, request: Any, timeout: float) -> control_pb2.ListGridJobsReply:
        row = control_pb2.GridJobRow(site="madison", node_id="madison-1", grid_job="17")
        queue = control_pb2.SiteQueue(site="madison", node_id="x", reachable=True)
        return control_pb2.ListGridJobsReply(grid_jobs=[row], queues=[queue])

    async def GetPilots(self, request: Any, timeout: float) -> control_pb2.ListPilotsReply:
        row = control_pb2.PilotRow(site="madison", pilot="p1", state="working", heard_ms=5)
        return control_pb2.ListPilotsReply(pilots=[row])

    async def TestGrid(self, request: Any) -> AsyncIterator[control_pb2.TestStep]:
        self.asked.append(request)
        yield control_pb2.TestStep(name="class", result="ok")


class Peers:
    def __init__(self) -> None:
        self.one = Peer()

    def peer(self, node: common_pb2.NodeAddress) -> Peer:
        return self.one


async def test_other_sites_are_asked_and_speak_for_themselves_alone(
    probe_of: Callable[[FakeGrid], GridProbe], tmp_path: Path
) -> None:
    clock = ManualClock(wall_ms=NOW_MS)
    book, board = GridJobBook(tmp_path / "pilots"), PilotBoard(clock)
    book.put(GridJob("p1", "cpu", 1, GridJobPhase.RUNNING, NOW_MS - 5_000, "3", host="n7"))
    book.put(GridJob("p2", "cpu", 1, GridJobPhase.ENDED, NOW_MS - 9_000, "2", ended_ms=NOW_MS - 1_000))
    board.note(pilot="p1", holder=b"1", site="madison")
    clock.advance(60.0)
    peers = Peers()
    desk = GridDesk(
        config=lambda: site_config.parse(TOML.format(directory=tmp_path)),
        book=book,
        board=board,
        cluster=Cluster(),
        peers=peers,  # type: ignore[arg-type]
        probe=probe_of(Played(Completed(0))),
        problems=lambda: ["batch system local: silent"],
        clock=clock,
    )
    reply = await desk.grid_jobs(control_pb2.ListGridJobsRequest())
    assert [(row.site, row.node_id, row.grid_job) for row in reply.grid_jobs] == [
        ("madison", "madison-1", "3"),
        ("zeuthen", "zeuthen-1", "17"),
    ]
    assert reply.grid_jobs[0].age_ms == 65_000 and list(reply.queues[0].troubles)
    ended = await desk.grid_jobs(control_pb2.ListGridJobsRequest(site="madison", ended=True, limit=1))
    assert len(ended.grid_jobs) == 1 and ended.queues[0].left_out == 1
    (pilot,) = (await desk.pilots(control_pb2.ListPilotsRequest(site="madison"))).pilots
    assert (pilot.node_id, pilot.state) == ("zeuthen-1", "working"), "the latest word counts"
    request = control_pb2.TestSiteRequest(site="zeuthen")
    assert [step.name async for step in desk.test(request, who="ada")] == ["class"]
    assert peers.one.asked == [request]
    with pytest.raises(NotFound):
        await desk.pilots(control_pb2.ListPilotsRequest(site="lyon"))
