"""Members whose state differs: the product's own comparison must find them, and who is odd ends by name.

A node of these scenarios leaves out one entry and applies all others.  The checkers look away from its tables, so
that nobody but the comparison of digests can see it; they see whether it goes on.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from iceprod_p2p.base.errors import IntegrityError
from iceprod_p2p.raft.comparing import Comparing
from iceprod_p2p.raft.promises import SetBack
from tests.simulation.nemesis import LOG_KEPT_WHOLE
from tests.simulation.profile import Profile
from tests.simulation.stage import Stage
from tests.simulation.world import Violation

COMPARED_EVERY = 4
OTHERS = "not that of the majority"
NOBODY = "no majority of the voters has one state"


def _stage(seed: int) -> Stage:
    stage = Stage(seed, 3, compare_entries=COMPARED_EVERY)
    stage.lead("n1")
    stage.add("n1", 3)
    stage.until(
        "all follow", lambda: all(_applied(stage, name) == stage.checks.last for name in ("n2", "n3"))
    )
    return stage


def _applied(stage: Stage, name: str) -> int:
    return int(stage.engine(name).core.applied)


def _ends(stage: Stage, name: str, why: str) -> None:
    """The odd one ends by name before long, and no later start of it takes part."""
    for _ in range(3 * COMPARED_EVERY):
        if stage.node(name).caught:
            break
        leader = stage.cluster.leader()
        stage.add(leader.node_id if leader is not None else name)
        stage.wait(0.2)
    if why not in stage.node(name).caught:
        raise Violation(f"{name} has another state and goes on")
    stage.node(name).kill("stopped by its supervisor")
    stage.node(name).boot()
    if why is OTHERS and stage.node(name).up:
        raise Violation(f"{name} starts again though its state is not that of the others")


def _goes_on(stage: Stage, *names: str) -> None:
    """These lead, commit and agree without the odd one."""
    stage.until("one of them leads", lambda: any(stage.leads(name) for name in names))
    leader = next(name for name in names if stage.leads(name))
    before = stage.checks.last
    stage.add(leader, 2 * COMPARED_EVERY)
    stage.until("they go on", lambda: all(_applied(stage, name) >= before + COMPARED_EVERY for name in names))


def odd_follower(seed: int) -> None:
    """A follower leaves out an entry: it ends by name, and the others go on."""
    stage = _stage(seed)
    stage.node("n3").make_odd()
    _ends(stage, "n3", OTHERS)
    _goes_on(stage, "n1", "n2")


def odd_leader(seed: int) -> None:
    """The leader leaves out an entry: it ends by name, and another leads."""
    stage = _stage(seed)
    stage.node("n1").make_odd()
    _ends(stage, "n1", OTHERS)
    _goes_on(stage, "n2", "n3")


def no_majority(seed: int) -> None:
    """All three have different states: the leader declares nobody right, and ends."""
    stage = _stage(seed)
    stage.node("n2").make_odd(after=1)
    stage.node("n3").make_odd(after=2)
    _ends(stage, "n1", NOBODY)


def with_odd_member(profile: Profile) -> Profile:
    """Return a kind of history in which a member, now and then the leader, leaves out an entry of the ledger."""
    settings = replace(profile.settings, log_keep_entries=LOG_KEPT_WHOLE)
    faults = ("odd member", "kill one", "isolate leader")
    return replace(
        profile,
        production=True,
        faults=faults,
        fault_interval_s=2.0,
        voters=max(3, profile.voters),
        settings=settings,
    )


# Mistakes in the comparison.


def _put(stack: ExitStack, name: str, value: Any) -> None:
    stack.enter_context(patch.object(Comparing, name, value))


def states_not_compared(stack: ExitStack) -> None:
    """Nobody tells its digest."""
    _put(stack, "applied", lambda self, index, ledger: None)


def odd_leader_judges(stack: ExitStack) -> None:
    """A leader takes its own state for the right one."""
    sound = Comparing._judge

    def judge(self: Comparing, index: int) -> None:
        with suppress(SetBack):
            sound(self, index)

    _put(stack, "_judge", judge)


def nobody_right_ignored(stack: ExitStack) -> None:
    """A leader goes on though no majority has one state."""
    sound = Comparing._judge

    def judge(self: Comparing, index: int) -> None:
        try:
            sound(self, index)
        except SetBack:
            raise
        except IntegrityError:
            return

    _put(stack, "_judge", judge)
