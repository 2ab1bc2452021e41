"""Random walks through a ledger: every invariant holds after every entry, and replicas agree on every byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.store.environment import Environment
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


def test_tables_on_disk_and_in_memory_agree_on_every_byte(tmp_path: Path) -> None:
    walk = Walk(2_000, checked=False)
    environment = Environment(tmp_path / "data", map_size_bytes=1 << 28, sync=False)
    try:
        index = 0
        for _ in range(STEPS):
            walk.step()
            transaction = environment.write()
            while index < len(walk.ledger.entries):
                index += 1
                apply(transaction.ledger, index, walk.ledger.term, walk.ledger.entries[index - 1])
            transaction.commit()
        with environment.read() as snapshot:
            on_disk = list(snapshot.ledger.scan(b"\x00", b"\xff" * 8))
            backwards = list(snapshot.ledger.scan(b"\x00", b"\xff" * 8, reverse=True))
        assert on_disk == walk.ledger.kv.items()
        assert backwards == list(_reversed_scan(walk.ledger.kv))
    finally:
        environment.close()


def _reversed_scan(kv: MemoryTables) -> Iterator[tuple[bytes, bytes]]:
    return kv.scan(b"\x00", b"\xff" * 8, reverse=True)
