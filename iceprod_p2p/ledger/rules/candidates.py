"""The ready tasks of one dataset and requirement class, best first, as a claim walks through them.

First those in the ready index (of started jobs: dependents, retries, tasks given back), then new jobs from
the watermarks.
"""

from __future__ import annotations

from typing import Final

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.limits import CLAIM_PAGE
from iceprod_p2p.ledger.moves import Place, fresh_task, read_job, read_task
from iceprod_p2p.ledger.tables import Dataset, Tables

_home: Final = msgspec.msgpack.Decoder(tuple[int, int]).decode


class Candidate:
    """One dataset's tasks of one class, for one claim of one site."""

    __slots__ = (
        "_keys",
        "_limit",
        "_next",
        "_roots",
        "_site",
        "_skips",
        "_t",
        "ds",
        "fitting",
        "requirements",
    )

    def __init__(
        self, t: Tables, ds: Dataset, requirements: int, fitting: list[int], *, site: int, limit: int
    ) -> None:
        self._t = t
        self._site = site
        self._limit = limit
        self._keys: list[bytes] | None = None  # The page of the ready index, once looked at.
        self._next = 0
        self._skips = CLAIM_PAGE
        self._roots = ds.roots(requirements) if ds.record.untouched == r.READY else []
        self.ds = ds
        self.requirements = requirements
        self.fitting = fitting

    def begins_job(self) -> bool:
        """Whether the next task belongs to a job that nothing was done for; until a look at the index says so, no."""
        if self._keys is None or self._next < len(self._keys):
            return False
        root = self._lowest_root()
        watermarks = self.ds.counts.watermarks
        return root is not None and watermarks[root[1]] == max(watermarks)

    def take(self) -> tuple[Place, r.TaskRecord] | None:
        """Return the next task that is ready, or None when there is no more within this claim's page."""
        if self._keys is None:
            self._look()
        return self._take_ready() or self._take_new()

    def look(self) -> bool:
        """Read the page of the ready index; True when it was not read before."""
        if self._keys is not None:
            return False
        self._look()
        return True

    def _look(self) -> None:
        prefix = keys.by_dataset_part(keys.READY, self.ds.number, self.requirements)
        page = self._t.scan_keys(prefix, self._limit + CLAIM_PAGE)
        self._keys = [key for key, home in page if self._may_take(home)]

    def _may_take(self, home: bytes) -> bool:
        """Whether the task is kept for no other site."""
        if not home:
            return True
        site, until_ms = _home(home)
        return site == self._site or until_ms <= self._t.now_ms

    def _take_ready(self) -> tuple[Place, r.TaskRecord] | None:
        assert self._keys is not None
        while self._next < len(self._keys):
            number, task = keys.job_and_task_of_ready(self._keys[self._next])
            self._next += 1
            place = Place(self.ds, number, read_job(self._t, self.ds, number), task)
            record = read_task(self._t, place)
            explicit = record.changed_ms != r.NEVER
            if explicit and record.code == r.READY and record.requirements == self.requirements:
                return place, record
        return None

    def _lowest_root(self) -> tuple[int, int] | None:
        watermarks, end = self.ds.counts.watermarks, self._end()
        if len(self._roots) == 1:
            return self._roots[0] if watermarks[self._roots[0][1]] < end else None
        open_roots = [root for root in self._roots if watermarks[root[1]] < end]
        return min(open_roots, key=lambda root: (watermarks[root[1]], root[0])) if open_roots else None

    def _end(self) -> int:
        record = self.ds.record
        return record.jobs if record.truncated_at < 0 else record.truncated_at

    def _take_new(self) -> tuple[Place, r.TaskRecord] | None:
        while self._skips >= 0:
            root = self._lowest_root()
            if root is None:
                return None
            task, slot = root
            number = self.ds.counts.watermarks[slot]
            self.ds.counts.watermarks[slot] = number + 1
            self.ds.save_counts()
            place = Place(self.ds, number, read_job(self._t, self.ds, number), task)
            record = self._t.tasks.get(place.key)
            if record is not None and record.epoch < self.ds.record.reset_epoch:
                record = read_task(self._t, place)  # From before a reset: it is void, and removed now.
                record = self._t.tasks.get(place.key)
            if record is None:
                fresh = fresh_task(place)
                if fresh.code == r.READY:
                    return place, fresh
            self._skips -= 1  # It has a record: whatever it waits for, it does not wait here.
        return None
