"""Mistakes put into the ledger, one of every kind that a checker claims to see."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import msgspec

from iceprod_p2p.ledger import apply as apply_module
from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger import keys, moves
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.outcome import Applied, Grant, Refused
from iceprod_p2p.ledger.rules import claims, clock, tasks
from iceprod_p2p.ledger.rules.table import RULES
from tests.simulation.profile import Profile


def production(*faults: str, **changes: Any) -> Callable[[Profile], Profile]:
    """Return a shape on the real ledger, with few faults, so that much is done."""

    def shape(profile: Profile) -> Profile:
        chosen = faults or ("kill one", "kill leader", "pause")
        return replace(
            profile, production=True, faults=chosen, delay_s=0.001, jitter_s=0.0, loss=0.0, **changes
        )

    return shape


def _put(stack: ExitStack, where: Any, name: str, value: Any) -> None:
    assert hasattr(where, name), f"{where.__name__} has no {name} any more: move the mutant after it"
    stack.enter_context(patch.object(where, name, value))


def _rule(stack: ExitStack, command: type, wrap: Callable[[Any], Any]) -> None:
    stack.enter_context(patch.dict(RULES, {command: wrap(RULES[command])}))


def requests_forgotten(stack: ExitStack) -> None:
    """A repeated request is carried out again."""
    _put(stack, apply_module, "first_outcome", lambda t, proposal: None)


def stale_reports_count(stack: ExitStack) -> None:
    """A report counts whatever its attempt and whoever sends it."""
    sound = tasks._run_of

    def run_of(t: Any, ref: Any, place: Any, record: Any, holder: bytes) -> Any:
        started = record.code in (r.PROCESSING, r.COPYING)
        empty = r.RunRecord(ref.attempt, b"", "", b"", "", "", 0, 0)
        return empty if started else sound(t, ref, place, record, holder)

    _put(stack, tasks, "_run_of", run_of)


def attempts_stay(stack: ExitStack) -> None:
    """A task that leaves a site's hands keeps its attempt number."""
    _put(stack, moves, "_raise_attempt", lambda ds, attempt: attempt)


def claims_do_not_hold(stack: ExitStack) -> None:
    """A task that came back is granted without being taken out of the ready index."""
    sound = claims._hold

    def hold(t: Any, place: Any, record: Any, site: int, **flags: int) -> Any:
        if record.attempt == 0:
            return sound(t, place, record, site, **flags)
        needs = t.requirements_of(record.requirements)
        return Grant(place.ds.number, place.number, place.task, record.attempt, needs)

    _put(stack, claims, "_hold", hold)


def statistics_twice(stack: ExitStack) -> None:
    """A result is counted twice."""
    sound = tasks.count_statistics

    def count(t: Any, place: Any, statistics: Any) -> str:
        sound(t, place, statistics)
        return sound(t, place, statistics)

    _put(stack, tasks, "count_statistics", count)


def children_too_soon(stack: ExitStack) -> None:
    """A task may run although a parent is unfinished."""
    _put(stack, moves.Place, "parents_done", lambda self: True)


def counters_drift(stack: ExitStack) -> None:
    """A counter misses the tasks that fail."""
    sound = moves.shift_cell

    def shift(t: Any, ds: Any, task: int, requirements: int, cell: int, delta: int) -> None:
        if cell != r.ERROR:
            sound(t, ds, task, requirements, cell, delta)

    _put(stack, moves, "shift_cell", shift)


def chance_in_apply(stack: ExitStack) -> None:
    """A rule asks the machine for something that differs from node to node."""

    def wrap(sound: Any) -> Any:
        def tick(t: Any, command: Any, asked: Any) -> Any:
            t.kv.put(b"\x7fchance", os.urandom(8))
            return sound(t, command, asked)

        return tick

    _rule(stack, c.Tick, wrap)


def time_runs_ahead(stack: ExitStack) -> None:
    """Ledger time passes faster than time."""

    def wrap(sound: Any) -> Any:
        def tick(t: Any, command: Any, asked: Any) -> Any:
            outcome = sound(t, command, asked)
            t.progress.time_ms += 1_000
            return outcome

        return tick

    _rule(stack, c.Tick, wrap)


def silence_ignored(stack: ExitStack) -> None:
    """A site that is gone keeps what it holds."""
    _put(stack, clock, "is_silent", lambda t, site: False)


def any_second_result(stack: ExitStack) -> None:
    """A second result is accepted whatever it says."""
    _put(stack, tasks, "_finished_before", lambda ref, record, digest: Applied(("finished before",)))


def doubled_submission(stack: ExitStack) -> None:
    """A dataset is now and then created twice."""

    def wrap(sound: Any) -> Any:
        def submit(t: Any, command: Any, asked: Any) -> Any:
            sound(t, command, asked)
            return sound(t, command, asked)

        return submit

    _rule(stack, c.SubmitDataset, wrap)


def submission_lost(stack: ExitStack) -> None:
    """Some submissions are acknowledged and forgotten."""

    def wrap(sound: Any) -> Any:
        def submit(t: Any, command: Any, asked: Any) -> Any:
            if command.jobs % 3:
                return sound(t, command, asked)
            cluster = t.cluster
            cluster.datasets += 1
            t.save_cluster(cluster)
            return Applied((), cluster.datasets)

        return submit

    _rule(stack, c.SubmitDataset, wrap)


def completion_lost(stack: ExitStack) -> None:
    """Some results are acknowledged and forgotten."""

    def wrap(sound: Any) -> Any:
        def finish(t: Any, command: Any, asked: Any) -> Any:
            return Applied() if command.ref.job % 2 else sound(t, command, asked)

        return finish

    _rule(stack, c.FinishTask, wrap)


def files_forgotten(stack: ExitStack) -> None:
    """The checksum records of a result are not kept."""
    _put(stack, tasks, "record_outputs", lambda *arguments: ())


def two_pilots(stack: ExitStack) -> None:
    """An attempt that a pilot has is handed to another one."""

    def wrap(sound: Any) -> Any:
        def start(t: Any, command: Any, asked: Any) -> Any:
            for one in command.starts:
                key = keys.by_task(keys.RUN, one.ref.dataset, one.ref.job, one.ref.task)
                run = t.runs.get(key)
                if run is not None and run.attempt == one.ref.attempt:
                    t.runs.put(key, msgspec.structs.replace(run, holder=one.holder))
            return sound(t, command, asked)

        return start

    _rule(stack, c.StartTasks, wrap)


def failures_of_anybody(stack: ExitStack) -> None:
    """A failure counts whoever reports it, and when."""

    def wrap(sound: Any) -> Any:
        def fail(t: Any, command: Any, asked: Any) -> Any:
            place = tasks.find_attempt(t, command.ref)
            record = None if isinstance(place, Refused) else tasks.read_task(t, place)
            if record is None or record.code not in tasks.HELD:
                return sound(t, command, asked)
            run = t.runs.get(keys.RUN + place.tail) if record.code in tasks.STARTED else None
            present = msgspec.structs.replace(
                command,
                ref=msgspec.structs.replace(command.ref, attempt=record.attempt),
                holder=run.holder if run is not None else b"",
                site=t.site_name(record.site),
            )
            return sound(t, present, asked)

        return fail

    _rule(stack, c.FailTask, wrap)
