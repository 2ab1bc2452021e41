"""Statistics: counted once per task, when its result is accepted; counted out again when it is reset.

Sums are exact, so the order of completion does not matter.  Minimum and maximum cannot be taken back: when a
value that was one of them goes, a sweep finds them anew from what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger.limits import STATISTICS_MAX
from iceprod_p2p.ledger.moves import Place
from iceprod_p2p.ledger.outcome import Refusal, Refused
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.ledger.tally import Tally


def check_statistics(statistics: Mapping[str, float]) -> Refused | None:
    """Refuse statistics that cannot be counted."""
    if len(statistics) > STATISTICS_MAX:
        return Refused(
            Refusal.LIMIT, f"{len(statistics)} statistics: at most {STATISTICS_MAX} may be reported"
        )
    for name, value in statistics.items():
        if not isfinite(value):
            return Refused(Refusal.MALFORMED, f"statistic {name!r} is not a finite number")
    return None


def count_statistics(t: Tables, place: Place, statistics: Mapping[str, float]) -> str:
    """Count a complete task's statistics in, and keep them; returns a note if some names were one too many."""
    if not statistics:
        return ""
    key = keys.by_dataset_part(keys.TALLY, place.ds.number, place.task)
    tallies = t.tallies.get(key) or {}
    counted: dict[str, float] = {}
    for name in sorted(statistics):
        tally = tallies.get(name)
        if tally is None:
            if len(tallies) >= STATISTICS_MAX:
                continue
            tally = tallies[name] = Tally()
        value = statistics[name] + 0.0  # Turns -0.0 into 0.0: their order must not show in an extreme.
        counted[name] = value
        tally.add(value)
    t.tallies.put(key, tallies)
    t.statistics.put(keys.STATISTICS + place.tail, counted)
    left_out = len(statistics) - len(counted)
    return (
        f"{left_out} statistics were left out: {STATISTICS_MAX} different names are counted"
        if left_out
        else ""
    )


def uncount_statistics(t: Tables, place: Place) -> bool:
    """Count a task's statistics out again and forget them; return whether extremes must be found anew."""
    key = keys.by_task(keys.STATISTICS, place.ds.number, place.number, place.task)
    statistics = t.statistics.get(key)
    if statistics is None:
        return False
    tally_key = keys.by_dataset_part(keys.TALLY, place.ds.number, place.task)
    tallies = t.tallies.get(tally_key) or {}
    stale = False
    for name in sorted(statistics):
        tally = tallies[name]
        stale = tally.take_back(statistics[name]) or stale
        if tally.count == 0:
            del tallies[name]
    if tallies:
        t.tallies.put(tally_key, tallies)
    else:
        t.tallies.delete(tally_key)
    t.statistics.delete(key)
    return stale
