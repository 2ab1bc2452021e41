"""`python -m tests.simulation --seeds N [--first F] [--jobs J] [--seed S] [--mutant NAME]`: replay fault histories."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from random import Random

from tests.simulation.history import History, Outcome
from tests.simulation.mutants import MUTANTS, mutated
from tests.simulation.profile import draw
from tests.simulation.scenarios import play


def main(arguments: list[str] | None = None) -> int:
    """Replay histories; return 0 when nothing was wrong in any of them (with a mutant: when it was seen)."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one only, with its story")
    parser.add_argument(
        "--mutant", choices=sorted(MUTANTS), help="put a known mistake in; somebody must see it"
    )
    parser.add_argument("--jobs", type=int, default=1, help="so many processes share the histories")
    parser.add_argument("--verbose", action="store_true", help="one line for each history; a longer story")
    options = parser.parse_args(arguments)
    if options.mutant:
        return with_mutant(options)
    if options.seed is not None:
        history = History(options.seed)
        outcome = history.run()
        print(outcome.profile.describe())
        print(history.story(lines=2_000 if options.verbose else 120))
        print(line(outcome))
        return 1 if outcome.violation else 0
    return many(options)


def with_mutant(options: argparse.Namespace) -> int:
    """Run with a known mistake until a checker sees it; print what it saw and the story."""
    with mutated(options.mutant) as mutant:
        assert mutant is not None
        print(f"{options.mutant}: {mutant.what}")
        for seed in range(options.first, options.first + options.seeds):
            if mutant.scenario:
                violation = play(mutant.scenario, seed)
                story = f"scenario {mutant.scenario}, seed {seed}"
            else:
                outcome = History(seed, mutant.shape(draw(Random(f"profile {seed}")))).run()
                violation, story = outcome.violation, f"{outcome.story}\nseed {seed}"
            if violation:
                print(f"{story}: {violation}")
                return 0
    print(f"nobody saw it in {options.seeds} histories")
    return 1


def many(options: argparse.Namespace) -> int:
    """Replay a range of seeds, each a history of its own whichever process plays it."""
    started, cpu_before_s = time.monotonic(), cpu_s()
    failed: list[Outcome] = []
    virtual_s = 0.0
    acknowledged = 0
    for outcome in outcomes(range(options.first, options.first + options.seeds), jobs=options.jobs):
        virtual_s += outcome.virtual_s
        acknowledged += outcome.acknowledged
        if outcome.violation:
            failed.append(outcome)
        if options.verbose or outcome.violation:
            print(line(outcome), flush=True)
    real_s, used_s = time.monotonic() - started, cpu_s() - cpu_before_s
    print(
        f"{options.seeds} histories, {len(failed)} with a violation; {acknowledged} commands acknowledged in "
        f"{virtual_s:.0f} s of virtual time, {used_s:.1f} s of processor time ({virtual_s / used_s:.0f} times as fast),"
        f" {real_s:.0f} s in all ({virtual_s / real_s:.0f} times)"
    )
    if failed:
        first = failed[0]
        print(f"\nthe story of seed {first.seed}:\n{first.profile.describe()}\n{first.story}\n{line(first)}")
    return 1 if failed else 0


def outcomes(seeds: range, *, jobs: int) -> Iterator[Outcome]:
    """Play histories in so many processes; they come in the order of their seeds."""
    if jobs <= 1:
        yield from map(play_one, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(play_one, seeds, chunksize=4)


def play_one(seed: int) -> Outcome:
    """Play one history."""
    return History(seed).run()


def cpu_s() -> float:
    """Return the processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def line(outcome: Outcome) -> str:
    """Return one line about a history."""
    return (
        f"seed {outcome.seed}: {outcome.violation or 'nothing wrong'}; {outcome.virtual_s:.0f} s, "
        f"{outcome.entries} entries, {outcome.acknowledged} acknowledged, {outcome.retries} retries, "
        f"{outcome.reads} reads, {outcome.terms} terms, {outcome.boots} starts, {outcome.ticks} ticks, "
        f"{outcome.speed:.0f} times real time, trace {outcome.trace[:12]}"
    )


if __name__ == "__main__":
    sys.exit(main())
