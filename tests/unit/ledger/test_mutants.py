"""Every violation that the invariants can name is noticed when the rules are broken so, within a short random walk."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from iceprod_p2p.ledger.invariants import check
from iceprod_p2p.store.memory_tables import MemoryTables
from tests.ledger_mutants import MUTANTS, Mutant
from tests.ledger_walk import Walk
from tests.running_invariants import Recorded, RunningInvariants

LEDGER = Path(__file__).resolve().parents[3] / "iceprod_p2p/ledger"
SEEDS = (6, 11, 3, 0, 1, 2, 4, 5, 7, 8, 9, 10, 12, 13)  # The first ones show most bugs soon.
STEPS = 300
CHECKED_EVERY = 6
ONLY_A_SCAN_SEES = {"skips_a_new_job"}  # It shows in records that nobody wrote.


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_seeded_bug_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.plant(monkeypatch)
    for seed in SEEDS:
        noticed, running = _walk(seed)
        if noticed:
            assert mutant.phrase in noticed, f"seed {seed} was stopped by something else: {noticed}"
            by_the_walk = not noticed.startswith("; ")
            assert running or by_the_walk or mutant.name in ONLY_A_SCAN_SEES, "not seen entry by entry"
            return
    pytest.fail(f"{STEPS} steps of {len(SEEDS)} walks noticed nothing")


def test_a_sound_walk_gives_no_violation_entry_by_entry() -> None:
    assert _walk(6) == ("", "")


def _walk(seed: int) -> tuple[str, str]:
    """Walk until something is noticed; return what a full check (or the walk) and the running one said by then."""
    kv, running = Recorded(MemoryTables()), RunningInvariants()
    seen: list[str] = []
    try:
        walk = Walk(seed, kv, checked=False)
        for step in range(1, STEPS + 1):
            walk.step()
            seen += running.follow(kv, kv.take())
            if step % CHECKED_EVERY == 0:
                violations = check(kv)
                if violations:
                    return "".join("; " + one for one in violations), "; ".join(seen)
    except AssertionError as caught:
        return str(caught), "; ".join(seen)
    return "", "; ".join(seen)


def _violations() -> list[re.Pattern[str]]:
    """Every sentence that the invariants can give, as a pattern."""
    found = []
    for name in ("invariants.py", "invariants_dataset.py"):
        for node in ast.walk(ast.parse((LEDGER / name).read_text())):
            said = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "_say"
            value = node.args[0] if said and isinstance(node, ast.Call) else None
            if isinstance(node, ast.Yield):
                value = node.value
            if isinstance(value, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else None for part in value.values]
                found.append(
                    re.compile("".join(".*" if part is None else re.escape(str(part)) for part in parts))
                )
    return found


def test_every_violation_that_can_be_named_has_a_mutant() -> None:
    phrases = [re.escape(mutant.phrase) for mutant in MUTANTS]
    unseen = []
    for pattern in _violations():
        words = [word.strip("\\ ") for word in pattern.pattern.split(".*") if word.strip("\\ ")]
        if not any(any(word in phrase or phrase in word for word in words) for phrase in phrases):
            unseen.append(pattern.pattern)
    assert not unseen, "\n".join(unseen)
