"""Every failpoint that a program may die at is one at which a test lets a real process die."""

from __future__ import annotations

from iceprod_p2p.base import failpoints
from tests.integration.chaos import test_failpoints, test_founding_failpoints, test_node_failpoints
from tests.integration.recovery import cluster as recovery


def test_every_failpoint_has_a_scene_in_which_a_real_process_dies_there() -> None:
    scenes = {
        *test_failpoints.SCENES,
        *test_founding_failpoints.FOUNDING,
        *test_founding_failpoints.JOINING,
        *test_founding_failpoints.ADMITTING,
        *test_node_failpoints.PASSED_BY_WORK,
        *test_node_failpoints.PASSED_ELSEWHERE,
        *recovery.REJOINING,
        *recovery.RESTORING,
    }
    assert scenes == set(failpoints.NAMES)
