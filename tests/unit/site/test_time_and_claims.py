"""Ledger time comes from the leader's monotonic clock alone, and nothing is claimed for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from iceprod_p2p.base import config as site_config
from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.ledger.commands import Claim, ControlSite, Heartbeat, SetDataset, SiteVerb, TaskRef, Tick
from iceprod_p2p.ledger.queries import ledger_time_ms
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.resources import Requirements
from iceprod_p2p.model.site import SiteCounts
from iceprod_p2p.site.capacity import Capacity
from iceprod_p2p.site.cluster_facts import ClusterFacts
from iceprod_p2p.site.cluster_view import ClusterView
from iceprod_p2p.site.grid_jobs import GridJobBook
from iceprod_p2p.site.pilot_board import PilotBoard
from iceprod_p2p.site.stock import Stock
from iceprod_p2p.site.timekeeper import STEP_MS_MAX, VOUCHED_MAX, SiteHeartbeat, Timekeeper
from iceprod_p2p.site.volunteer import Volunteer
from tests.unit.site.one_ledger import CLUSTER, NOW_MS, OneLedger, root_of


class Terms:
    """The part of the cluster's view that time needs."""

    def __init__(self, ledger: OneLedger) -> None:
        self.ledger = ledger
        self.now_term = 1
        self.known = True

    def time_ms(self) -> int:
        return ledger_time_ms(self.ledger.kv)

    def term(self) -> int:
        return self.now_term

    def knows(self, node_id: str) -> bool:
        return self.known


@pytest.fixture
def ledger() -> OneLedger:
    ledger = OneLedger()
    ledger.found()
    return ledger


async def test_ledger_time_follows_the_monotonic_clock_and_no_wall_clock(ledger: OneLedger) -> None:
    clock, view = ManualClock(wall_ms=NOW_MS), Terms(ledger)
    keeper = Timekeeper(node_id="madison-1", consensus=ledger, cluster=view, clock=clock)
    await keeper.tick()
    clock.advance(2.0)
    clock._wall_ms += 86_400_000  # A wall clock that jumps by a day changes nothing.
    await keeper.tick()
    assert view.time_ms() == 2_000


async def test_a_new_leader_goes_on_from_the_ledgers_time_and_a_follower_is_silent(ledger: OneLedger) -> None:
    clock, view = ManualClock(), Terms(ledger)
    keeper = Timekeeper(node_id="madison-1", consensus=ledger, cluster=view, clock=clock)
    ledger.is_leader = False
    clock.advance(100.0)
    await keeper.tick()
    assert not ledger.proposed
    ledger.is_leader = True
    await keeper.tick()
    clock.advance(1.0)
    await keeper.tick()
    assert view.time_ms() == 1_000, "what passed before it led is not its to add"


async def test_time_never_leaps_after_a_leader_was_stopped_for_long(ledger: OneLedger) -> None:
    clock, view = ManualClock(), Terms(ledger)
    keeper = Timekeeper(node_id="madison-1", consensus=ledger, cluster=view, clock=clock)
    await keeper.tick()
    clock.advance(86_400.0)
    await keeper.tick()
    assert view.time_ms() == STEP_MS_MAX
    assert all(isinstance(command, Tick) for command in ledger.proposed)


async def test_a_heartbeat_splits_what_it_vouches_for_and_a_newcomer_is_silent(ledger: OneLedger) -> None:
    view = Terms(ledger)
    refs = tuple(TaskRef(1, job, 0, 0) for job in range(VOUCHED_MAX + 1))
    beat = SiteHeartbeat(
        site="madison",
        node_id="madison-1",
        consensus=ledger,
        cluster=view,
        counts=SiteCounts,
        vouched=lambda: refs,
    )
    view.known = False
    await beat.beat()
    assert not ledger.proposed
    view.known = True
    await beat.beat()
    assert [len(command.vouched) for command in ledger.proposed if isinstance(command, Heartbeat)] == [512, 1]


CONFIG = """
[node]
site = "madison"
id = "madison-1"
cluster = "ice"
data_dir = "/tmp/unused"
[queue]
grid_jobs_max = 2
[[queue.class]]
name = "cpu"
slots = 2
"""


class Site:
    """A volunteer with nothing running yet, which may submit two pilots of two slots."""

    def __init__(self, ledger: OneLedger, directory: Path) -> None:
        self.clock = ManualClock()
        keys = root_of(ledger.keys)
        facts = ClusterFacts(ledger, cluster=CLUSTER, roots=lambda: keys, clock=self.clock)  # type: ignore[arg-type]
        cluster = ClusterView(ledger, facts, cluster=CLUSTER, clock=self.clock)  # type: ignore[arg-type]
        self.stock = Stock(lambda: cluster.claimed("madison"))
        queue = site_config.parse(CONFIG).queue
        self.capacity = Capacity(queue, GridJobBook(directory), PilotBoard(self.clock))
        self.free_disk = True
        self.woken = 0
        self.volunteer = Volunteer(
            site="madison",
            node_id="madison-1",
            ahead=0.0,
            pause_s=0.3,
            capacity=self.capacity,
            stock=self.stock,
            consensus=ledger,
            cluster=cluster,
            clock=self.clock,
            has_disk=lambda: self.free_disk,
            granted=self.wake,
        )

    def wake(self) -> None:
        self.woken += 1


def claims(ledger: OneLedger) -> int:
    return sum(isinstance(command, Claim) for command in ledger.proposed)


async def test_a_site_claims_what_it_can_start_and_tells_the_keeper(
    ledger: OneLedger, tmp_path: Path
) -> None:
    site = Site(ledger, tmp_path)
    ledger.submit(jobs=10)
    await site.volunteer.step()
    assert len(site.stock.tasks) == 4 and site.woken == 1
    await site.volunteer.step()
    assert claims(ledger) == 1, "what it holds already fills its slots"


async def test_nothing_is_proposed_when_nothing_ready_fits(ledger: OneLedger, tmp_path: Path) -> None:
    site = Site(ledger, tmp_path)
    ledger.submit(jobs=10, shapes=(TaskShape("big", (), Requirements(gpus=1)),))
    for _ in range(10):
        await site.volunteer.step()
        site.clock.advance(1.0)
    assert claims(ledger) == 0


async def test_a_claim_that_brings_nothing_is_repeated_more_and_more_seldom(
    ledger: OneLedger, tmp_path: Path
) -> None:
    site = Site(ledger, tmp_path)
    number = ledger.submit(jobs=10)
    ledger.must(SetDataset(number, sites_excluded=("madison",)), actor="person:ada")
    for _ in range(100):
        await site.volunteer.step()
        site.clock.advance(0.3)
    assert 1 <= claims(ledger) <= 12


async def test_a_site_without_disk_or_that_drains_or_whose_grid_is_down_claims_nothing(
    ledger: OneLedger, tmp_path: Path
) -> None:
    site = Site(ledger, tmp_path)
    ledger.submit(jobs=10)
    site.free_disk = False
    await site.volunteer.step()
    site.free_disk = True
    site.capacity.grid_down = True
    await site.volunteer.step()
    site.capacity.grid_down = False
    ledger.must(ControlSite("madison", SiteVerb.DRAIN), actor="person:ada")
    site.clock.advance(1.0)
    await site.volunteer.step()
    assert claims(ledger) == 0
