"""Random walks through a ledger: every invariant holds after every entry, and replicas agree on every byte."""

from __future__ import annotations

import pytest

from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.store.memory_tables import MemoryTables
from tests.ledger_walk import Walk

STEPS = 250


@pytest.mark.parametrize("seed", range(8))
def test_every_invariant_holds_after_every_entry(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(STEPS):
        walk.step()
    assert walk.done["FinishTask"] > 0


def test_the_same_entries_give_the_same_bytes() -> None:
    walk = Walk(1_000, checked=False)
    for _ in range(STEPS):
        walk.step()
    again = MemoryTables()
    for index, entry in enumerate(walk.ledger.entries, 1):
        apply(again, index, walk.ledger.term, entry)
    assert again.items() == walk.ledger.kv.items()
