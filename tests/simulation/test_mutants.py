"""Each known mistake, put back, is seen by the checkers: a checker that misses one is broken."""

from __future__ import annotations

from random import Random

import pytest

from tests.simulation.history import History
from tests.simulation.mutants import MUTANTS, Mutant, mutated
from tests.simulation.profile import draw
from tests.simulation.scenarios import SCENARIOS, play

pytestmark = [pytest.mark.timeout(1_200)]
SCENARIO_SEEDS = 5


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_known_mistake_is_seen(name: str) -> None:
    with mutated(name) as mutant:
        assert mutant is not None
        violation = in_a_scenario(mutant) if mutant.scenario else in_histories(mutant)
    assert violation, f"nobody saw {name}: {mutant.what}"


def in_a_scenario(mutant: Mutant) -> str:
    """Play the mutant's scenario until somebody sees it."""
    return next(filter(None, (play(mutant.scenario, seed) for seed in range(SCENARIO_SEEDS))), "")


def in_histories(mutant: Mutant) -> str:
    """Run the mutant's histories until somebody sees it."""
    for seed in range(mutant.seeds):
        outcome = History(seed, mutant.shape(draw(Random(f"profile {seed}")))).run()
        if outcome.violation:
            return outcome.violation
    return ""


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_the_sound_engine_passes_every_scenario(name: str) -> None:
    assert [play(name, seed) for seed in range(SCENARIO_SEEDS)] == [""] * SCENARIO_SEEDS


def test_nothing_of_a_mutant_stays_behind() -> None:
    before = History(3).run()
    with mutated("any-log-wins"):
        pass
    assert History(3).run().trace == before.trace
