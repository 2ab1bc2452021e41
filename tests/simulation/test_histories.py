"""Random fault histories of the real engine and ledger: none may break a promise, and each replays identically."""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random

import pytest

from tests.simulation.divergence import with_odd_member
from tests.simulation.history import History
from tests.simulation.profile import draw

pytestmark = [pytest.mark.timeout(1_200)]
CHUNK = 10  # Histories in one test, so that a failure names its seed soon.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread `--seeds` histories over tests of a few each."""
    if "first_seed" in metafunc.fixturenames:
        count = metafunc.config.getoption("--seeds")
        metafunc.parametrize("first_seed", range(0, count, CHUNK))


def test_no_history_breaks_a_promise(first_seed: int, seeds: int) -> None:
    for seed in range(first_seed, min(first_seed + CHUNK, seeds)):
        outcome = History(seed).run()
        assert not outcome.violation, (
            f"seed {seed}: {outcome.violation}\n{outcome.profile.describe()}\n{outcome.story}\n"
            f"replay it with: make sim SEED={seed}"
        )


def test_histories_do_work(seeds: int) -> None:
    outcomes = [History(seed).run() for seed in range(min(seeds, 10))]
    assert sum(outcome.acknowledged for outcome in outcomes) > 100 * len(outcomes) / 3
    assert sum(outcome.terms for outcome in outcomes) > 2 * len(outcomes)


def test_a_member_whose_state_differs_is_found_by_the_others() -> None:
    caught = 0
    for seed in range(6):
        history = History(seed, with_odd_member(draw(Random(f"profile {seed}"))))
        outcome = history.run()
        assert not outcome.violation, f"seed {seed}: {outcome.violation}\n{outcome.story}"
        caught += history.nemesis.has_caught
    assert caught >= 3


@pytest.mark.parametrize("seed", [3, 5, 12])
def test_a_seed_is_one_history_whatever_the_hash_seed(seed: int) -> None:
    program = f"from tests.simulation.history import History; print(History({seed}).run().trace)"
    traces = {History(seed).run().trace}
    for hash_seed in ("0", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        traces.add(done.stdout.strip())
    assert len(traces) == 1
