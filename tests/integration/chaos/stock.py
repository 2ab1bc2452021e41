"""The profile that breaks PySyncObj 0.3.17 as shipped, played to it: how much of what it acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.chaos.cluster import ChaosCluster, MemberProcess
from tests.integration.chaos.speech import Gone

PADDING_BYTES = 900  # One command is about a kilobyte on the wire; random, for PySyncObj compresses.
RATE_S = 800
QUIET_S = 6.0  # Equal and unchanged for so long: that is what there is.
PATIENCE_S = 60.0


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


async def all_they_have(members: Sequence[MemberProcess]) -> set[int]:
    """Give the survivors all the time they want to hand on what anybody still has; return what they have then."""
    held: list[set[int]] = []
    end_s = (changed_s := time.monotonic()) + PATIENCE_S
    while time.monotonic() < min(changed_s + QUIET_S, end_s):
        await asyncio.sleep(0.5)
        now = [set((await member.ask("held", patience_s=60.0))["keys"]) for member in members]
        if now != held or now[0] != now[1]:
            changed_s = time.monotonic()
        held = now
    return held[0] | held[1]


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
        held = await all_they_have(others)
    finally:
        await cluster.stop()
    return len(acknowledged), len(acknowledged - held)
