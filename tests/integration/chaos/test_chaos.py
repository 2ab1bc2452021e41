"""Real processes behind a switch, three and five: whatever happens to wires, processes and members, nothing
acknowledged is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.chaos.changes import admit, promote, remove
from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster
from tests.integration.chaos.judge import judged
from tests.integration.chaos.proof import running, survives_the_profile
from tests.integration.chaos.speech import Gone

pytestmark = [pytest.mark.timeout(900)]
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))


MEMBERS = int(os.environ.get("CHAOS_MEMBERS", "3"))


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ChaosCluster]:
    async with running(tmp_path, MEMBERS) as made:
        yield made


async def test_the_profile_that_breaks_stock_pysyncobj_loses_nothing(cluster: ChaosCluster) -> None:
    """80 ms one way, 400 kB/s, one follower isolated, the leader killed; again and again."""
    acknowledged = await survives_the_profile(cluster, rounds=ROUNDS, seed=SEED)
    print(f"{acknowledged} calls acknowledged in {ROUNDS} rounds, 0 lost")


async def disturb(cluster: ChaosCluster, chance: random.Random) -> None:
    """One fault of a process or of wires, over when this returns; slow wires and lost leaders stay."""
    name, other = chance.sample(list(cluster.members), 2)
    member = cluster.members[name]
    pause_s = chance.uniform(0.5, 3.0)
    match chance.choice(("kill", "kill all", "pause", "cut", "isolate", "slow", "reset", "transfer")):
        case "kill":
            await member.kill()
            await asyncio.sleep(pause_s / 2)
            await member.start()
        case "kill all":
            await asyncio.gather(*(one.kill() for one in cluster.members.values()))
            await asyncio.gather(*(one.start() for one in cluster.members.values()))
        case "pause":
            member.signal(signal.SIGSTOP)
            await asyncio.sleep(pause_s)
            member.signal(signal.SIGCONT)
        case "cut":  # One way: the one is deaf to the other, or a leader hears nobody and is heard by all.
            for to in chance.choice(((other,), [one for one in cluster.members if one != name])):
                cluster.switch.cut(*chance.choice(((name, to), (to, name))))
            await asyncio.sleep(pause_s)
            cluster.heal()
        case "isolate":
            cluster.isolate(name)
            await asyncio.sleep(pause_s)
            cluster.heal()
        case "slow":
            delay_s, rate = chance.choice(((0.08, 0.0), (0.3, 0.0), (0.02, 200_000.0), (0.0, 0.0)))
            cluster.shape(delay_s=delay_s, rate_bytes_s=rate)
        case "reset":
            cluster.switch.reset(name, other)
        case "transfer":
            with contextlib.suppress(Gone):
                await member.ask("transfer", to=chance.choice((other, "")), patience_s=5.0)


async def test_random_faults_of_processes_and_wires_lose_nothing(cluster: ChaosCluster) -> None:
    chance = random.Random(SEED)
    clients = Clients(cluster, seed=SEED)
    clients.begin(submitters=4, sites=6, pause_s=0.02)
    end_s = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < end_s:
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        await disturb(cluster, chance)
    acknowledged = await judged(cluster, clients)
    print(f"{acknowledged} calls acknowledged, 0 lost")


async def test_five_members_come_and_go_under_load_and_faults_and_lose_nothing(tmp_path: Path) -> None:
    """Somebody joins, is promoted, takes over, and an old voter, the leader among them, is removed for ever."""
    chance = random.Random(SEED)
    changes = max(2, int(SECONDS / 15))
    async with running(tmp_path, 5) as cluster:
        clients = Clients(cluster, seed=SEED)
        clients.begin(submitters=4, sites=6, pause_s=0.05)
        for number in range(changes):
            newcomer = await admit(cluster, clients, f"new{number}")
            await disturb(cluster, chance)
            await promote(cluster, clients, newcomer)
            await disturb(cluster, chance)
            leader = await cluster.leader()
            others = [one for one in cluster.members.values() if one not in (leader, newcomer)]
            await remove(cluster, clients, leader if number % 2 == 0 else chance.choice(others))
            await disturb(cluster, chance)
        observer = await admit(cluster, clients, "watcher")
        await remove(cluster, clients, observer)  # Nobody's vote changes.
        acknowledged = await judged(cluster, clients)
        roles = [role for _, role, *_ in (await (await cluster.leader()).ask("status"))["members"]]
    print(f"{acknowledged} calls acknowledged while {changes} of five members were replaced, 0 lost")
    assert roles == ["voter"] * 5
