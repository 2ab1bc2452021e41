"""What a site claims, which pilot gets what, and what may be thrown away: decided by pure functions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.model.resources import Offer, Requirements
from iceprod_p2p.site.plans.claims import ClassCapacity, fit_of, plan_offers
from iceprod_p2p.site.plans.cleanup import (
    LOST_PILOT_KEPT_S,
    ORPHAN_AGE_S,
    PILOT_KEPT_S,
    Ending,
    PilotDirectory,
    StoredBlob,
    cache_victims,
    old_pilot_directories,
    orphan_blobs,
)
from iceprod_p2p.site.plans.orders import Candidate, Room, choose

CPU = Offer("cpu", 0)
GPU = Offer("gpu", 0, gpus=1)
BIG = Offer("big", 0, cpus=8, memory_mib=16_000)


def test_an_idle_site_offers_what_it_has_and_could_have() -> None:
    offers = plan_offers([ClassCapacity(CPU, 4, 6)], {}, ahead=0)
    assert [(offer.resource_class, offer.slots) for offer in offers] == [("cpu", 10)]


def test_a_full_site_offers_nothing_and_a_stock_is_kept_ahead() -> None:
    capacity = [ClassCapacity(CPU, 4, 0)]
    assert plan_offers(capacity, {Requirements(): 4}, ahead=0) == ()
    assert [offer.slots for offer in plan_offers(capacity, {Requirements(): 4}, ahead=0.5)] == [3]
    assert plan_offers(capacity, {Requirements(): 40}, ahead=0.5) == ()


def test_held_tasks_take_the_tightest_slots_so_big_ones_stay_offered() -> None:
    capacity = [ClassCapacity(BIG, 2, 0), ClassCapacity(CPU, 2, 0), ClassCapacity(GPU, 1, 0)]
    offers = plan_offers(capacity, {Requirements(): 2}, ahead=0)
    assert {offer.resource_class: offer.slots for offer in offers} == {"big": 2, "gpu": 1}
    assert offers[0].resource_class == "gpu"
    assert {o.resource_class for o in plan_offers(capacity, {Requirements(gpus=1): 1}, ahead=0)} == {
        "big",
        "cpu",
    }


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.dictionaries(st.builds(Requirements, cpus=st.integers(1, 8)), st.integers(0, 40), max_size=4),
    st.integers(1, 30),
)
def test_never_more_is_offered_than_slots_or_limit_allow(
    live: int, possible: int, held: dict[Requirements, int], limit: int
) -> None:
    capacity = [ClassCapacity(CPU, live, possible), ClassCapacity(BIG, 1, 0)]
    offered = sum(offer.slots for offer in plan_offers(capacity, held, ahead=0, limit=limit))
    assert offered <= min(limit, live + possible + 1)


def test_a_task_that_fits_no_class_is_seen_to_fit_none() -> None:
    assert fit_of(Requirements(memory_mib=10**6), [CPU, GPU, BIG]) is None
    assert fit_of(Requirements(), [BIG, GPU, CPU]) == CPU


def candidates(*needs: Requirements) -> list[Candidate]:
    return [Candidate(TaskRef(1, number, 0, 0), need) for number, need in enumerate(needs)]


ROOM = Room(slots=3, cpus=4, gpus=0, memory_mib=4_096, disk_mib=10_240, walltime_s=7_200)


def test_a_pilot_gets_tasks_in_order_and_smaller_ones_fill_what_is_left() -> None:
    chosen = choose(candidates(Requirements(cpus=3), Requirements(cpus=2), Requirements()), ROOM)
    assert [entry.ref.job for entry in chosen] == [0, 2]


def test_gpu_tasks_come_first_on_a_gpu_pilot_and_never_reach_another() -> None:
    mixed = candidates(Requirements(), Requirements(gpus=1))
    assert [entry.ref.job for entry in choose(mixed, ROOM)] == [0]
    gpu = Room(3, 4, 1, 4_096, 10_240, 7_200)
    assert [entry.ref.job for entry in choose(mixed, gpu)] == [1, 0]
    only = Room(3, 4, 1, 4_096, 10_240, 7_200, gpu_tasks_only=True)
    assert [entry.ref.job for entry in choose(mixed, only)] == [1]


def test_a_task_longer_than_the_pilots_life_or_with_a_foreign_attribute_is_left() -> None:
    long = candidates(Requirements(walltime_s=10_000), Requirements(attributes=("ice",)), Requirements())
    assert [entry.ref.job for entry in choose(long, ROOM)] == [2]


@given(
    st.lists(st.builds(Requirements, cpus=st.integers(1, 5), memory_mib=st.integers(1, 3_000)), max_size=12)
)
def test_what_a_pilot_is_given_always_fits_together(needs: list[Requirements]) -> None:
    chosen = choose(candidates(*needs), ROOM)
    assert len(chosen) <= ROOM.slots
    assert sum(entry.need.cpus for entry in chosen) <= ROOM.cpus
    assert sum(entry.need.memory_mib for entry in chosen) <= ROOM.memory_mib


def test_only_old_unrecorded_blobs_are_orphans() -> None:
    blobs = [StoredBlob("old", 1, ORPHAN_AGE_S + 1), StoredBlob("kept", 1, 10**6), StoredBlob("young", 1, 5)]
    assert orphan_blobs(blobs, lambda sha256: sha256 == "kept") == ["old"]


def test_a_full_cache_loses_what_was_untouched_longest() -> None:
    blobs = [StoredBlob("a", 5, 100), StoredBlob("b", 5, 1), StoredBlob("c", 5, 50)]
    assert cache_victims(blobs, 10) == ["a"]
    assert cache_victims(blobs, 100) == []


def test_directories_of_live_pilots_stay_and_those_of_lost_ones_stay_longer() -> None:
    directories = [
        PilotDirectory("live", Ending.LIVE, 0),
        PilotDirectory("ended", Ending.ENDED, PILOT_KEPT_S + 1),
        PilotDirectory("lost", Ending.UNKNOWN, PILOT_KEPT_S + 1),
        PilotDirectory("gone", Ending.UNKNOWN, LOST_PILOT_KEPT_S + 1),
    ]
    assert old_pilot_directories(directories) == ["ended", "gone"]
