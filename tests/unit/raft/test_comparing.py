"""Whose state is right when members differ: the majority's, whoever leads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from iceprod_p2p.base.errors import IntegrityError
from iceprod_p2p.raft.messages import StateDiffers, encode
from iceprod_p2p.raft.settings import RaftSettings
from tests.unit.raft.fakes import Cluster, Node


def honest(ledger: Any) -> bytes:
    return bytes(str(sorted(ledger.scan(b"", b"\xff"))), "ascii")[:64]


def cluster_of(*names: str) -> tuple[Cluster, Node]:
    cluster = Cluster(*names, settings=RaftSettings(compare_entries=4))
    leader = cluster.elect()
    for node in cluster.nodes.values():
        node.engine.comparing.digest = honest
    return cluster, leader


def work(cluster: Cluster, commands: int = 8) -> None:
    for number in range(commands):
        alive = [node for node in cluster.nodes.values() if node.engine.failed is None]
        cluster.propose(alive[0].name, "set", f"key{number}", "value")
        cluster.run(0.3)


def differing(what: bytes) -> Callable[[Any], bytes]:
    return lambda ledger: what


def test_equal_states_are_left_alone() -> None:
    cluster, _ = cluster_of("a", "b", "c")
    work(cluster)
    assert [node.engine.failed for node in cluster.nodes.values()] == [None] * 3


def test_a_follower_that_differs_is_told_ends_by_name_and_never_starts_again() -> None:
    cluster, leader = cluster_of("a", "b", "c")
    odd = next(node for node in cluster.nodes.values() if node is not leader)
    odd.engine.comparing.digest = differing(b"odd")
    work(cluster)
    assert odd.engine.failed is not None and "not that of the majority" in odd.engine.failed
    assert [node.engine.failed for node in cluster.nodes.values() if node is not odd] == [None, None]
    store = cluster.kill(odd.name)
    with pytest.raises(IntegrityError, match="not that of the majority"):
        cluster.restart(odd.name, store)
    work(cluster)
    assert cluster.applied(leader.name) > 8, "the others go on"


def test_a_leader_that_differs_ends_itself_and_another_leads() -> None:
    cluster, leader = cluster_of("a", "b", "c")
    leader.engine.comparing.digest = differing(b"odd")
    work(cluster)
    assert leader.engine.failed is not None and "not that of the majority" in leader.engine.failed
    cluster.run_until(lambda: bool(set(cluster.leaders) - {leader.name}))
    others = [node for node in cluster.nodes.values() if node is not leader]
    assert [node.engine.failed for node in others] == [None, None]


def test_an_observer_that_differs_is_told_and_does_not_count() -> None:
    cluster, leader = cluster_of("a", "b")
    observer = cluster.join("o")
    cluster.propose(leader.name, "member", "o", "observer")
    cluster.run(1.0)
    observer.engine.comparing.digest = differing(b"odd")
    work(cluster)
    assert observer.engine.failed is not None and "not that of the majority" in observer.engine.failed
    assert leader.engine.failed is None


def test_without_a_majority_nobody_is_declared_right_and_the_leader_ends() -> None:
    cluster, leader = cluster_of("a", "b")
    leader.engine.comparing.digest = differing(b"one")
    work(cluster, 6)
    assert leader.engine.failed is not None and "nobody can tell who is right" in leader.engine.failed


def test_what_anybody_but_the_leader_says_of_the_majority_is_not_believed() -> None:

    cluster, leader = cluster_of("a", "b", "c")
    work(cluster)
    first, second = [node for node in cluster.nodes.values() if node is not leader]
    index = first.engine.core.applied - first.engine.core.applied % 4
    first.engine.receive(second.name, encode(StateDiffers(index, b"other")))
    cluster.run(0.5)
    assert first.engine.failed is None
