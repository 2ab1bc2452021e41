"""Seeded bugs: rules of the ledger, each broken in one way, with the words by which a checker must notice it.

A mutant replaces one function of the rules for as long as its test runs.  `phrase` is part of the violation that
`invariants.check` gives, or of the assertion that the random walk makes by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from iceprod_p2p.ledger import apply as applying
from iceprod_p2p.ledger import counting, keys, moves, requests
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import Verb
from iceprod_p2p.ledger.job import Job
from iceprod_p2p.ledger.rules import blobs, candidates, claims, clock, datasets, files, jobs, mass, tasks
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.ledger.tally import Tally
from iceprod_p2p.model.states import TaskEvent

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """One bug: `name` says what the rules do wrong."""

    name: str
    phrase: str
    plant: Callable[[Patch], None]


MUTANTS: list[Mutant] = []


def mutant(phrase: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a bug, named by its function."""

    def register(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS.append(Mutant(plant.__name__, phrase, plant))
        return plant

    return register


def around(patch: Patch, where: Any, name: str, after: Callable[..., None]) -> None:
    """Let `after` do something more with the arguments whenever a function has done its work."""
    original = getattr(where, name)

    def changed(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        after(*args, **kwargs)
        return result

    patch.setattr(where, name, changed)


def unless(patch: Patch, where: Any, name: str, when: Callable[..., bool]) -> None:
    """Leave a function out whenever `when` says so."""
    original = getattr(where, name)

    def changed(*args: Any, **kwargs: Any) -> Any:
        return None if when(*args, **kwargs) else original(*args, **kwargs)

    patch.setattr(where, name, changed)


# Counters of one dataset.


@mutant("cells differ")
def forgets_to_count_errors(patch: Patch) -> None:
    unless(patch, moves, "shift_cell", lambda t, ds, task, requirements, cell, delta: cell == r.ERROR)


@mutant("jobs by kind are")
def forgets_that_a_job_failed(patch: Patch) -> None:
    def after(t: Tables, place: moves.Place, code: int) -> None:
        if code == r.FAILED:
            place.ds.counts.job_kinds[4] -= 1
            place.ds.counts.job_kinds[1] += 1

    around(patch, moves, "_move_job", after)


@mutant(": touched jobs are")
def counts_a_job_touched_twice(patch: Patch) -> None:
    def after(t: Tables, place: moves.Place, code: int) -> None:
        place.ds.counts.touched += code == r.COMPLETE

    around(patch, moves, "_move_job", after)


@mutant(": ready tasks are")
def forgets_ready_tasks_that_were_claimed(patch: Patch) -> None:
    unless(patch, counting, "shift_ready", lambda t, ds, requirements, delta: delta == -1)


@mutant(": held cpus are")
def forgets_cpus_given_back(patch: Patch) -> None:
    unless(patch, moves, "shift_share", lambda t, ds, held_cpus=0, used_cpu_s=0: held_cpus < 0)


@mutant("jobs by kind are")
def loses_a_job_of_a_dataset_that_grows(patch: Patch) -> None:
    unless(patch, datasets, "count_untouched", lambda t, ds, jobs: 0 < jobs < ds.record.jobs)


@mutant(": finished at")
def does_not_note_that_a_dataset_is_finished(patch: Patch) -> None:
    patch.setattr(moves, "note_finish", lambda t, ds: None)


@mutant(": tasks by site are")
def forgets_what_sites_copy(patch: Patch) -> None:
    unless(patch, moves, "shift_site", lambda t, ds, site, less="", more="": "copying" in (less, more))


# A task, its job, and the DAG.


@mutant("its job says otherwise")
def forgets_failures_in_the_job(patch: Patch) -> None:
    unless(patch, Job, "set", lambda job, bit, code: code == r.FAILED)


@mutant("waits though its parents are complete")
def does_not_release_children(patch: Patch) -> None:
    patch.setattr(moves, "release_children", lambda t, place, parent: None)


@mutant("though a parent is not complete")
def releases_children_too_early(patch: Patch) -> None:
    def release(t: Tables, place: moves.Place, parent: r.TaskRecord) -> None:
        for child in place.ds.dag.children[place.task]:
            below = place.at(child)
            record = moves._read_task(t, below, parents_done=False)
            if record.code == r.WAITING:
                moves.move(t, below, record, TaskEvent.PARENTS_DONE)

    patch.setattr(moves, "release_children", release)


@mutant("without a site or a deadline")
def grants_without_a_deadline(patch: Patch) -> None:
    original = moves.move

    def move(*args: Any, **changes: Any) -> r.TaskRecord:
        return original(*args, **{**changes, "timer_ms": 0})

    patch.setattr(claims, "move", move)


@mutant("has a finishing attempt, or is complete and has none")
def forgets_the_finishing_attempt(patch: Patch) -> None:
    original = moves.move

    def move(*args: Any, **changes: Any) -> r.TaskRecord:
        changes.pop("done", None)
        return original(*args, **changes)

    patch.setattr(tasks, "move", move)


@mutant("is at attempt")
def raises_an_attempt_beyond_the_highest(patch: Patch) -> None:
    patch.setattr(moves, "_raise_attempt", lambda ds, attempt: attempt + 1)


@mutant("was claimed twice")
def does_not_raise_the_attempt(patch: Patch) -> None:
    patch.setattr(moves, "_raise_attempt", lambda ds, attempt: attempt)


@mutant("has no record below its watermark")
def skips_a_new_job(patch: Patch) -> None:
    original = candidates.Candidate._take_new

    def take(self: candidates.Candidate) -> Any:
        taken = original(self)
        if taken is not None:
            slot = self.ds.dag.slots[taken[0].task]
            self.ds.counts.watermarks[slot] = min(self.ds.counts.watermarks[slot] + 1, self.ds.record.jobs)
        return taken

    patch.setattr(candidates.Candidate, "_take_new", take)


# Results.


@mutant("is not the sum of its parts")
def counts_statistics_twice(patch: Patch) -> None:
    original = tasks.count_statistics

    def count(*args: Any) -> str:
        original(*args)
        return original(*args)

    patch.setattr(tasks, "count_statistics", count)


@mutant("is not the sum of its parts")
def keeps_extremes_of_what_was_reset(patch: Patch) -> None:
    original = Tally.take_back

    def take_back(self: Tally, value: float) -> bool:
        original(self, value)
        return False

    patch.setattr(Tally, "take_back", take_back)


@mutant("tallies are kept of")
def keeps_statistics_of_what_was_reset(patch: Patch) -> None:
    patch.setattr(jobs, "uncount_statistics", lambda t, place: False)


@mutant("tallies are kept of")
def leaves_an_empty_tally(patch: Patch) -> None:
    def after(t: Tables, place: moves.Place) -> None:
        key = keys.by_dataset_part(keys.TALLY, place.ds.number, place.task)
        t.tallies.put(key, {**(t.tallies.get(key) or {}), "nothing": Tally()})

    around(patch, jobs, "uncount_statistics", after)


@mutant("is not found by its content")
def forgets_where_content_is(patch: Patch) -> None:
    def after(t: Tables, place: moves.Place, *rest: Any) -> None:
        for key, _ in t.scan_keys(keys.CONTENT, 1 << 20):
            t.kv.delete(key)

    around(patch, tasks, "record_outputs", after)


@mutant("was written by an attempt that did not finish its task")
def keeps_files_of_what_was_reset(patch: Patch) -> None:
    patch.setattr(jobs, "remove_files", lambda t, place, record: None)


@mutant("was written over")
def lets_a_file_be_written_over(patch: Patch) -> None:
    patch.setattr(tasks, "check_files", lambda t, place, files: None)

    def write(t: Tables, place: moves.Place, attempt: int, entries: Any, site: int) -> tuple[str, ...]:
        for entry in entries:
            known = t.files.get(files._key(place, entry))
            if known is not None and entry.kind != "log":
                moves.remove_file(t, files._key(place, entry), known)
        return files.record_outputs(t, place, attempt, entries, site)

    patch.setattr(tasks, "record_outputs", write)


# Indexes.


@mutant("ready index:")
def leaves_claimed_tasks_in_the_ready_index(patch: Patch) -> None:
    def after(t: Tables, place: moves.Place, old: r.TaskRecord, new: r.TaskRecord) -> None:
        if new.code == r.CLAIMED:
            t.kv.put(keys.ready(place.ds.number, new.requirements, place.number, place.task), b"")

    around(patch, moves, "_reindex", after)


@mutant("held index:")
def leaves_finished_tasks_in_the_held_index(patch: Patch) -> None:
    def after(t: Tables, place: moves.Place, old: r.TaskRecord, new: r.TaskRecord) -> None:
        if new.code == r.COMPLETE:
            t.kv.put(keys.held(old.site, True, place.ds.number, place.number, place.task), b"")

    around(patch, moves, "_reindex", after)


@mutant("passkey index:")
def leaves_a_passkey_behind(patch: Patch) -> None:
    original = moves.move

    def move(t: Tables, place: moves.Place, old: r.TaskRecord, *rest: Any, **changes: Any) -> r.TaskRecord:
        run = t.runs.get(keys.RUN + place.key[1:])
        new = original(t, place, old, *rest, **changes)
        if run is not None:
            t.runs.put(keys.RUN + place.key[1:], run)
        return new

    patch.setattr(tasks, "move", move)


@mutant("timers:")
def forgets_a_timer(patch: Patch) -> None:
    def after(t: Tables, place: moves.Place, old: r.TaskRecord, new: r.TaskRecord) -> None:
        if new.code == r.ERROR:
            t.kv.delete(keys.task_timer(new.timer_ms, place.ds.number, place.number, place.task))

    around(patch, moves, "_reindex", after)


@mutant("ready tasks by class are")
def miscounts_the_ready_tasks_of_a_class(patch: Patch) -> None:
    def after(t: Tables, ds: Dataset, requirements: int, delta: int) -> None:
        key = keys.by_number(keys.REQUIREMENTS_READY, requirements)
        t.numbers.put(key, (t.numbers.get(key) or 0) + 1)

    around(patch, counting, "shift_ready", after)


@mutant("entries of the index of active datasets are wrong")
def keeps_a_dataset_active_that_has_nothing_ready(patch: Patch) -> None:
    def after(t: Tables, ds: Dataset, requirements: int, delta: int) -> None:
        t.kv.put(keys.active(requirements, ds.record.priority, ds.number), b"")

    around(patch, counting, "shift_ready", after)


# What spans datasets.


@mutant(" cpus, noted as ")
def counts_every_share_for_the_group(patch: Patch) -> None:
    def after(ds: Dataset, *rest: Any) -> None:
        ds.share_keys = (ds.share_keys[0], ds.share_keys[0])

    around(patch, Dataset, "__init__", after)


@mutant(" tasks claimed, noted as ")
def never_counts_claims_out_of_a_site(patch: Patch) -> None:
    def after(t: Tables, ds: Dataset, site: int, *, less: str = "", more: str = "") -> None:
        if less == "claimed":
            tally = t.site_tally(site)
            tally.claimed += 1
            t.site_tallies.put(keys.by_number(keys.SITE_TALLY, site), tally)

    around(patch, moves, "shift_site", after)


@mutant("holds tasks and has no timer")
def does_not_look_after_a_site(patch: Patch) -> None:
    patch.setattr(claims, "renew_site", lambda t, name, site, **_: site)


@mutant("the timer of site")
def loses_the_timer_of_a_site(patch: Patch) -> None:
    def after(t: Tables, name: str, at_ms: int) -> None:
        site = t.site(name)
        if site is not None:
            t.kv.delete(keys.other_timer(site.timer_ms, keys.SITE_TIMER, name.encode()))

    around(patch, clock, "_site_time_is_up", after)


# Datasets that follow others, and what documents name.


@mutant("has the wrong gate for dataset")
def never_sets_a_gate(patch: Patch) -> None:
    patch.setattr(applying, "set_gates", lambda t: t.followed.clear())


@mutant("is behind a gate and goes on")
def lets_go_on_what_waits(patch: Patch) -> None:
    def after(t: Tables, ds: Dataset, *rest: Any) -> None:
        following = t.dataset(ds.record.closing)
        assert following is not None
        mass.change_all(t, following, Verb.RESUME)

    around(patch, datasets, "add_closing", after)


@mutant("does not keep what its document names")
def keeps_no_document(patch: Patch) -> None:
    patch.setattr(datasets, "use_dataset_blobs", lambda t, dataset, digests: None)


@mutant("a blob is kept for dataset")
def keeps_documents_of_nobody(patch: Patch) -> None:
    def after(t: Tables, dataset: int, digests: tuple[bytes, ...]) -> None:
        blobs.use_blob(t, digests[0], keys.by_dataset(keys.DATASET, 1_000))

    around(patch, datasets, "use_dataset_blobs", after)


# Memory of requests, and the audit.


@mutant("request memory has")
def miscounts_the_bytes_of_requests(patch: Patch) -> None:
    def after(memory: requests.Memory, index: int) -> None:
        memory._t.progress.request_bytes += 1

    around(patch, requests.Memory, "close", after)


@mutant("are in the pages or kept, but not both")
def never_forgets_a_request(patch: Patch) -> None:
    original = requests.Memory.close

    def close(memory: requests.Memory, index: int) -> None:
        memory._t.kv.put(keys.REQUEST + index.to_bytes(16, "big"), b"")
        original(memory, index)

    patch.setattr(requests.Memory, "close", close)


@mutant("the audit has")
def drops_an_audit_record(patch: Patch) -> None:
    def after(t: Tables, *rest: Any) -> None:
        t.kv.delete(keys.by_index(keys.AUDIT, 2))

    around(patch, applying.audit, "note", after)
