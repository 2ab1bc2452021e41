"""With the default grace of ten minutes: what a site that never returns held is done elsewhere, and not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from iceprod_p2p.ledger import queries
from tests.simulation.history import History
from tests.simulation.profile import draw
from tests.simulation.virtual import virtual_time

GRACE_S = 600.0


@pytest.mark.parametrize("seed", [1])
def test_what_a_lost_site_held_is_done_elsewhere_after_the_default_grace(seed: int) -> None:
    drawn = draw(Random(f"profile {seed}"))
    slow = {"heartbeat_s": 0.9, "election_min_s": 6.0, "election_max_s": 9.0, "quorum_silence_s": 5.0}
    profile = replace(
        drawn,
        production=True,
        grace_s=GRACE_S,
        voters=3,
        observers=1,
        faults=(),
        delay_s=0.002,
        jitter_s=0.0,
        loss=0.0,
        settings=replace(drawn.settings, **slow),
    )
    history = History(seed, profile)
    with virtual_time(history.world):
        history.build()
        cluster, work = history.cluster, history.work
        work.people.ask_for(datasets=4, tasks_max=60)
        work.begin()
        assert passes(history, 200.0, lambda: held(history, "site4") > 0), "the site never held a task"
        lost = cluster.processes["n4"]
        lost.gone = True
        lost.kill("lost for ever")
        lost_at = history.world.now
        work.stop()
        history.world.run_until(lost_at + 0.9 * GRACE_S)
        assert held(history, "site4") > 0, "what it held was taken back too soon"
        assert passes(history, 1.5 * GRACE_S, work.done), work.missing()
        assert held(history, "site4") == 0
        work.check_end()


def held(history: History, site: str) -> int:
    """Return how many tasks a site holds, as the first node knows."""
    with history.cluster.processes["n1"].disk.image.read() as snapshot:
        row = queries.site(snapshot.ledger, site)
    return row.held if row is not None else 0


def passes(history: History, limit_s: float, holds: Callable[[], bool]) -> bool:
    """Let time pass until something holds, looking every half second; return whether it did."""
    end = history.world.now + limit_s
    while not holds():
        if history.world.now >= end:
            return False
        history.world.run_until(history.world.now + 0.5)
    return True
