"""Reports of sites and pilots: who may report, what counts once, and what a stale pilot gets."""

from __future__ import annotations

import pytest

from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.limits import HOST_FAULTS_MAX, NODE_FAULTS_MAX
from iceprod_p2p.ledger.outcome import Applied, Refusal, Refused
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.resources import Offer, Requirements, Usage
from iceprod_p2p.model.states import FailReason, TaskState
from tests.ledger_in_hand import HOLDER, SLOTS, STEERING, LedgerInHand

ALONE = (TaskShape("alone"),)
OTHER = b"o" * 32


@pytest.fixture
def ledger() -> LedgerInHand:
    hand = LedgerInHand()
    hand.found("madison", "desy")
    return hand


def started(ledger: LedgerInHand, **fields: object) -> c.TaskRef:
    ledger.submit(1, ALONE, **fields)
    (ref,) = ledger.claim("madison")
    ledger.start("madison", ref)
    return ref


def row(ledger: LedgerInHand, ref: c.TaskRef):  # type: ignore[no-untyped-def]
    detail = queries.task(ledger.kv, ref.dataset, ref.job, ref.task)
    assert detail is not None
    return detail.row


def test_a_pilot_whose_lease_was_lost_changes_nothing(ledger: LedgerInHand) -> None:
    ref = started(ledger)
    ledger.tick(601_000)  # Madison was silent for longer than the grace.
    ledger.tick(1_000)
    assert row(ledger, ref).state is TaskState.READY
    outcome = ledger.finish(ref, "madison")
    assert outcome == Refused(Refusal.STALE_ATTEMPT, "task 1.0.0 is at attempt 1, not 0")
    assert row(ledger, ref).losses == 1 and row(ledger, ref).failures == 0


def test_only_the_holder_of_the_passkey_reports(ledger: LedgerInHand) -> None:
    ref = started(ledger)
    assert ledger.refused(c.CopyTask(ref, OTHER)).code is Refusal.NOT_HOLDER
    assert ledger.refused(c.FinishTask(ref, OTHER, "madison")).code is Refusal.NOT_HOLDER
    assert ledger.refused(c.FailTask(ref, OTHER, "madison", FailReason.PAYLOAD)).code is Refusal.NOT_HOLDER
    assert row(ledger, ref).state is TaskState.PROCESSING


def test_a_passkey_ends_when_it_expires(ledger: LedgerInHand) -> None:
    ledger.submit(1, ALONE)
    (ref,) = ledger.claim("madison")
    ledger.start("madison", ref, expires_ms=ledger.now_ms + 5_000)
    ledger.tick(6_000)
    assert ledger.refused(c.FinishTask(ref, HOLDER, "madison")).code is Refusal.STALE_ATTEMPT
    assert row(ledger, ref).state is TaskState.READY


def test_a_new_passkey_for_the_same_pilot_prolongs_its_attempt(ledger: LedgerInHand) -> None:
    ledger.submit(1, ALONE)
    (ref,) = ledger.claim("madison")
    ledger.start("madison", ref, expires_ms=ledger.now_ms + 5_000)
    ledger.tick(4_000)
    ledger.start("madison", ref, expires_ms=ledger.now_ms + 60_000)
    ledger.tick(6_000)
    assert isinstance(ledger.finish(ref, "madison"), Applied)


def test_a_task_handed_to_one_pilot_is_not_handed_to_another(ledger: LedgerInHand) -> None:
    ref = started(ledger)
    outcome = ledger.start("madison", ref, holder=OTHER)
    assert outcome.grants == () and "another pilot" in outcome.notes[0]
    record = queries.start_record(ledger.kv, ref)
    assert record is not None and record.holder == HOLDER


def test_a_result_reported_twice_counts_once(ledger: LedgerInHand) -> None:
    ref = started(ledger)
    files = (FileEntry("out", 5, STEERING),)
    assert ledger.finish(ref, "madison", statistics={"n": 2.0}, files=files) == Applied()
    again = ledger.finish(ref, "desy", statistics={"n": 2.0}, files=files)
    assert again == Applied(("finished before with the same result",))
    assert queries.statistics(ledger.kv, 1)["alone"]["n"].count == 1


def test_another_result_for_a_finished_attempt_is_a_conflict(ledger: LedgerInHand) -> None:
    ref = started(ledger)
    ledger.finish(ref, "madison", statistics={"n": 2.0})
    outcome = ledger.finish(ref, "madison", statistics={"n": 3.0})
    assert isinstance(outcome, Refused) and outcome.code is Refusal.CONFLICT
    assert queries.statistics(ledger.kv, 1)["alone"]["n"].sum == 2.0


def test_a_failure_reported_twice_counts_once(ledger: LedgerInHand) -> None:
    ref = started(ledger)
    report = c.FailTask(ref, HOLDER, "madison", FailReason.PAYLOAD, "segmentation fault", 139)
    ledger.done(report)
    assert ledger.done(report).notes == ("failed before with the same report",)
    assert row(ledger, ref).failures == 1
    assert row(ledger, ref).message == "segmentation fault"


def test_a_fault_of_the_site_uses_up_no_attempt_but_not_for_ever(ledger: LedgerInHand) -> None:
    number = ledger.submit(1, ALONE, attempts_max=1)
    for _ in range(NODE_FAULTS_MAX):
        (ref,) = ledger.claim("madison")
        ledger.done(c.FailTask(ref, b"", "madison", FailReason.EVICTED))
    last = row(ledger, c.TaskRef(number, 0, 0, 0))
    assert (last.state, last.failures, last.losses) == (TaskState.FAILED, 0, NODE_FAULTS_MAX)
    site = queries.site(ledger.kv, "madison")
    assert site is not None and site.losses == NODE_FAULTS_MAX and site.failures == 0


def test_a_host_that_swallows_tasks_gets_no_more(ledger: LedgerInHand) -> None:
    ledger.submit(HOST_FAULTS_MAX + 2, ALONE)
    for _ in range(HOST_FAULTS_MAX):
        (ref,) = ledger.claim("madison")
        ledger.start("madison", ref, host="blackhole")
        ledger.done(c.FailTask(ref, HOLDER, "madison", FailReason.SOFTWARE))
    (ref,) = ledger.claim("madison")
    assert ledger.start("madison", ref, host="blackhole").grants == ()
    assert len(ledger.start("madison", ref, host="good").grants) == 1


def test_a_host_whose_batch_system_wants_its_slots_back_is_not_blamed(ledger: LedgerInHand) -> None:
    ledger.submit(HOST_FAULTS_MAX + 1, ALONE)
    for _ in range(HOST_FAULTS_MAX):
        (ref,) = ledger.claim("madison")
        ledger.start("madison", ref, host="busy")
        ledger.done(c.FailTask(ref, HOLDER, "madison", FailReason.EVICTED))
    (ref,) = ledger.claim("madison")
    assert len(ledger.start("madison", ref, host="busy").grants) == 1


def test_a_task_that_ran_out_of_memory_asks_for_more(ledger: LedgerInHand) -> None:
    needs = Requirements(memory_mib=1_000)
    number = ledger.submit(1, (TaskShape("alone", (), needs),), retry_pause_ms=1)
    (ref,) = ledger.claim("madison")
    ledger.start("madison", ref)
    usage = Usage(1, 1, 1_010, 1)
    ledger.done(c.FailTask(ref, HOLDER, "madison", FailReason.MEMORY, usage=usage))
    ledger.tick(10)
    assert row(ledger, ref).requirements == Requirements(memory_mib=1_536)
    assert ledger.claim("madison") == []  # A slot of 1,024 MiB is too small now.
    assert len(ledger.claim("madison", 1, (Offer("big", 1, memory_mib=2_000),))) == 1
    assert number == 1


def test_growth_is_bounded(ledger: LedgerInHand) -> None:
    ledger.submit(1, ALONE, retry_pause_ms=1, attempts_max=9)
    big = (Offer("big", 1, memory_mib=10**9),)
    for _ in range(8):
        (ref,) = ledger.claim("madison", 1, big)
        ledger.start("madison", ref)
        ledger.done(c.FailTask(ref, HOLDER, "madison", FailReason.MEMORY, usage=Usage(1, 1, 10**7, 1)))
        ledger.tick(10)
    assert row(ledger, ref).requirements.memory_mib == 8 * 1_024


def test_claims_given_back_are_ready_again_at_a_new_attempt(ledger: LedgerInHand) -> None:
    ledger.submit(1, ALONE)
    (ref,) = ledger.claim("madison")
    ledger.done(c.GiveBack("madison", (ref,)))
    assert (row(ledger, ref).state, row(ledger, ref).attempt) == (TaskState.READY, 1)
    assert row(ledger, ref).losses == 0


def test_a_site_reports_only_what_it_holds(ledger: LedgerInHand) -> None:
    ledger.submit(1, ALONE)
    (ref,) = ledger.claim("madison")
    assert "not held by desy" in ledger.done(c.QueueTasks("desy", (ref,))).notes[0]
    assert "not held by desy" in ledger.done(c.GiveBack("desy", (ref,))).notes[0]
    assert ledger.refused(c.FailTask(ref, b"", "desy", FailReason.GRID)).code is Refusal.WRONG_SITE
    assert row(ledger, ref).state is TaskState.CLAIMED


def test_what_does_not_exist_is_refused_by_name(ledger: LedgerInHand) -> None:
    ledger.submit(1, ALONE)
    for ref in (c.TaskRef(9, 0, 0, 0), c.TaskRef(1, 1, 0, 0), c.TaskRef(1, 0, 1, 0)):
        assert ledger.refused(c.FinishTask(ref, HOLDER, "madison")).code is Refusal.NOT_FOUND
    assert ledger.refused(c.Claim("nowhere", SLOTS, 1)).code is Refusal.NOT_FOUND


def test_a_pilot_that_reports_elsewhere_outlives_its_sites_silence(ledger: LedgerInHand) -> None:
    ledger.submit(2, ALONE)
    kept, lost = ledger.claim("madison", 2)
    ledger.start("madison", kept, lost)
    for _ in range(4):
        ledger.tick(200_000)
        ledger.beat("desy", "n1", kept)
    ledger.tick(1_000)
    assert row(ledger, kept).state is TaskState.PROCESSING
    assert row(ledger, lost).state is TaskState.READY
    assert isinstance(ledger.finish(kept, "desy"), Applied)


def test_files_are_never_changed(ledger: LedgerInHand) -> None:
    number = ledger.submit(1, (TaskShape("a"), TaskShape("b")))
    first, second = ledger.claim("madison", 2)
    ledger.start("madison", first, second)
    ledger.finish(first, "madison", files=(FileEntry("out", 5, STEERING),))
    other = FileEntry("out", 5, "6" * 64)
    outcome = ledger.finish(second, "madison", files=(other,))
    assert isinstance(outcome, Refused) and outcome.code is Refusal.CONFLICT
    assert "another checksum" in outcome.detail
    found = queries.file(ledger.kv, number, 0, "out")
    assert found is not None and (found.sha256, found.sites) == (STEERING, ("madison",))
    assert queries.holders(ledger.kv, STEERING).sites == ("madison",)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_statistics_that_are_no_numbers_are_refused(ledger: LedgerInHand, value: float) -> None:
    ref = started(ledger)
    assert ledger.refused(c.FinishTask(ref, HOLDER, "madison", {"x": value})).code is Refusal.MALFORMED
    assert isinstance(ledger.finish(ref, "madison", statistics={"x": 1.0}), Applied)
