"""The verdict on a run: wait until all members agree, replay what they applied, and check every answer."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster
from tests.integration.chaos.history import check, merge_traces, read_trace, state_digest


async def judged(cluster: ChaosCluster, clients: Clients) -> int:
    """Assert that nothing was lost, doubled, reordered or diverged; return how many calls were acknowledged."""
    cluster.heal()
    cluster.shape()
    await clients.stop()
    await asyncio.gather(*(member.ask("quiet") for member in cluster.members.values()))
    last = await cluster.agree()
    for name, member in cluster.members.items():
        status = await member.status()
        assert status and status["failed"] is None, (name, status)
        state = await member.ask("state", check=True)
        assert state["violations"] == [] and state["digest"] == last["digest"], name
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


def leaders(cluster: ChaosCluster) -> dict[int, set[str]]:
    """Who led each term, as their logs say."""
    terms: dict[int, set[str]] = defaultdict(set)
    for name, member in (*cluster.members.items(), *cluster.retired.items()):
        for event in member.log_events():
            if event.get("event") == "leads":
                terms[event["term"]].add(name)
    return terms
