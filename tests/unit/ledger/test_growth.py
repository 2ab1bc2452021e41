"""Growth laws, counted and not timed: what a claim reads, what a finished task keeps, what one entry touches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.limits import CLAIM_PAGE, GRANTS_MAX, PAGE_RECORDS, REQUEST_HORIZON_MS
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.resources import Requirements
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.store.memory_tables import MemoryTables
from tests.ledger_in_hand import PAIR, LedgerInHand

ALONE = (TaskShape("alone"),)


class CountingTables(MemoryTables):
    """Counts keys read and written."""

    reads = 0
    writes = 0

    def get(self, key: bytes) -> bytes | None:
        self.reads += 1
        return super().get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.writes += 1
        super().put(key, value)

    def delete(self, key: bytes) -> None:
        self.writes += 1
        super().delete(key)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self.reads += 1
        for pair in super().scan(start, stop, reverse=reverse):
            self.reads += 1
            yield pair


def counting(jobs: int, shapes: tuple[TaskShape, ...] = ALONE) -> tuple[LedgerInHand, CountingTables]:
    kv = CountingTables()
    ledger = LedgerInHand(kv, checked=False)
    ledger.found("madison", "desy")
    ledger.submit(jobs, shapes)
    return ledger, kv


def reads_of_a_claim(ledger: LedgerInHand, kv: CountingTables, limit: int = 16) -> int:
    before = kv.reads
    assert len(ledger.claim("madison", limit)) == limit
    return kv.reads - before


def test_a_claim_reads_the_same_however_many_tasks_are_ready() -> None:
    reads = {jobs: reads_of_a_claim(*counting(jobs)) for jobs in (100, 10_000, 1_000_000, 100_000_000)}
    assert len(set(reads.values())) == 1, reads
    assert reads[100] < 100


def test_a_claim_reads_the_same_however_many_tasks_are_done() -> None:
    ledger, kv = counting(1_000_000, PAIR)
    few = 0
    for rounds in (2, 20):
        for _ in range(rounds):
            ledger.run("madison", 50)
        ledger.tick()
        few = few or reads_of_a_claim(ledger, kv)
    assert reads_of_a_claim(ledger, kv) <= few + CLAIM_PAGE


def test_a_claim_reads_a_page_however_many_tasks_wait_for_others_or_do_not_fit() -> None:
    ledger, kv = counting(10, ALONE)
    many = tuple(TaskShape(f"t{n}", (), Requirements(memory_mib=50_000 + n)) for n in range(300))
    ledger.submit(1_000_000, many)
    assert reads_of_a_claim(ledger, kv, 8) < 1_000  # One per class that does not fit, and what it grants.


def test_a_claim_looks_at_one_page_of_tasks_kept_for_another_site() -> None:
    ledger, kv = counting(2_000, PAIR)
    for _ in range(4):
        refs = ledger.claim("madison", 500)
        ledger.start("madison", *refs)
        for ref in refs:
            ledger.finish(ref, "madison")
    before = kv.reads
    ledger.claim("desy", 4)  # Two thousand children wait at Madison, for a moment.
    assert kv.reads - before < 4 * (CLAIM_PAGE + 50)


@pytest.mark.parametrize("jobs", [100, 3_000])
def test_no_entry_touches_many_more_records_than_a_page(jobs: int) -> None:
    ledger, kv = counting(jobs, PAIR)
    for _ in range(jobs // 500 + 1):
        refs = ledger.claim("madison", min(500, GRANTS_MAX))
        if refs:
            ledger.start("madison", *refs)
    most = 0
    for command in (
        c.ControlDataset(1, c.Verb.SUSPEND),
        c.ControlDataset(1, c.Verb.RESUME),
        c.ControlTasks(1, c.Verb.RESET, 0, jobs - 1),
        c.ControlDataset(1, c.Verb.TRUNCATE),
        c.ControlDataset(1, c.Verb.ABORT),
        c.ControlDataset(1, c.Verb.RESET),
        c.ControlDataset(1, c.Verb.ABORT),
        c.ControlDataset(1, c.Verb.DELETE),
    ):
        before = kv.writes
        ledger.done(command)
        most = max(most, kv.writes - before)
        for _ in range(2):
            before = kv.writes
            ledger.tick()
            most = max(most, kv.writes - before)
    assert most < PAGE_RECORDS * 10  # A task is about ten keys.
    while queries.sweeps_pending(kv):
        ledger.tick()
    assert queries.dataset(kv, 1) is None
    left = [key for key, _ in kv.items() if key[0] >= 0x20 and key[1:5] == (1).to_bytes(4, "big")]
    assert not left


def test_a_site_with_thousands_of_tasks_is_swept_page_by_page() -> None:
    ledger, kv = counting(3_000, ALONE)
    while ledger.claim("madison", 500):
        pass
    site = queries.site(kv, "madison")
    assert site is not None and site.held == 3_000
    ledger.tick(601_000)
    site = queries.site(kv, "madison")
    assert site is not None and 1_000 <= site.held <= 2_000
    ledger.tick()
    ledger.tick()
    site = queries.site(kv, "madison")
    assert site is not None and (site.held, site.losses) == (0, 3_000)


def test_a_finished_task_keeps_about_150_bytes_on_disk_beside_statistics_and_files(tmp_path: Path) -> None:
    ledger, _ = counting(1_000_000, ALONE)
    environment = Environment(tmp_path / "data", map_size_bytes=1 << 28, sync=False)
    sizes: list[int] = []
    try:
        index = 0
        for _ in range(3):
            for _ in range(15):
                ledger.run("madison", 100)
            for _ in range(30):  # Requests are forgotten when their time has come.
                ledger.tick(REQUEST_HORIZON_MS + 1)
            transaction = environment.write()
            for entry in ledger.entries[index:]:
                index += 1
                apply(transaction.ledger, index, ledger.term, entry)
            transaction.commit()
            environment.checkpoint()
            sizes.append(environment.table_bytes("ledger"))
    finally:
        environment.close()
    per_task = (sizes[2] - sizes[1]) / 1_500
    assert 0 < per_task <= 160, sizes  # Whole pages of few tasks: `benchmarks/scale.py` counts many.
