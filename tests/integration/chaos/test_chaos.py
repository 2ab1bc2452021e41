"""Three real processes behind a switch: whatever happens to wires and processes, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster
from tests.integration.chaos.judge import judged

pytestmark = [pytest.mark.timeout(900)]
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ChaosCluster]:
    names = ("a", "b", "c", "d", "e")[: int(os.environ.get("CHAOS_MEMBERS", "3"))]
    # A short log, so that members that were away need snapshots as well as entries.
    made = ChaosCluster(tmp_path, names, log_keep_entries=300, compact_entries_max=100)
    await made.start()
    yield made
    await made.stop()


async def test_the_profile_that_breaks_stock_pysyncobj_loses_nothing(cluster: ChaosCluster) -> None:
    """80 ms one way, 400 kB/s, one follower isolated, the leader killed; again and again."""
    cluster.shape(delay_s=0.08, rate_bytes_s=400_000)
    clients = Clients(cluster, seed=SEED)
    clients.begin(submitters=60, sites=6, text_bytes=500)
    for _ in range(ROUNDS):
        leader = await cluster.leader()
        follower = next(name for name in cluster.members if name != leader.name)
        cluster.isolate(follower)
        await asyncio.sleep(3.0)
        await cluster.lose(leader.name)
        cluster.heal()
        await cluster.leader(but=leader.name)
        await asyncio.sleep(1.5)
        await leader.start()
        await asyncio.sleep(1.0)
    acknowledged = await judged(cluster, clients)
    print(f"{acknowledged} calls acknowledged in {ROUNDS} rounds, 0 lost")
    assert acknowledged > 100 * ROUNDS


async def test_random_faults_of_processes_and_wires_lose_nothing(cluster: ChaosCluster) -> None:
    chance = random.Random(SEED)
    clients = Clients(cluster, seed=SEED)
    clients.begin(submitters=4, sites=6, pause_s=0.02)
    end_s = asyncio.get_running_loop().time() + SECONDS
    names = list(cluster.members)
    while asyncio.get_running_loop().time() < end_s:
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        name, other = chance.sample(names, 2)
        member = cluster.members[name]
        match chance.choice(("kill", "kill all", "pause", "cut", "isolate", "slow", "reset")):
            case "kill":
                await member.kill()
                await asyncio.sleep(chance.uniform(0.0, 2.0))
                await member.start()
            case "kill all":
                await asyncio.gather(*(one.kill() for one in cluster.members.values()))
                await asyncio.gather(*(one.start() for one in cluster.members.values()))
            case "pause":
                member.signal(signal.SIGSTOP)
                await asyncio.sleep(chance.uniform(0.5, 4.0))
                member.signal(signal.SIGCONT)
            case "cut":
                cluster.switch.cut(name, other)
                await asyncio.sleep(chance.uniform(0.5, 4.0))
                cluster.heal()
            case "isolate":
                cluster.isolate(name)
                await asyncio.sleep(chance.uniform(0.5, 4.0))
                cluster.heal()
            case "slow":
                delay_s, rate = chance.choice(((0.08, 0.0), (0.3, 0.0), (0.02, 200_000.0), (0.0, 0.0)))
                cluster.shape(delay_s=delay_s, rate_bytes_s=rate)
            case "reset":
                cluster.switch.reset(name, other)
    acknowledged = await judged(cluster, clients)
    print(f"{acknowledged} calls acknowledged, 0 lost")
    assert acknowledged > 20
