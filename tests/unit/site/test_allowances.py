"""What one caller asks too much costs that caller alone."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.model.identity import IdentityKind
from iceprod_p2p.site.allowances import ALLOWANCES, CALLERS_MAX, Allowances

PERSON = IdentityKind.PERSON
ALLOWED = ALLOWANCES[PERSON]


def called(allowances: Allowances, who: str, times: int, kind: IdentityKind | None = PERSON) -> int:
    """How many of `times` calls, one after the other, were served."""
    served = 0
    for _ in range(times):
        try:
            with allowances.call(kind, who):
                served += 1
        except Unavailable:
            continue
    return served


def test_a_burst_is_served_and_then_so_many_each_second() -> None:
    clock = ManualClock()
    allowances = Allowances(clock)
    assert called(allowances, "person:paul", ALLOWED.burst + 50) == ALLOWED.burst
    clock.advance(2.0)
    assert called(allowances, "person:paul", 10_000) == 2 * ALLOWED.per_s
    assert called(allowances, "person:mary", 10) == 10, "others are served as before"
    clock.advance(3_600.0)
    assert called(allowances, "person:paul", 10_000) == ALLOWED.burst, "a long pause saves up one burst"


def test_refusals_are_logged_once_a_minute_with_their_number() -> None:
    clock = ManualClock()
    allowances = Allowances(clock)
    with capture_logs() as logs:
        called(allowances, "person:paul", ALLOWED.burst + 500)
        called(allowances, "person:mary", 10)
        clock.advance(61.0)
        called(allowances, "person:paul", ALLOWED.burst + 1)
    assert [(line["who"], line["calls"]) for line in logs] == [("person:paul", 1), ("person:paul", 500)]


def test_a_refusal_says_when_to_come_back() -> None:
    allowances = Allowances(ManualClock())
    called(allowances, "person:paul", ALLOWED.burst)
    with (
        pytest.raises(Unavailable, match="more than 100 times per second") as refusal,
        allowances.call(PERSON, "person:paul"),
    ):
        pass
    assert 0 < refusal.value.retry_after_s <= 1


def test_so_many_calls_are_under_way_at_once_and_end_with_their_block() -> None:
    allowances = Allowances(ManualClock())
    calls = [allowances.call(PERSON, "person:paul") for _ in range(ALLOWED.at_once)]
    for call in calls:
        call.__enter__()
    with pytest.raises(Unavailable, match="under way already"), allowances.call(PERSON, "person:paul"):
        pass
    calls[0].__exit__(None, None, None)
    assert called(allowances, "person:paul", 1) == 1
    with pytest.raises(ZeroDivisionError), allowances.call(PERSON, "person:mary"):
        raise ZeroDivisionError
    assert called(allowances, "person:mary", 1) == 1


def test_hosts_without_a_certificate_are_counted_apart_and_memory_is_bounded() -> None:
    allowances = Allowances(ManualClock())
    first = allowances.call(None, "first")
    first.__enter__()
    for number in range(CALLERS_MAX + 500):
        called(allowances, f"10.0.{number}", 1, kind=None)
    assert len(allowances._accounts) <= CALLERS_MAX
    assert (None, "first") in allowances._accounts, "a call under way is never forgotten"
    first.__exit__(None, None, None)
