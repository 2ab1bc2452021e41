"""Looks into the ledger's tables after each entry: the invariants hold, and ledger time does not run ahead."""

from __future__ import annotations

from random import Random

from iceprod_p2p.ledger import invariants, queries
from iceprod_p2p.ledger.keyvalue import KeyValue
from tests.running_invariants import RunningInvariants
from tests.simulation.disk import View
from tests.simulation.process import Process
from tests.simulation.world import Violation, World

FAST = 0.02  # How much faster than time the fastest of the clocks runs, and a little.
FOUNDING_MS = 100  # The first entry lets a few milliseconds pass.
SCAN_EVERY = 200  # After so many entries everything is counted anew.


class LedgerWatch:
    """One history's watcher (`checks.Look`), from its first entry on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running = RunningInvariants()
        self._every = Random(f"watch {world.seed}").choice(
            (1, 8, 32)
        )  # Entries from one look to the next; none is left out.

    def look(self, process: Process, kv: View, index: int, written: int) -> None:
        """One entry was applied for the first time."""
        where = f"after entry {index} at {process.node_id}"
        now_ms, past_ms = queries.ledger_time_ms(kv), self._world.now * (1_000 + 1_000 * FAST)
        if now_ms > past_ms + FOUNDING_MS:
            raise Violation(f"ledger time is {now_ms} ms after {self._world.now * 1_000:.0f} ms")
        found = self._running.follow(kv, kv.writes(written), look=index % self._every == 0)
        if found:
            raise Violation(f"{where}: " + "; ".join(found[:5]))
        if index % SCAN_EVERY == 0:
            self.scan(kv, where)

    @staticmethod
    def scan(kv: KeyValue, where: str) -> None:
        """Count everything anew."""
        found = invariants.check(kv)
        if found:
            raise Violation(f"{where}: " + "; ".join(found[:5]))
