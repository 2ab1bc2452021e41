"""What a site holds, read so that a large stock costs little: the volunteer asks many times a second.

The site's counters tell whether anything changed at all.  When it did, only the keys of what is held are
walked, and only tasks that were not held before are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.moves import HELD, Place
from iceprod_p2p.ledger.reading import see_place, see_task
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.resources import Requirements

UNSTARTED, STARTED_STAGE = 0, 1  # The two halves of the index of what a site holds.
HELD_PAGE: Final = 50_000
WALK_SHARE: Final = 0.02  # Of the time of the event loop, unless tasks were claimed since.
PAUSE_S_MAX: Final = 5.0  # However long a walk took: what a large site holds changes little in that time.
SLICES: Final = 64  # A task that was lost and claimed again may need more: each walk reads one slice anew.
JOB_BYTE: Final = 7  # Of the tail of a key: the lowest of the job's number.


class HeldCounts:
    """How many tasks one site holds, by what they need; used on the event loop only.

    Exact right after claims, and while nothing changes.  While tasks of a large stock end the answer may be
    some seconds old, and then counts some that have ended.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[bytes, int] = {}  # Key in the index -> number of the requirements.
        self._counts: Counter[Requirements] = Counter()
        self._tally: tuple[int, ...] | None = None
        self._walk_at_s = float("-inf")
        self._slice = 0

    def counts(self, t: Tables, site: str) -> Counter[Requirements]:
        """Return the counts; do not change them."""
        record = t.site(site)
        if record is None:
            return Counter()
        tally = t.site_tally(record.number)
        ended = tally.complete + tally.failures + tally.losses
        now = (tally.held, ended, tally.processing, tally.copying)
        if self._tally is not None:
            claimed_since = now[0] + now[1] > self._tally[0] + self._tally[1]
            if now == self._tally or (not claimed_since and self._clock.monotonic_s() < self._walk_at_s):
                return self._counts
        self._walk(t, record.number, tally.held)
        self._tally = now
        return self._counts

    def _walk(self, t: Tables, site: int, held: int) -> None:
        began_s = self._clock.monotonic_s()
        self._slice = (self._slice + 1) % SLICES
        self._known = _read(t, site, self._known, anew=self._slice)
        if len(self._known) != min(held, 2 * HELD_PAGE):
            # A command for a whole dataset counts its tasks out at once; their keys go when its sweep comes by.
            self._known = _read(t, site, {}, anew=0)
        by_number = Counter(self._known.values())
        self._counts = Counter({t.requirements_of(number): count for number, count in by_number.items()})
        now_s = self._clock.monotonic_s()
        self._walk_at_s = now_s + min(PAUSE_S_MAX, (now_s - began_s) / WALK_SHARE)


def _read(t: Tables, site: int, known: Mapping[bytes, int], *, anew: int) -> dict[bytes, int]:
    """Return the requirements of all tasks in the index of what a site holds; those `known` are not read,
    but for one slice of them.
    """
    found: dict[bytes, int] = {}
    for stage in (UNSTARTED, STARTED_STAGE):
        for key, _ in t.scan_keys(keys.held(site, stage, 0, 0, 0)[:4], HELD_PAGE):
            tail = key[4:]
            number = known.get(tail) if tail[JOB_BYTE] % SLICES != anew else None
            if number is None:
                place = place_of(t, key)
                record = see_task(t, place) if place is not None else None
                if record is None or record.code not in HELD or record.site != site:
                    continue
                number = record.requirements
            found[tail] = number
    return found


def held_tasks(t: Tables, site: str, stage: int, limit: int) -> list[tuple[Place, r.TaskRecord]]:
    """Return up to `limit` tasks of one half of what a site holds, in order of their ids."""
    record = t.site(site)
    if record is None:
        return []
    places = (place_of(t, key) for key, _ in t.scan_keys(keys.held(record.number, stage, 0, 0, 0)[:4], limit))
    return [(place, see_task(t, place)) for place in places if place is not None]


def place_of(t: Tables, key: bytes) -> Place | None:
    """Return the place of a task by its key in the index; None when its dataset was deleted."""
    dataset, job, task = keys.task_of_tail(key)
    ds = t.dataset(dataset)
    return see_place(t, ds, job, task) if ds is not None else None
