"""`python -m benchmarks.fill DIRECTORY --tasks N`: fill a store for `python -m benchmarks scale --filled DIRECTORY`.

Ten million tasks take an hour or less.  What was stopped, or ran out of time, goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.children import Say
from benchmarks.solo import STATISTICS, Solo

JOBS: Final = 10_000_000
FIRST_TASKS: Final = 1_000  # So that what is there once, however much grows, is not counted.
STRETCH_TASKS: Final = 50_000  # Between two notes of how far it is.
DONE_MOST: Final = 9_500_000  # Of one dataset's jobs: the rest is there to be claimed.


@dataclass(slots=True)
class Filled:
    """What a store was filled with: tasks finished, and by how many bytes its tables grew for all of them."""

    bare: int = 0
    bare_bytes: int = 0
    full: int = 0
    full_bytes: int = 0
    datasets: int = 1

    @property
    def ready(self) -> int:
        """Tasks that nobody has claimed."""
        return JOBS * self.datasets - self.done - FIRST_TASKS

    @property
    def done(self) -> int:
        """Tasks finished, without and with statistics."""
        return self.bare + self.full

    def per_task(self) -> tuple[float, float]:
        """Bytes of a finished task without statistics, and of one with them."""
        return self.bare_bytes / max(self.bare, 1), self.full_bytes / max(self.full, 1)


def filled(directory: Path) -> Filled:
    """Read what `fill` noted; nothing is there before its first stretch."""
    try:
        return Filled(**json.loads((directory / "filled.json").read_text()))
    except FileNotFoundError:
        return Filled()


def fill(directory: Path, tasks: int, *, seconds: float = float("inf"), say: Say) -> Filled:
    """Finish `tasks` tasks in the store under `directory`, half of them with statistics; stop when time is up.

    They are those of its first dataset, and of further ones of as many jobs as these run out.
    """
    until_s = time.monotonic() + seconds
    directory.mkdir(parents=True, exist_ok=True)
    so_far = filled(directory)
    solo = Solo(directory / "store")
    if not so_far.done:
        solo.submit(JOBS, "simulate")
        solo.run(FIRST_TASKS, statistics=STATISTICS, say=say)
    solo.forget_requests()
    while so_far.done < tasks and time.monotonic() < until_s:
        bare = so_far.bare < tasks // 2
        count = min(STRETCH_TASKS, tasks // 2 - so_far.bare if bare else tasks - so_far.done)
        if so_far.done + count > DONE_MOST * so_far.datasets:
            number, _, _ = solo.submit(JOBS, "simulate")
            solo.prefer(number, so_far.datasets)
            so_far.datasets += 1
        before = solo.ledger_bytes()
        solo.run(count, statistics={} if bare else STATISTICS, say=say)
        solo.forget_requests()
        grown = solo.ledger_bytes() - before
        if bare:
            so_far.bare, so_far.bare_bytes = so_far.bare + count, so_far.bare_bytes + grown
        else:
            so_far.full, so_far.full_bytes = so_far.full + count, so_far.full_bytes + grown
        (directory / "filled.json").write_text(json.dumps(asdict(so_far)))
    solo.close()
    return so_far


def main() -> int:
    """Fill a store and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fill", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tasks", type=int, default=JOBS)
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop then, and go on another time"
    )
    options = parser.parse_args()
    so_far = fill(
        options.directory, options.tasks, seconds=options.seconds, say=lambda line: print(line, flush=True)
    )
    print(f"{so_far.done:,} tasks finished", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
