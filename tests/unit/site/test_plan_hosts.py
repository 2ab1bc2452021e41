"""A host that swallows pilots is shut out and tried again later; a fault of the whole site is no host's."""

from __future__ import annotations

from iceprod_p2p.site.plans.hosts import (
    EXCLUDED_MAX,
    FAILURES_MAX,
    HOSTS_MAX,
    SHUT_OUT_MS,
    SHUT_OUT_MS_MAX,
    HostWatch,
    excluded,
)

MINUTE_MS = 60_000


def swallowing(failures: int = FAILURES_MAX) -> HostWatch:
    """A host that failed that often in a row, one a second, while another works."""
    watch = HostWatch()
    for number in range(failures):
        watch.failed("hole", number * 1_000)
        watch.works("good", submitted_ms=0, now_ms=number * 1_000)
    return watch


def test_a_host_is_shut_out_after_a_few_failures_in_a_row_for_a_time() -> None:
    assert swallowing(FAILURES_MAX - 1).shut_out(5_000) == {}
    watch, last_ms = swallowing(), (FAILURES_MAX - 1) * 1_000
    assert watch.shut_out(5_000) == {"hole": last_ms + SHUT_OUT_MS}
    assert watch.shut_out(last_ms + SHUT_OUT_MS) == {}


def test_one_more_failure_after_probation_shuts_out_for_twice_as_long_up_to_a_bound() -> None:
    watch, now_ms = swallowing(), 10_000
    for doubling in range(1, 12):
        now_ms = watch.shut_out(now_ms)["hole"]
        assert watch.failed("hole", now_ms)
        assert watch.shut_out(now_ms)["hole"] - now_ms == min(SHUT_OUT_MS << doubling, SHUT_OUT_MS_MAX)


def test_a_pilot_that_was_submitted_after_the_failures_and_enrols_clears_the_host() -> None:
    watch = swallowing()
    watch.works("hole", submitted_ms=500, now_ms=MINUTE_MS)
    assert "hole" in watch.shut_out(MINUTE_MS), "an old pilot says nothing of new ones"
    watch.works("hole", submitted_ms=MINUTE_MS, now_ms=2 * MINUTE_MS)
    assert watch.shut_out(2 * MINUTE_MS) == {}
    assert not watch.failed("hole", 3 * MINUTE_MS), "it begins anew"


def test_when_no_other_host_does_better_the_fault_is_not_the_hosts() -> None:
    watch = HostWatch()
    watch.works("good", submitted_ms=0, now_ms=0)
    for number in range(1, 10):
        for host in ("good", "a", "b"):
            assert not watch.failed(host, number * 1_000)
    watch.works("good", submitted_ms=20_000, now_ms=20_000)
    assert set(watch.shut_out(20_000)) == {"a", "b"}


def test_what_is_remembered_and_excluded_is_bounded_and_in_order() -> None:
    watch = HostWatch()
    for number in range(HOSTS_MAX + 5):
        watch.failed(f"h{number}", number)
        watch.works(f"g{number}", submitted_ms=number, now_ms=number)
    assert len(watch._failures) == len(watch._works_ms) == HOSTS_MAX
    assert excluded(["b", "a"], ["c", "a"]) == ("a", "b", "c")
    assert len(excluded([str(number) for number in range(1_000)], [])) == EXCLUDED_MAX
