"""Slow and full disks: a member that cannot write says so and leaves the work to others, and nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster, until
from tests.integration.chaos.judge import judged
from tests.integration.chaos.power import disks, need_a_power_switch

pytestmark = [pytest.mark.timeout(600)]
NAMES = ("a", "b", "c")


async def test_a_leader_whose_disk_is_slow_then_full_is_replaced_and_comes_back(tmp_path: Path) -> None:
    need_a_power_switch()
    with disks(tmp_path, NAMES) as disk:
        cluster = ChaosCluster(tmp_path, NAMES)
        try:
            await cluster.start()
            clients = Clients(cluster, seed=5)
            clients.begin(submitters=12, sites=6, text_bytes=400, pause_s=0.01)

            async def goes_on() -> None:
                before = len(clients.history.acknowledged)

                async def more() -> bool:
                    return len(clients.history.acknowledged) > before + 20

                await until("work goes on", more)

            await goes_on()
            slow = await cluster.leader()
            await asyncio.to_thread(disk[slow.name].slow, 0.4)
            await goes_on()
            await asyncio.to_thread(disk[slow.name].slow, 0.0)
            full = await cluster.leader()
            await asyncio.to_thread(disk[full.name].fill)

            async def refuses_by_name() -> bool:
                return "no space left" in ((await full.status()).get("failed") or "")

            await until("the member with the full disk says so", refuses_by_name)
            await cluster.leader(but=full.name)
            await goes_on()
            await full.kill()
            await asyncio.to_thread(disk[full.name].make_room)
            await full.start()
            acknowledged = await judged(cluster, clients)
        finally:
            await cluster.stop()
    print(f"{acknowledged} calls acknowledged with a slow and a full disk, 0 lost")
