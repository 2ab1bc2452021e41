"""The verdict on a run: wait until all members agree, replay what they applied, and check every answer."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster, until
from tests.integration.chaos.history import check, merge_traces, read_trace, state_digest

ANSWER_S = 120.0  # To look through a whole ledger takes its time on a busy machine.


async def judged(cluster: ChaosCluster, clients: Clients, *, least: int = 20) -> int:
    """Assert that nothing was lost, doubled, reordered or diverged; return how many calls were acknowledged.

    Clients go on until so many were: on a slow machine faults may have left no time for more.
    """
    cluster.heal()
    cluster.shape()

    async def enough() -> bool:
        return len(clients.history.acknowledged) > least

    await until(f"more than {least} calls are acknowledged", enough, within_s=180)
    await clients.stop()
    await asyncio.gather(*(m.ask("quiet", patience_s=ANSWER_S) for m in cluster.members.values()))
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
        states = {
            name: await member.ask("state", check=True, patience_s=ANSWER_S)
            for name, member in cluster.members.items()
        }
        if {state["applied"] for state in states.values()} == {last["applied"]}:
            break
    for name, member in cluster.members.items():
        status = await member.ask("status", patience_s=ANSWER_S)
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
