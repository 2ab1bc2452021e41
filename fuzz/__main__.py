"""Run fuzz targets in turn until the time is over: `python -m fuzz --seconds 60`.

Each round has a seed of its own, printed when it fails; `--seed N --seconds 0` repeats round N.  What fails is shown
in its smallest form, and becomes a row of a test before it is mended.
"""

from __future__ import annotations

import argparse
import time
import traceback

from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz import ledger, software, steering, wire
from iceprod_p2p.base import logs

TARGETS = {**steering.TARGETS, **software.TARGETS, **wire.TARGETS, **ledger.TARGETS}
EXAMPLES_PER_ROUND = 200


def main() -> int:
    """Return 0 when nothing failed, else 1."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long; one round at least")
    parser.add_argument("--seed", type=int, default=0, help="the first round")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only these targets")
    options = parser.parse_args()
    logs.configure(level="CRITICAL")  # Targets refuse thousands of things, and say so.
    begin = time.monotonic()
    number, examples = options.seed, 0
    while True:
        for name in options.target or TARGETS:
            if not _round(name, number):
                return 1
            examples += EXAMPLES_PER_ROUND
        if time.monotonic() - begin >= options.seconds:
            break
        number += 1
    rounds = number - options.seed + 1
    print(f"fuzz: {examples} examples in {rounds} rounds, {time.monotonic() - begin:.0f} s; nothing failed")
    return 0


def _round(name: str, number: int) -> bool:
    strategy, target = TARGETS[name]
    rules = settings(
        max_examples=EXAMPLES_PER_ROUND,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        seed(number)(rules(given(strategy)(target)))()
    except Exception:
        traceback.print_exc()
        print(
            f"fuzz: target {name} failed; repeat with: python -m fuzz --target {name} --seed {number} --seconds 0"
        )
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
