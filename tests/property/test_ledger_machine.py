"""A ledger under commands that hypothesis chooses: a failure comes back as the shortest story that shows it."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.ledger_walk import Walk

ACTIONS = [action.__name__ for weight, action in Walk(0, checked=False).actions for _ in range(weight)]


class LedgerMachine(RuleBasedStateMachine):
    """Each step is one kind of action of a walk; every invariant is checked after each entry."""

    def __init__(self) -> None:
        super().__init__()
        self.walk = Walk(0)
        for action in (self.walk.submit, self.walk.submit):
            self._apply(action)

    def _apply(self, action: object) -> None:
        commands = action()  # type: ignore[operator]
        if commands:
            outcomes = self.walk.ledger.entry(*commands)
            for command, outcome in zip(commands, outcomes, strict=True):
                self.walk.note(command, outcome)

    @rule(action=st.sampled_from(ACTIONS), seed=st.integers(0, 1 << 16))
    def act(self, action: str, seed: int) -> None:
        self.walk.random = Random(seed)
        self._apply(getattr(self.walk, action))
        self.walk.look()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=25, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
