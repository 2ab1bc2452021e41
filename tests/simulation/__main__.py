"""`python -m tests.simulation --seeds N [--seed S] [--first F] [--mutant NAME] [--verbose]`: replay fault histories."""

from __future__ import annotations

import argparse
import sys
import time
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
    """Replay a range of seeds."""
    started = time.process_time()
    failed: list[Outcome] = []
    virtual_s = 0.0
    acknowledged = 0
    for seed in range(options.first, options.first + options.seeds):
        outcome = History(seed).run()
        virtual_s += outcome.virtual_s
        acknowledged += outcome.acknowledged
        if outcome.violation:
            failed.append(outcome)
        if options.verbose or outcome.violation:
            print(line(outcome), flush=True)
    real_s = time.process_time() - started
    print(
        f"{options.seeds} histories, {len(failed)} with a violation; {acknowledged} commands acknowledged in "
        f"{virtual_s:.0f} s of virtual time, {real_s:.1f} s of processor time ({virtual_s / real_s:.0f} times as fast)"
    )
    if failed:
        first = failed[0]
        print(f"\nthe story of seed {first.seed}:\n{first.profile.describe()}\n{first.story}\n{line(first)}")
    return 1 if failed else 0


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
