"""What a site holds is counted right through claims, ends and returns, and a large stock is not read again and
again.
"""

from __future__ import annotations

from collections import Counter

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.ledger.commands import Claim, ControlDataset, GiveBack, TaskRef, Verb
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.resources import Offer, Requirements
from iceprod_p2p.site import held_tasks
from iceprod_p2p.site.held_tasks import HeldCounts
from tests.unit.site.one_ledger import NOW_MS, OneLedger

SMALL, LARGE = Requirements(memory_mib=100, disk_mib=100), Requirements(memory_mib=4_000, disk_mib=100)


def claim(ledger: OneLedger, memory_mib: int, limit: int) -> list[TaskRef]:
    offer = Offer("cpu", limit, memory_mib=memory_mib, disk_mib=1_000, walltime_s=90_000)
    grants = ledger.must(Claim("madison", (offer,), limit)).grants
    assert len(grants) == limit
    return [TaskRef(grant.dataset, grant.job, grant.task, grant.attempt) for grant in grants]


def test_counts_follow_claims_at_once_and_returns_soon_without_reading_again_what_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, clock = OneLedger(), ManualClock(wall_ms=NOW_MS)
    ledger.found()
    reads = 0
    see = held_tasks.see_task

    def slow(t: Tables, place: held_tasks.Place) -> object:
        nonlocal reads
        reads += 1
        clock.advance(0.01)
        return see(t, place)

    monkeypatch.setattr(held_tasks, "see_task", slow)
    for need in (SMALL, LARGE):
        ledger.submit(jobs=100, shapes=(TaskShape("work", (), need),))
    counts = HeldCounts(clock)

    def now() -> Counter[Requirements]:
        return Counter(counts.counts(Tables(ledger.kv), "madison"))

    assert now() == Counter()
    refs = claim(ledger, 200, 10)
    assert (now(), reads) == ({SMALL: 10}, 10)
    assert (now(), reads) == ({SMALL: 10}, 10), "nothing changed, so nothing is read"
    ledger.must(GiveBack("madison", tuple(refs[:4])))
    assert now() == {SMALL: 10}, "a walk took 0.1 s, so the next waits 5 s"
    clock.advance(6)
    assert now() == {SMALL: 6}
    assert reads <= 11, "one slice at most is read anew"
    ledger.must(GiveBack("madison", tuple(refs[4:5])))
    ledger.submit(jobs=3, shapes=(TaskShape("work", (), LARGE),))
    claim(ledger, 9_000, 3)
    total = now()
    assert sum(total.values()) == 8, "a claim is seen at once"
    assert reads <= 11 + 4
    clock.advance(6)
    ledger.must(GiveBack("madison", tuple(refs[5:6])))
    assert sum(now().values()) == 7
    assert counts.counts(Tables(ledger.kv), "nowhere") == Counter()


def test_what_a_command_for_a_whole_dataset_took_away_is_not_counted_though_its_sweep_is_still_to_come() -> (
    None
):
    ledger = OneLedger()
    ledger.found()
    ledger.submit(jobs=5, shapes=(TaskShape("work", (), SMALL),))
    counts = HeldCounts(ManualClock(wall_ms=NOW_MS))
    claim(ledger, 200, 5)
    assert counts.counts(Tables(ledger.kv), "madison") == {SMALL: 5}
    ledger.must(ControlDataset(1, Verb.ABORT))
    assert counts.counts(Tables(ledger.kv), "madison") == Counter()
