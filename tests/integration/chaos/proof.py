"""The proof that anyone can run: what PySyncObj as shipped loses, and what IceProd P2P does not.

    make proof                                            (or: python -m tests.integration.chaos.proof --rounds 5)

Three real processes behind a switch, 80 ms one way, 400 kB/s; clients write; a follower is cut off, then the leader's
machine is lost, and the follower comes back.  The same to both; what clients were told is compared with what there is.
Ends with 1 if ours lost anything, or if stock lost nothing, for then the harness shows nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster
from tests.integration.chaos.judge import judged
from tests.integration.chaos.stock import lost_by_stock

NAMES = ("a", "b", "c", "d", "e")
DELAY_S = 0.08
RATE_BYTES_S = 400_000
STOCK = version("pysyncobj")
STOCK_ATTEMPTS = 4


@asynccontextmanager
async def running(root: Path, members: int) -> AsyncIterator[ChaosCluster]:
    """A cluster with a short log, so that members that were away need snapshots as well as entries."""
    made = ChaosCluster(root, NAMES[:members], log_keep_entries=300, compact_entries_max=100)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def survives_the_profile(cluster: ChaosCluster, *, rounds: int, seed: int = 1) -> int:
    """Play the profile so many times; assert that nothing was lost, and return how much was acknowledged."""
    cluster.shape(delay_s=DELAY_S, rate_bytes_s=RATE_BYTES_S)
    clients = Clients(cluster, seed=seed)
    clients.begin(submitters=60, sites=6, text_bytes=500)
    for _ in range(rounds):
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
    return await judged(cluster, clients, least=30 * rounds)


async def prove(root: Path, rounds: int) -> bool:
    """Run both and print the table; return whether it shows what we claim."""
    print(f"{rounds} rounds of IceProd P2P: a follower cut off, the leader lost, under load ...", flush=True)
    try:
        async with running(root / "ours", 3) as cluster:
            kept = await survives_the_profile(cluster, rounds=rounds)
        ours = (str(kept), "0")
    except AssertionError as fault:
        print(fault, file=sys.stderr)
        ours = ("see above", "see above")
    attempts = acknowledged = lost = 0
    while not lost and attempts < STOCK_ATTEMPTS:
        attempts += 1
        print(f"PySyncObj {STOCK} as shipped, round {attempts} ...", flush=True)
        told, gone = await lost_by_stock(root / f"stock-{attempts}")
        acknowledged, lost = acknowledged + told, lost + gone
    print(
        f"\n80 ms one way, 400 kB/s, a follower isolated, the leader lost ({platform.node()}, {platform.machine()})"
    )
    line = "  {:<32}{:>8}{:>16}{:>10}"
    print(line.format("", "rounds", "acknowledged", "lost"))
    print(line.format("IceProd P2P", rounds, *ours))
    print(line.format(f"PySyncObj {STOCK} as shipped", attempts, acknowledged, lost))
    return ours[1] == "0" and lost > 0


def main() -> None:
    """Prove it."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=5)
    with tempfile.TemporaryDirectory(prefix="iceprod-proof-") as root:
        good = asyncio.run(prove(Path(root), options.parse_args().rounds))
    print("\nproven: nothing that was acknowledged is lost" if good else "\nNOT proven")
    sys.exit(not good)


if __name__ == "__main__":
    main()
