"""The verdict on a run: wait until all members agree, replay what they applied, and check every answer."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster
from tests.integration.chaos.history import check, merge_traces, read_trace, state_digest


async def judged(cluster: ChaosCluster, clients: Clients) -> int:
    """Assert that nothing was lost, doubled, reordered or diverged; return how many calls were acknowledged."""
    cluster.heal()
    cluster.shape()
    await clients.stop()
    await asyncio.gather(*(member.ask("quiet") for member in cluster.members.values()))
    last = await settled(cluster)
    traces = {
        name: list(read_trace(m.directory / "applied.trace"))
        for name, m in (*cluster.members.items(), *cluster.retired.items())
    }
    truth, faults = merge_traces(traces)
    assert faults == []
    truth.entries = {index: entry for index, entry in truth.entries.items() if index <= last["applied"]}
    truth.replay()
    assert check(clients.history, truth, leaders(cluster)) == []
    assert state_digest(truth) == last["digest"]
    return len(clients.history.acknowledged)


async def settled(cluster: ChaosCluster) -> dict[str, Any]:
    """Wait until all members stand at one entry, each with a checked state; return that state."""
    while True:  # A last word of somebody may come after they first agreed; `agree` itself is bounded.
        last = await cluster.agree()
        states = {name: await member.ask("state", check=True) for name, member in cluster.members.items()}
        if {state["applied"] for state in states.values()} == {last["applied"]}:
            break
    for name, member in cluster.members.items():
        status = await member.ask("status")
        assert status["failed"] is None, (name, status)
        assert states[name]["violations"] == [], name
        assert states[name]["digest"] == last["digest"], f"{name} differs at entry {last['applied']}"
    return last


def leaders(cluster: ChaosCluster) -> dict[int, set[str]]:
    """Who led each term, as their logs say."""
    terms: dict[int, set[str]] = defaultdict(set)
    for name, member in (*cluster.members.items(), *cluster.retired.items()):
        for event in member.log_events():
            if event.get("event") == "leads":
                terms[event["term"]].add(name)
    return terms
