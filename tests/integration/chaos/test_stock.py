"""The same profile against PySyncObj 0.3.17 as shipped loses what it acknowledged: the harness sees losses."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.chaos.cluster import ChaosCluster, MemberProcess
from tests.integration.chaos.speech import Gone

pytestmark = [pytest.mark.timeout(300)]
PADDING_BYTES = 900  # One command is about a kilobyte on the wire; random, for PySyncObj compresses.
RATE_S = 800
ATTEMPTS = 4


class StockCluster(ChaosCluster):
    """Members of stock PySyncObj behind the same switch."""

    module = "tests.integration.chaos.stock_member"

    def configuration(self, member: MemberProcess) -> dict[str, Any]:
        address = {name: f"127.0.0.1:{other.advertised}" for name, other in self.members.items()}
        return {
            "directory": str(member.directory),
            "listen": f"127.0.0.1:{member.port}",
            "own": address[member.name],
            "others": [where for name, where in address.items() if name != member.name],
        }


async def flood(leader: MemberProcess, acknowledged: set[int], *, first: int, rate_s: float) -> None:
    """Add numbers at a steady rate until the leader dies, and note those that it acknowledged."""

    async def add(key: int) -> None:
        try:
            answer = await leader.ask("add", key=key, padding=os.urandom(PADDING_BYTES))
        except Gone:
            return
        if answer["acknowledged"]:
            acknowledged.add(key)

    calls = []
    began_s = time.monotonic()
    while leader.up:
        due = int((time.monotonic() - began_s) * rate_s)
        calls += [asyncio.create_task(add(first + number)) for number in range(len(calls), due)]
        await asyncio.sleep(0.01)
    await asyncio.gather(*calls)


async def lost_by_stock(root: Path) -> tuple[int, int]:
    """Run the profile once; return how many were acknowledged, and how many of these nobody has any more."""
    cluster = StockCluster(root, ("a", "b", "c"))
    acknowledged: set[int] = set()
    try:
        await cluster.start()
        cluster.shape(delay_s=0.08, rate_bytes_s=400_000)
        await asyncio.sleep(2.0)  # Elections that the delay began are over.
        leader = await cluster.leader()
        others = [member for member in cluster.members.values() if member is not leader]
        cluster.isolate(others[0].name)
        flooding = asyncio.create_task(flood(leader, acknowledged, first=0, rate_s=RATE_S))
        await asyncio.sleep(6.0)
        await cluster.lose(leader.name)
        cluster.heal()
        await flooding
        await cluster.leader(but=leader.name)
        await asyncio.sleep(8.0)  # Time to hand everything on that anybody still has.
        held = [set((await member.ask("held"))["keys"]) for member in others]
    finally:
        await cluster.stop()
    return len(acknowledged), len(acknowledged - held[0] - held[1])


async def test_stock_pysyncobj_loses_acknowledged_writes_in_this_profile(tmp_path: Path) -> None:
    for attempt in range(ATTEMPTS):
        acknowledged, lost = await lost_by_stock(tmp_path / str(attempt))
        print(f"stock PySyncObj: {acknowledged} acknowledged, {lost} lost")
        if lost:
            return
    pytest.fail(f"{ATTEMPTS} runs, and stock PySyncObj lost nothing: does the switch still shape the wires?")
