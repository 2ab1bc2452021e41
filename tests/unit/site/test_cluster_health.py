"""What a node says of the cluster's health from what its members answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.raft.status import RaftStatus
from iceprod_p2p.site.cluster_status import ClusterStatus, leader_of
from iceprod_p2p.wire.pb import control_pb2


@pytest.fixture
def status() -> ClusterStatus:
    nothing = cast(Any, None)
    return ClusterStatus(
        raft=nothing,
        peers=nothing,
        cluster=nothing,
        keys=nothing,
        data_dir=Path("/"),
        problems=lambda: (),
        clock=ManualClock(),
    )


def rows(*said: str) -> list[control_pb2.MemberStatus]:
    """One voter for each word: leader, follower or silent."""
    return [
        control_pb2.MemberStatus(
            node_id=f"n{number}", site="s", role="voter", reachable=word != "silent", leader=word == "leader"
        )
        for number, word in enumerate(said)
    ]


def own(leader: str | None) -> RaftStatus:
    return RaftStatus("n1", "follower", leader, 3, 9, 9, 9, 1, "", "", ())


def test_a_node_that_came_back_believes_the_leader_that_answers(status: ClusterStatus) -> None:
    found = rows("leader", "follower", "follower")
    assert status.health(found, own(None), digests_equal=True) == ("healthy", [])
    assert leader_of(found, own(None)) == "n0"
    health, _ = status.health(rows("leader", "follower", "silent"), own(None), digests_equal=True)
    assert health == "degraded"


def test_there_is_no_quorum_without_a_leader_or_a_majority(status: ClusterStatus) -> None:
    health, problems = status.health(rows("follower", "follower", "follower"), own(None), digests_equal=True)
    assert health == "no_quorum" and "no leader is known here" in problems
    health, problems = status.health(rows("silent", "follower", "silent"), own("n0"), digests_equal=True)
    assert health == "no_quorum" and "node n0 of s does not answer" in problems


def test_different_states_are_told_with_what_comes_of_them(status: ClusterStatus) -> None:
    health, (problem,) = status.health(rows("leader", "follower"), own("n0"), digests_equal=False)
    assert health == "degraded" and "iceprod-node rejoin" in problem
