"""The leader is killed: how long until the next command is acknowledged, asked at a node that lives on?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from benchmarks.children import Say
from benchmarks.cluster import Cluster
from benchmarks.numbers import percentile

FAR_MS: Final = 80  # One way: from one continent to another.
SETTLE_S: Final = 0.5  # The restarted member has caught up, and heartbeats go round.


def measure(directory: Path, *, kills: int, say: Say = lambda line: None) -> list[str]:
    """Kill the leader `kills` times near and as often far, restart it each time, and return the report's lines."""
    lines = []
    for one_way_ms in (0, FAR_MS):
        times_ms = _fail_over(directory / f"{one_way_ms}", one_way_ms, kills, say)
        where = f"{one_way_ms} ms one way between the nodes" if one_way_ms else "loopback"
        lines.append(
            f"- {where}: {kills} leaders killed (SIGKILL); next command acknowledged after"
            f" {percentile(times_ms, 50):,.0f} ms (p50), {percentile(times_ms, 99):,.0f} ms (p99),"
            f" {min(times_ms):,.0f} ms at best"
        )
    return lines


def _fail_over(directory: Path, one_way_ms: int, kills: int, say: Say) -> list[float]:
    directory.mkdir(parents=True)
    cluster = Cluster(directory, one_way_ms=one_way_ms)
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
            say(
                f"{one_way_ms} ms, kill {number + 1}/{kills}: acknowledged again after {times_ms[-1]:,.0f} ms"
            )
            cluster.restart(leader)
            time.sleep(SETTLE_S)
    finally:
        cluster.stop()
    return times_ms
