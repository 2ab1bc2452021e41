"""The invariants of one dataset: its states, counters, results and files, counted anew from every record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.counting import HELD_FIELDS
from iceprod_p2p.ledger.job import group
from iceprod_p2p.ledger.moves import HELD, Place, untouched_job
from iceprod_p2p.ledger.reading import see_place, see_task
from iceprod_p2p.ledger.rollup import dataset_state
from iceprod_p2p.ledger.rules.closing import FUTILE, JOBS, OPEN
from iceprod_p2p.ledger.rules.mass import untouched_cell
from iceprod_p2p.ledger.rules.sweeping import EXTREMES, sweeps_of
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.ledger.tally import Tally
from iceprod_p2p.ledger.transitions import JOB_ABORTED, JOB_SUSPENDED
from iceprod_p2p.ledger.versions import NAMED_BLOBS
from iceprod_p2p.model.files import WHOLE_DATASET

ALL = 1 << 30  # No page: this reads everything.


class DatasetCheck:
    """One dataset counted anew; what spans datasets is summed by the caller."""

    def __init__(self, t: Tables, ds: Dataset) -> None:
        self.t = t
        self.ds = ds
        self.name = f"dataset {ds.number}"
        self.cells: Counter[tuple[int, int, int]] = Counter()  # (task, requirement class, cell)
        self.kinds: Counter[int] = Counter()
        self.sites: Counter[tuple[int, str]] = Counter()
        self.ready: dict[int, int] = {}
        self.held_cpus = 0
        self.touched = 0
        self.complete: dict[tuple[int, int], r.TaskRecord] = {}
        self.found: list[str] = []

    def violations(self) -> Iterator[str]:
        """Count everything, and return what does not agree."""
        jobs = self.jobs()
        for number in sorted(jobs):
            self.count_job(number)
        self.count_untouched(jobs)
        yield from self.found
        yield from self.compare_counters()
        yield from self.compare_tallies()
        yield from self.check_files()
        yield from self.check_gate()
        yield from self.check_blobs()

    def _say(self, what: str) -> None:
        self.found.append(f"{self.name}: {what}")

    def jobs(self) -> set[int]:
        """Return the jobs of which anything has a record."""
        return {
            keys.number_of(key, 5, 4)
            for table in (keys.JOB, keys.TASK)
            for key, _ in self.t.scan_keys(keys.by_dataset(table, self.ds.number), ALL)
        }

    def count_untouched(self, records: Collection[int]) -> None:
        """Count the jobs that have no records, once those that have were counted, and sum what is ready."""
        record = self.ds.record
        jobs = record.jobs - len(records)
        beyond = 0
        if record.truncated_at >= 0:
            beyond = (
                record.jobs - record.truncated_at - sum(1 for job in records if job >= record.truncated_at)
            )
        for count, code in ((jobs - beyond, record.untouched), (beyond, r.ABORTED)):
            if not count:
                continue
            sample = record.truncated_at if code == r.ABORTED and beyond else 0
            job = untouched_job(self.ds, sample if beyond and count == beyond else 0)
            self.kinds[job.kinds(self.ds.dag.everything)] += count
            for task, requirements in enumerate(record.requirements):
                cell = untouched_cell(code, is_root=not self.ds.dag.parents[task])
                self.cells[task, requirements, cell] += count
        for (_, requirements, cell), count in self.cells.items():
            if cell == r.READY and count:
                self.ready[requirements] = self.ready.get(requirements, 0) + count

    def count_job(self, number: int) -> None:
        """Count one job that has records."""
        first = see_place(self.t, self.ds, number)
        ds, job = self.ds, first.job
        self.kinds[job.kinds(ds.dag.everything)] += 1
        self.touched += job.touched
        for task in range(len(ds.dag.shapes)):
            place = first.at(task)
            record = see_task(self.t, place)
            self._check_task(place, record)
            done = place.parents_done()
            cell = r.SUSPENDED_WAITING if record.code == r.SUSPENDED and not done else record.code
            self.cells[task, record.requirements, cell] += 1
            if record.code in HELD:
                self.held_cpus += self.t.requirements_of(record.requirements).cpus
            if record.code in HELD_FIELDS:
                self.sites[record.site, HELD_FIELDS[record.code]] += 1
            if record.code == r.COMPLETE:
                self.complete[first.number, task] = record

    def _check_task(self, place: Place, record: r.TaskRecord) -> None:
        name = f"task {place.number}.{place.task}"
        job, bit = place.job, 1 << place.task
        mask = {
            r.COMPLETE: job.complete,
            r.FAILED: job.failed,
            r.SUSPENDED: job.suspended,
            r.ABORTED: job.aborted,
        }
        for code, tasks in mask.items():
            if bool(tasks & bit) is not (group(record.code) == code):
                self._say(f"{name} is {record.state}, its job says otherwise")
        done = place.parents_done()
        if record.code == r.WAITING and done:
            self._say(f"{name} waits though its parents are complete")
        if record.code in (*HELD, r.READY, r.COMPLETE, r.ERROR, r.FAILED) and not done:
            self._say(f"{name} is {record.state} though a parent is not complete")
        if record.code in HELD and not (record.site and record.timer_ms):
            self._say(f"{name} is {record.state} without a site or a deadline")
        if (record.code == r.COMPLETE) is not (record.done is not None):
            self._say(f"{name} is {record.state} and has a finishing attempt, or is complete and has none")
        if not self.ds.record.attempt_base <= record.attempt <= self.ds.counts.attempt_max:
            self._say(f"{name} is at attempt {record.attempt}, beyond {self.ds.counts.attempt_max}")
        slot = self.ds.dag.slots.get(place.task)
        if (
            slot is not None
            and place.number < self.ds.counts.watermarks[slot]
            and record.changed_ms == r.NEVER
        ):
            self._say(f"{name} has no record below its watermark")

    def compare_counters(self) -> Iterator[str]:
        """Compare what was counted with what is noted."""
        ds, counts = self.ds, self.ds.counts
        noted = {
            (task, requirements, cell): count
            for task in range(len(ds.dag.shapes))
            for requirements, row in ds.cells(task).items()
            for cell, count in enumerate(row)
            if count
        }
        mine = {key: count for key, count in self.cells.items() if count}
        if noted != mine:
            yield f"{self.name}: cells differ: {sorted((mine.items()) ^ noted.items())[:6]}"
        kinds = [self.kinds[kind] for kind in range(16)]
        if kinds != counts.job_kinds:
            yield f"{self.name}: jobs by kind are {kinds}, noted as {counts.job_kinds}"
        for what, counted, known in (
            ("touched jobs", self.touched, counts.touched),
            ("ready tasks", self.ready, counts.ready),
            ("held cpus", self.held_cpus, counts.held_cpus),
        ):
            if counted != known:
                yield f"{self.name}: {what} are {counted}, noted as {known}"
        unfinished = bool(sum(kinds[1:8])) or not ds.record.jobs
        if unfinished is bool(counts.finished_ms):
            yield f"{self.name}: finished at {counts.finished_ms}, though unfinished is {unfinished}"
        yield from self._compare_sites()

    def _compare_sites(self) -> Iterator[str]:
        prefix = keys.by_dataset(keys.DATASET_SITE, self.ds.number)
        noted = {
            (keys.number_of(key, 5, 2), field): getattr(tally, field)
            for key, tally in self.t.site_tallies.under(prefix, ALL)
            for field in HELD_FIELDS.values()
            if getattr(tally, field)
        }
        if noted != dict(self.sites):
            yield f"{self.name}: tasks by site are {dict(self.sites)}, noted as {noted}"

    def compare_tallies(self) -> Iterator[str]:
        """Compare the tallies with the sum of the statistics of complete tasks."""
        t, ds = self.t, self.ds
        finding = {
            sweep.task for _, sweep in sweeps_of(t) if (sweep.kind, sweep.target) == (EXTREMES, ds.number)
        }
        counted: dict[tuple[int, str], Tally] = {}
        for job, task in self.complete:
            statistics = t.statistics.get(keys.by_task(keys.STATISTICS, ds.number, job, task)) or {}
            for name, value in statistics.items():
                counted.setdefault((task, name), Tally()).add(value)
        known = {
            (task, name): tally
            for task in range(len(ds.dag.shapes))
            for name, tally in (
                t.tallies.get(keys.by_dataset_part(keys.TALLY, ds.number, task)) or {}
            ).items()
        }
        if counted.keys() != known.keys():
            yield f"{self.name}: tallies are kept of {sorted(known)}, not of {sorted(counted)}"
            return
        for key, mine in counted.items():
            noted = known[key]
            same = (mine.count, mine.total.normal(), mine.squares.normal()) == (
                noted.count,
                noted.total.normal(),
                noted.squares.normal(),
            )
            extremes = (mine.minimum, mine.maximum) == (noted.minimum, noted.maximum)
            if not same or not (extremes or key[0] in finding):
                yield f"{self.name}: the tally of {key} is not the sum of its parts"

    def check_files(self) -> Iterator[str]:
        """Check that files belong to the attempts that completed their tasks, and are found by content."""
        t, ds = self.t, self.ds
        for key, entry in t.files.under(keys.by_dataset(keys.FILE, ds.number), ALL):
            if t.kv.get(keys.CONTENT + entry.sha256[:16] + key[1:]) is None:
                yield f"{self.name}: file {key[9:].decode()} is not found by its content"
            if entry.attempt < ds.record.attempt_base:
                continue  # Void since a reset; its sweep has not come by.
            writer = self.complete.get((entry.job, entry.task))
            if writer is None or writer.attempt != entry.attempt:
                yield f"{self.name}: file {key[9:].decode()} was written by an attempt that did not finish its task"
        for (job, task), record in self.complete.items():
            for name in record.done.shared if record.done is not None else ():
                shared = t.files.get(keys.file(keys.FILE, ds.number, WHOLE_DATASET, name))
                if shared is None or (shared.job, shared.task, shared.attempt) != (job, task, record.attempt):
                    yield f"{self.name}: file {name} of task {job}.{task} was written over"

    def check_gate(self) -> Iterator[str]:
        """Compare the gate of a dataset that follows another with that one's state."""
        record = self.ds.record
        ahead = self.t.dataset(record.follows)
        state = dataset_state(ahead.record, ahead.counts) if ahead is not None else OPEN[0]
        if (record.gated, record.futile) != (state not in OPEN, state in FUTILE) or (
            record.follows and ahead is None
        ):
            yield f"{self.name} has the wrong gate for dataset {record.follows}"
        elif record.gated and self.kinds != {JOB_ABORTED if record.futile else JOB_SUSPENDED: JOBS}:
            yield f"{self.name} is behind a gate and goes on"

    def check_blobs(self) -> Iterator[str]:
        """Check that what the document names is kept."""
        user = keys.by_dataset(keys.DATASET, self.ds.number)
        cluster = self.t.cluster
        if self.t.version < NAMED_BLOBS or (cluster and self.ds.number <= cluster.datasets_unnamed):
            return
        digests = self.t.dataset_blobs.get(keys.by_dataset(keys.DATASET_BLOBS, self.ds.number)) or ()
        kept = all(self.t.kv.get(keys.BLOB_USE + digest + user) is not None for digest in digests)
        if not kept or bytes.fromhex(self.ds.record.steering_sha256) not in digests:
            yield f"{self.name} does not keep what its document names"
