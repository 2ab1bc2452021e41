"""The ledger's invariants after every entry, by looking only at what the entry changed.

Keeps its own counts of every job, and its own sets of what must be in each index, and lets each entry's writes change
them; then it compares them with what the ledger noted, by the sentences of `ledger.invariants`.  A full scan
(`ledger.invariants.check`) now and then sees what this cannot: records that should have changed and did not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from iceprod_p2p.ledger import invariants, keys, limits
from iceprod_p2p.ledger.invariants_dataset import DatasetCheck
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.tables import Tables

Write = tuple[bytes, bytes | None]  # A key, and what it held before.


class _News:
    """What one entry's writes make worth a look."""

    def __init__(self) -> None:
        self.jobs: dict[int, set[int]] = {}  # Dataset -> jobs whose records changed; none: only counters did.
        self.anew: set[int] = set()  # Datasets whose record changed, and so what every job's records mean.
        self.tallies: set[int] = set()
        self.files: set[int] = set()
        self.index: set[bytes] = set()
        self.requests: set[bytes] = set()
        self.sites: set[str] = set()
        self.holders: set[int] = set()  # Sites, by number, that hold more or less.
        self.blobs = self.memory = self.totals = False


class _Job:
    """One job as it counts."""

    __slots__ = ("cells", "complete", "found", "held_cpus", "kinds", "sites", "touched")

    def __init__(self, checked: DatasetCheck) -> None:
        self.cells = dict(checked.cells)
        self.kinds = dict(checked.kinds)
        self.sites = dict(checked.sites)
        self.held_cpus = checked.held_cpus
        self.touched = checked.touched
        self.complete = checked.complete
        self.found = checked.found


class _Dataset:
    """The jobs of a dataset that have records, and their sum."""

    def __init__(self) -> None:
        self.jobs: dict[int, _Job] = {}
        self.cells: Counter[tuple[int, int, int]] = Counter()
        self.kinds: Counter[int] = Counter()
        self.sites: Counter[tuple[int, str]] = Counter()
        self.held_cpus = 0
        self.touched = 0
        self.complete: dict[tuple[int, int], Any] = {}
        self.checked: DatasetCheck | None = None  # As it was compared last.

    def set(self, number: int, job: _Job | None) -> None:
        """Replace what one job counts."""
        old = self.jobs.pop(number, None)
        if old is not None:
            self._sum(old, -1)
            for task in old.complete:
                del self.complete[task]
        if job is not None:
            self.jobs[number] = job
            self._sum(job, 1)
            self.complete.update(job.complete)

    def _sum(self, job: _Job, sign: int) -> None:
        _add(self.cells, job.cells, sign)
        _add(self.kinds, job.kinds, sign)
        _add(self.sites, job.sites, sign)
        self.held_cpus += sign * job.held_cpus
        self.touched += sign * job.touched


def _add(into: Counter[Any], counts: dict[Any, int], sign: int) -> None:
    for key, count in counts.items():
        total = into[key] + sign * count
        if total:
            into[key] = total
        else:
            del into[key]


class RunningInvariants:
    """Fed with each entry's writes in order, from the first on an empty ledger."""

    def __init__(self) -> None:
        self._datasets: dict[int, _Dataset] = {}
        self._owned: set[bytes] = set()
        self._paged: set[bytes] = set()
        self._paged_bytes = 0
        self._audits = 0
        self._news = _News()

    def follow(self, kv: KeyValue, writes: Iterable[Write], *, look: bool = True) -> list[str]:
        """Take the writes of one entry, after which `kv` is as it is now; return the violations.

        Without `look` they are found at the next call with it, if they are still there.
        """
        before: dict[bytes, bytes | None] = {}
        for key, old in writes:
            before.setdefault(key, old)
        news = self._news
        for key, old in before.items():
            new = kv.get(key)
            note = _NOTES.get(key[0])
            if note is not None and new != old:
                note(self, news, key, old, new)
        if not look:
            return []
        self._news = _News()
        return list(self._violations(kv, news))

    def _violations(self, kv: KeyValue, news: _News) -> Iterator[str]:
        t = Tables(kv)
        for number in sorted(news.jobs.keys() | news.anew | news.tallies | news.files):
            yield from self._dataset(t, number, news)
        if news.jobs or news.anew or news.totals:
            checks = [known.checked for known in self._datasets.values() if known.checked is not None]
            yield from invariants.check_totals(t, checks)
            for checked in checks:
                now = self._counted(t, checked.ds.number) if checked.ds.record.follows else None
                if now is not None:
                    yield from now.check_gate()
        yield from self._indexes(kv, news)
        if news.memory or news.requests:
            yield from self._memory(t, news)
        for name in sorted(news.sites | {t.site_name(number) for number in news.holders}):
            site = t.site(name)
            if site is not None:
                yield from invariants.check_site(t, name, site)
        if news.blobs:
            yield from invariants.check_blobs(t)
            for number in self._datasets:
                ds = t.dataset(number)
                if ds is not None:
                    yield from DatasetCheck(t, ds).check_blobs()

    # Datasets.

    def _dataset(self, t: Tables, number: int, news: _News) -> Iterator[str]:
        ds = t.dataset(number)
        if ds is None:
            self._datasets.pop(number, None)
            return
        known = self._datasets.setdefault(number, _Dataset())
        changed = news.jobs.get(number, set())
        if number in news.anew:
            changed = DatasetCheck(t, ds).jobs() | known.jobs.keys()
        for job in changed:
            has_records = t.kv.get(keys.by_job(keys.JOB, number, job)) is not None or any(
                t.kv.get(keys.by_task(keys.TASK, number, job, task)) is not None
                for task in range(len(ds.dag.shapes))
            )
            part = DatasetCheck(t, ds)
            if has_records:
                part.count_job(job)
            known.set(job, _Job(part) if has_records else None)
            yield from part.found
        checked = self._counted(t, number)
        assert checked is not None
        known.checked = checked
        yield from checked.compare_counters()
        if changed or number in news.tallies:
            yield from checked.compare_tallies()
        if changed or number in news.files:
            yield from checked.check_files()

    def _counted(self, t: Tables, number: int) -> DatasetCheck | None:
        """Return a dataset with the sums of its jobs, those without records included."""
        ds, known = t.dataset(number), self._datasets[number]
        if ds is None:
            return None
        checked = DatasetCheck(t, ds)
        checked.cells.update(known.cells)
        checked.kinds.update(known.kinds)
        checked.sites.update(known.sites)
        checked.held_cpus, checked.touched = known.held_cpus, known.touched
        checked.complete = known.complete
        checked.count_untouched(known.jobs)
        return checked

    # Indexes and memory.

    def _indexes(self, kv: KeyValue, news: _News) -> Iterator[str]:
        for entry in sorted(news.index):
            owned, there = entry in self._owned, kv.get(entry) is not None
            what = invariants.INDEXES.get(entry[:1])
            if what is None:
                if owned and not there:
                    yield "timers: 1 are missing"
            elif owned is not there:
                yield f"{what} index: {owned:d} entries are missing, {there:d} are too many"

    def _memory(self, t: Tables, news: _News) -> Iterator[str]:
        if self._paged_bytes != t.progress.request_bytes:
            yield f"request memory has {self._paged_bytes} bytes, noted as {t.progress.request_bytes}"
        wrong = [
            one for one in news.requests if (one in self._paged) is (t.kv.get(keys.REQUEST + one) is None)
        ]
        if wrong:
            yield f"request memory: {len(wrong)} outcomes are in the pages or kept, but not both"
        noted = t.progress.audit_next - t.progress.audit_first
        if self._audits != noted or noted > limits.AUDIT_MAX:
            yield f"the audit has {self._audits} records"

    # What each table's writes mean.

    def _task(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        self._job(news, key, old, new)
        had = set(invariants.index_entries(key, old)) if old is not None else set()
        has = set(invariants.index_entries(key, new)) if new is not None else set()
        self._owned -= had - has
        self._owned |= has
        news.index |= had ^ has

    def _job(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.jobs.setdefault(keys.number_of(key, 1, 4), set()).add(keys.number_of(key, 5, 4))

    def _record(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.anew.add(keys.number_of(key, 1, 4))
        news.blobs = True

    def _counts(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.jobs.setdefault(keys.number_of(key, 1, 4), set())

    def _tally(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.tallies.add(keys.number_of(key, 1, 4))

    def _file(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.files.add(keys.number_of(key, 1, 4))

    def _content(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.files.add(keys.number_of(key, 17, 4))

    def _sweep(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.tallies.update(self._datasets)

    def _entry(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.index.add(key)

    def _timer(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        if key[9] == keys.TASK_TIMER:
            news.index.add(key)
        elif key[9] == keys.SITE_TIMER:
            news.sites.add(key[10:].decode())

    def _total(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.totals = True

    def _holder(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.totals = True
        news.holders.add(keys.number_of(key, 1, 2))

    def _site(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.sites.add(key[1:].decode())

    def _blob(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.blobs = True

    def _request(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.requests.add(key[1:])

    def _page(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        for page, sign in ((old, -1), (new, 1)):
            if page is not None:
                size_bytes, named = invariants.requests_of(page)
                self._paged_bytes += sign * size_bytes
                self._paged.update(named) if sign > 0 else self._paged.difference_update(named)
                news.requests.update(named)

    def _audit(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        self._audits += (new is not None) - (old is not None)
        news.memory = True

    def _progress(self, news: _News, key: bytes, old: bytes | None, new: bytes | None) -> None:
        news.memory = True


_Note = Callable[[RunningInvariants, _News, bytes, "bytes | None", "bytes | None"], None]
_NOTES: Final[dict[int, _Note]] = {
    table[0]: note
    for note, tables in (
        (RunningInvariants._task, (keys.TASK,)),
        (RunningInvariants._job, (keys.JOB,)),
        (RunningInvariants._record, (keys.DATASET, keys.SHAPES)),
        (RunningInvariants._counts, (keys.COUNTS, keys.CELLS, keys.DATASET_SITE)),
        (RunningInvariants._tally, (keys.TALLY, keys.STATISTICS)),
        (RunningInvariants._file, (keys.FILE,)),
        (RunningInvariants._content, (keys.CONTENT,)),
        (RunningInvariants._sweep, (keys.SWEEP,)),
        (RunningInvariants._entry, (keys.READY, keys.HELD, keys.RUN)),
        (RunningInvariants._timer, (keys.TIMER,)),
        (RunningInvariants._total, (keys.REQUIREMENTS_READY, keys.ACTIVE, keys.SHARE)),
        (RunningInvariants._holder, (keys.SITE_TALLY,)),
        (RunningInvariants._site, (keys.SITE,)),
        (RunningInvariants._blob, (keys.BLOB_USE, keys.SOFTWARE, keys.DATASET_BLOBS, keys.CLUSTER)),
        (RunningInvariants._request, (keys.REQUEST,)),
        (RunningInvariants._page, (keys.REQUEST_PAGE,)),
        (RunningInvariants._audit, (keys.AUDIT,)),
        (RunningInvariants._progress, (keys.PROGRESS,)),
    )
    for table in tables
}


class Recorded:
    """A key space that notes what is written (`ledger.keyvalue.KeyValue`)."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv
        self.get, self.scan = kv.get, kv.scan
        self.writes: list[Write] = []

    def put(self, key: bytes, value: bytes) -> None:
        """Note what was there, and write."""
        self.writes.append((key, self._kv.get(key)))
        self._kv.put(key, value)

    def delete(self, key: bytes) -> None:
        """Note what was there, and delete."""
        self.writes.append((key, self._kv.get(key)))
        self._kv.delete(key)

    def take(self) -> list[Write]:
        """Return what was written since the last time."""
        writes, self.writes = self.writes, []
        return writes
