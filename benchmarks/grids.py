"""Trivial jobs per second: batch systems directly, HyperQueue, and whole lives of tasks through our pilots, in one run.

Ours is the whole life of a task that runs `/bin/true`: submitted, claimed by a site, ordered by a pilot, started,
reported with what it used, and recorded on three nodes, each with its store on disk.  The floor is what starting so
many processes costs at the least: posix_spawn and wait, on as many threads as there are cores.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

from benchmarks import grid_direct, grid_ours, hyper
from benchmarks.children import Say
from benchmarks.grid_ours import PROGRAM, Lives
from benchmarks.numbers import median, rate, ratio
from benchmarks.report import table

SLOTS: Final = 4  # Of each of our three pilots: what waits for its process lets another go on.
JOBS_DIRECT: Final = {"Slurm": 300, "SGE": 120, "HTCondor": 120}
NOTHING: Final = float("nan")


def measure(directory: Path, *, tasks: int, rounds: int, say: Say = lambda line: None) -> list[str]:
    """Measure everything, floor, HyperQueue and ours in turn for `rounds` rounds; return the report's lines."""
    cores = os.cpu_count() or 1
    floor, peer, ours = [], [], []
    for number in range(rounds):
        floor.append(spawn_floor(tasks, threads=cores).per_s)
        say(f"round {number + 1}: floor {floor[-1]:.0f}/s")
        if hyper.version():
            peer.append(hyper.measure(directory / f"hyper-{number}", tasks=tasks, cores=cores).per_s)
            say(f"round {number + 1}: HyperQueue {peer[-1]:.0f}/s")
        ours.append(grid_ours.measure(directory / f"ours-{number}", tasks=tasks, slots=SLOTS, say=say).per_s)
        say(f"round {number + 1}: ours {ours[-1]:.0f}/s")
    direct = {}
    for name in grid_direct.NAMES:
        lives = grid_direct.measure(name, jobs=JOBS_DIRECT[name], say=say)
        direct[name] = NOTHING if lives is None else lives.per_s
        say(f"{name}: {direct[name]:.0f}/s")
    return _lines(tasks, rounds, median(floor), median(peer), median(ours), direct)


def spawn_floor(tasks: int, *, threads: int) -> Lives:
    """Start the program so many times and wait for each end, on some threads side by side."""

    def spawn(count: int) -> None:
        for _ in range(count):
            os.waitpid(os.posix_spawn(PROGRAM, [PROGRAM], {}), 0)

    share = -(-tasks // threads)
    workers = [threading.Thread(target=spawn, args=(share,)) for _ in range(threads)]
    began_s = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Lives(share * threads, time.perf_counter() - began_s)


def _lines(
    tasks: int, rounds: int, floor: float, peer: float, ours: float, direct: dict[str, float]
) -> list[str]:
    rows = [
        ["processes alone (the floor)", rate(floor), ratio(ours / floor)],
        [f"HyperQueue {hyper.version() or '(not installed)'}, no journal", rate(peer), ratio(ours / peer)],
        *(
            [f"{name}, one array of {JOBS_DIRECT[name]} jobs", rate(value), ratio(ours / value)]
            for name, value in direct.items()
        ),
        ["ours, recorded on three nodes", rate(ours), ""],
    ]
    return [
        *table(["tasks that run /bin/true", "per second", "ours : this"], rows),
        "",
        f"{tasks:,} tasks a round where nothing else is said; medians of {rounds} rounds, the sides in turn.",
    ]
