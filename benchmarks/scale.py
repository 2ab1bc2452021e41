"""What grows with jobs and tasks, and what must not: one node's ledger on LMDB, in this process.

Times of commands and views are processor time.
Ready tasks are of two kinds: jobs that have not started (one watermark for all of them), and tasks with an entry
of their own in the ready index (dependents, retries, given back).  Both are claimed from, at every size.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from benchmarks.children import Child, Say
from benchmarks.fill import JOBS, fill, filled
from benchmarks.numbers import percentile
from benchmarks.report import table
from benchmarks.solo import STATISTICS, Solo, time_views

READY: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LARGEST: Final = JOBS
DEPENDENTS_MOST: Final = 20_000
CLAIM_TASKS: Final = 16
CLAIMS: Final = 300
CLAIMS_SMALL: Final = 40  # Where there are only 1,000 to be had.
DEFAULT_DONE: Final = 200_000
FULL_DONE: Final = 23_000_000


def measure(
    directory: Path,
    *,
    done: int,
    store: Path | None = None,
    ready: tuple[int, ...] = READY,
    say: Say = lambda line: None,
) -> list[str]:
    """Measure and return the report's lines; `done` tasks are finished for what depends on them.

    Or they are finished already in a `store` that `benchmarks.fill` has filled.
    """
    lines = _submission(directory / "submit")
    lines += ["", *_claims(directory, ready, say)]
    if store is not None:
        return [*lines, "", *measure_filled(store, say=say)]
    return [*lines, "", *_history(directory / "history", done, say)]


def _submission(path: Path) -> list[str]:
    solo = Solo(path)
    taken = [solo.submit(LARGEST, "generate", "detect", "filter") for _ in range(5)]
    solo.close()
    shutil.rmtree(path)
    slowest_ms = max(taken_ms for _, taken_ms, _ in taken)
    return [
        f"- submit of {LARGEST:,} jobs of 3 tasks: one entry of {taken[0][2]:,} bytes,"
        f" applied in {slowest_ms:.1f} ms (the slowest of 5)"
    ]


def _claims(directory: Path, ready: tuple[int, ...], say: Say) -> list[str]:
    rows = []
    for count in ready:
        solo = Solo(directory / "claims")
        solo.submit(count, "simulate")
        times = [solo.claim(CLAIM_TASKS)[1] for _ in range(CLAIMS_SMALL if count < 10_000 else CLAIMS)]
        solo.close()
        shutil.rmtree(directory / "claims")
        rows.append([f"{count:,}", "0", f"{percentile(times, 50):.2f}", f"{percentile(times, 99):.2f}"])
        say(f"claims at {count:,} ready: p50 {rows[-1][2]} ms, p99 {rows[-1][3]} ms")
    return table([f"ready, claims of {CLAIM_TASKS} tasks", "done", "p50 ms", "p99 ms"], rows)


def _history(path: Path, done: int, say: Say) -> list[str]:
    fill(path, done, say=say)
    return measure_filled(path, say=say)


def measure_filled(directory: Path, *, say: Say) -> list[str]:
    """Measure in a store that `fill` has filled, and remove it."""
    history = filled(directory)
    path, dataset = directory / "store", history.datasets
    solo = Solo(path)
    times = [solo.claim(CLAIM_TASKS)[1] for _ in range(CLAIMS)]
    dependents = max(CLAIM_TASKS * CLAIMS, min(history.done // 10, DEPENDENTS_MOST))
    solo.make_dependents(dependents, say=say)
    waiting = [solo.claim(CLAIM_TASKS)[1] for _ in range(CLAIMS)]
    solo.abort_last(dataset, JOBS)
    with solo.environment.read() as snapshot:
        slowest = time_views(snapshot.ledger, dataset)
    file_mib = solo.environment.used_bytes() / 2**20
    solo.close()
    restart_s, anonymous_mib = _restart(path)
    shutil.rmtree(path)
    worst = max(slowest, key=lambda name: slowest[name])
    bare_bytes, full_bytes = history.per_task()
    return [
        f"With {history.done:,} tasks done:",
        "",
        f"- bytes on disk per finished task: {bare_bytes:.0f} without statistics,"
        f" {full_bytes:.0f} with {len(STATISTICS)} statistics",
        f"- claims of {CLAIM_TASKS} tasks, {history.ready:,} ready: p50 {percentile(times, 50):.2f} ms,"
        f" p99 {percentile(times, 99):.2f} ms; with {dependents:,} dependents in the ready index:"
        f" p50 {percentile(waiting, 50):.2f} ms, p99 {percentile(waiting, 99):.2f} ms",
        f"- {len(slowest)} views, the slowest of ten answers each: {slowest[worst]:.1f} ms at most ({worst})",
        f"- the store's file: {file_mib:,.0f} MiB; a restarted node has its first command acknowledged after"
        f" {restart_s:.1f} s, Python's start included, and {anonymous_mib:.0f} MiB of anonymous memory",
    ]


def _restart(path: Path) -> tuple[float, float]:
    """Return the seconds until a new process acknowledges a command, and its anonymous memory in MiB."""
    began_s = time.monotonic()
    node = Child("benchmarks.solo", str(path), log=path.parent / "restart.log")
    try:
        answer = node.answer()
        return time.monotonic() - began_s, answer["anonymous"] / 2**20
    finally:
        node.stop()
