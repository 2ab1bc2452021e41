"""The queue follows the demand within its limits; a plan carried out leaves nothing to do; a drain ends at
zero.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.site.plans.queue import (
    BACK_OFF_MOST_S,
    BackOff,
    ClassDemand,
    QueueJob,
    QueueLimits,
    QueuePlan,
    RemoveGridJob,
    Standing,
    SubmitPilots,
    after_failure,
    after_success,
    plan_queue,
)

NAMES = ("cpu", "gpu", "big")
DEMANDS = st.lists(
    st.builds(
        ClassDemand,
        resource_class=st.sampled_from(NAMES),
        tasks_waiting=st.integers(0, 200),
        slots=st.integers(1, 16),
        slots_free=st.integers(0, 40),
        jobs_max=st.integers(0, 20),
    ),
    max_size=3,
    unique_by=lambda demand: demand.resource_class,
)
JOBS = st.lists(
    st.builds(
        QueueJob,
        tag=st.text("abcdef0123456789", min_size=1, max_size=6),
        resource_class=st.sampled_from(NAMES),
        standing=st.sampled_from(Standing),
        since_s=st.integers(0, 100).map(float),
    ),
    max_size=40,
    unique_by=lambda job: job.tag,
)
LIMITS = st.builds(
    QueueLimits,
    jobs_max=st.integers(0, 50),
    per_submit=st.integers(1, 20),
    queued_max=st.integers(0, 30),
    held_max_s=st.sampled_from([10.0, 50.0]),
)


def carried_out(jobs: list[QueueJob], plan: QueuePlan) -> list[QueueJob]:
    """Return the queue after a plan, when nothing has started meanwhile."""
    removed = {remove.tag for remove in plan.removes}
    new = [
        QueueJob(
            f"new-{len(jobs)}-{submit.resource_class}-{number}", submit.resource_class, Standing.QUEUED, 100.0
        )
        for submit in plan.submits
        for number in range(submit.count)
    ]
    return [job for job in jobs if job.tag not in removed] + new


def of_class(jobs: list[QueueJob], name: str) -> int:
    return sum(job.resource_class == name for job in jobs)


@given(DEMANDS, JOBS, LIMITS)
def test_no_limit_is_ever_passed_by_a_submission(
    demands: list[ClassDemand], jobs: list[QueueJob], limits: QueueLimits
) -> None:
    plan = plan_queue(demands, jobs, limits, now_s=100.0)
    count = sum(submit.count for submit in plan.submits)
    assert count <= limits.per_submit
    if count:
        assert len(jobs) + count <= limits.jobs_max
        waiting = sum(job.standing is not Standing.RUNNING for job in jobs) + count
        assert not limits.queued_max or waiting <= limits.queued_max
    most = {demand.resource_class: demand.jobs_max for demand in demands}
    for submit in plan.submits:
        assert submit.count > 0
        cap = most[submit.resource_class]
        assert not cap or of_class(jobs, submit.resource_class) + submit.count <= cap


@given(DEMANDS, JOBS, LIMITS)
def test_repeating_carried_out_plans_ends_in_a_queue_that_has_all_it_may(
    demands: list[ClassDemand], jobs: list[QueueJob], limits: QueueLimits
) -> None:
    for _ in range(200):
        plan = plan_queue(demands, jobs, limits, now_s=100.0)
        assert plan == plan_queue(demands, jobs, limits, now_s=100.0)
        if not plan.submits and not plan.removes:
            break
        jobs = carried_out(jobs, plan)
    else:
        raise AssertionError("the plans never come to rest")
    for demand in demands:
        waiting = sum(
            job.resource_class == demand.resource_class
            and job.standing in (Standing.QUEUED, Standing.UNCLEAR)
            for job in jobs
        )
        lacks = (waiting * demand.slots) < demand.tasks_waiting - demand.slots_free
        if lacks:
            assert any(text.startswith(demand.resource_class) for text in plan.waits)


@given(DEMANDS, JOBS, LIMITS)
def test_a_drain_submits_nothing_and_empties_the_queue(
    demands: list[ClassDemand], jobs: list[QueueJob], limits: QueueLimits
) -> None:
    plan = plan_queue(demands, jobs, limits, now_s=100.0, draining=True)
    assert plan.submits == ()
    left = carried_out(jobs, plan)
    assert all(job.standing in (Standing.RUNNING, Standing.UNCLEAR) for job in left)
    assert plan_queue(demands, left, limits, now_s=100.0, draining=True).removes == ()


def test_a_pilot_serves_as_many_waiting_tasks_as_it_has_slots() -> None:
    demand = ClassDemand("cpu", tasks_waiting=10, slots=4)
    plan = plan_queue([demand], [], QueueLimits(100, 100), now_s=0.0)
    assert plan == QueuePlan(submits=(SubmitPilots("cpu", 3),))


def test_free_slots_of_running_pilots_and_queued_pilots_count_against_the_demand() -> None:
    jobs = [QueueJob("a", "cpu", Standing.RUNNING), QueueJob("b", "cpu", Standing.QUEUED)]
    demand = ClassDemand("cpu", tasks_waiting=6, slots=2, slots_free=2)
    assert plan_queue([demand], jobs, QueueLimits(100, 100), now_s=0.0).submits == (SubmitPilots("cpu", 1),)


def test_scarce_room_goes_to_the_class_in_greatest_want_first() -> None:
    demands = [ClassDemand("cpu", 2), ClassDemand("gpu", 5)]
    plan = plan_queue(demands, [], QueueLimits(jobs_max=4, per_submit=10), now_s=0.0)
    assert plan.submits == (SubmitPilots("cpu", 1), SubmitPilots("gpu", 3))
    assert plan.waits == (
        "cpu: 1 more pilots wanted than the limits allow now",
        "gpu: 2 more pilots wanted than the limits allow now",
    )


def test_a_class_at_its_own_limit_leaves_the_room_to_others() -> None:
    demands = [ClassDemand("cpu", 3), ClassDemand("gpu", 50, jobs_max=1)]
    plan = plan_queue(demands, [], QueueLimits(jobs_max=10, per_submit=10), now_s=0.0)
    assert plan.submits == (SubmitPilots("cpu", 3), SubmitPilots("gpu", 1))


def test_submissions_keep_their_distance() -> None:
    demand = ClassDemand("cpu", 3)
    limits = QueueLimits(jobs_max=10, per_submit=1, interval_s=5.0)
    assert plan_queue([demand], [], limits, now_s=14.9, last_submit_s=10.0).submits == ()
    assert plan_queue([demand], [], limits, now_s=15.0, last_submit_s=10.0).submits == (
        SubmitPilots("cpu", 1),
    )


def test_held_grid_jobs_are_removed_after_a_while_and_replaced() -> None:
    jobs = [
        QueueJob("a", "cpu", Standing.HELD, since_s=0.0),
        QueueJob("b", "cpu", Standing.HELD, since_s=90.0),
    ]
    limits = QueueLimits(jobs_max=10, per_submit=5, held_max_s=50.0)
    plan = plan_queue([ClassDemand("cpu", 1)], jobs, limits, now_s=100.0)
    assert plan.removes == (RemoveGridJob("a", "held for more than 50 s"),)
    assert plan.submits == (SubmitPilots("cpu", 1),)


def test_a_failing_batch_system_is_left_alone_longer_and_longer() -> None:
    waits = []
    back_off = after_success()
    now_s = 0.0
    for _ in range(10):
        back_off = after_failure(back_off, now_s=now_s)
        waits.append(back_off.until_s - now_s)
        plan = plan_queue([ClassDemand("cpu", 5)], [], QueueLimits(9, 9), now_s=now_s, back_off=back_off)
        assert plan.submits == () and plan.removes == () and plan.waits
        now_s = back_off.until_s
    assert waits == sorted(waits)
    assert waits[:3] == [10.0, 20.0, 40.0] and waits[-1] == BACK_OFF_MOST_S
    assert plan_queue([ClassDemand("cpu", 5)], [], QueueLimits(9, 9), now_s=now_s, back_off=back_off).submits
    assert after_success() == BackOff()
