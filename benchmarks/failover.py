"""The leader is killed: how long until the next command is acknowledged, asked at a node that lives on?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from benchmarks.children import Say
from benchmarks.cluster import Cluster
from benchmarks.numbers import percentile

SETTLE_S: Final = 0.5  # The restarted member has caught up, and heartbeats go round.


def measure(directory: Path, *, kills: int, say: Say = lambda line: None) -> list[str]:
    """Kill the leader `kills` times, restart it each time, and return the report's lines."""
    directory.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(directory)
    times_ms = []
    try:
        for number in range(kills):
            leader = cluster.leader()
            survivor = cluster.members[(leader + 1 + number % 2) % len(cluster.members)]
            survivor.ask(do="until_acknowledged")  # It knows this leader; the next command finds it gone.
            killed_s = time.monotonic()
            cluster.members[leader].kill()
            survivor.ask(do="until_acknowledged")
            times_ms.append((time.monotonic() - killed_s) * 1e3)
            say(f"kill {number + 1}/{kills}: acknowledged again after {times_ms[-1]:,.0f} ms")
            cluster.restart(leader)
            time.sleep(SETTLE_S)
    finally:
        cluster.stop()
    return [
        f"- {kills} leaders killed (SIGKILL); next command acknowledged after {percentile(times_ms, 50):,.0f} ms"
        f" (p50), {percentile(times_ms, 99):,.0f} ms (p99), {min(times_ms):,.0f} ms at best"
    ]
