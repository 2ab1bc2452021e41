"""Nothing that promises anything leaves a node before the commit of its tick, and a crash keeps exactly the commits."""

from __future__ import annotations

from typing import Any

import pytest

from iceprod_p2p.raft.messages import Append, AppendReply, VoteReply, VoteRequest, decode
from iceprod_p2p.store.errors import StoreBroken, StoreFull
from tests.unit.raft.fakes import Cluster, Node


class Watch:
    """Notes, for every frame and result of a node, whether its tick had committed when it left."""

    def __init__(self, node: Node) -> None:
        self.early: list[Any] = []
        self.late: list[Any] = []
        self._commits = node.store.commits
        self._node = node
        send = node.sender.send

        def watched(target: str, frame: bytes) -> None:
            (self.late if node.store.commits > self._commits else self.early).append(decode(frame))
            send(target, frame)

        node.sender.send = watched  # type: ignore[method-assign]
        node.engine._on_results = lambda done: (
            self.late.extend(done) if node.store.commits > self._commits else self.early.extend(done)
        )

    def tick(self) -> None:
        self._commits = self._node.store.commits
        self._node.engine.tick()


def test_acknowledgements_and_votes_leave_after_the_commit() -> None:
    cluster = Cluster("a", "b", "c")
    watches = {name: Watch(node) for name, node in cluster.nodes.items()}
    for node in cluster.nodes.values():
        node.engine.tick = lambda run=node.engine.tick, watch=watches[node.name]: (  # type: ignore[method-assign]
            setattr(watch, "_commits", watch._node.store.commits),
            run(),
        )
    leader = cluster.elect()
    cluster.propose(leader.name, "set", "x", "1")
    cluster.run(1.0)
    early = [message for watch in watches.values() for message in watch.early]
    late = [message for watch in watches.values() for message in watch.late]
    assert any(isinstance(message, AppendReply) for message in late)
    assert any(isinstance(message, VoteReply) for message in late)
    assert any(
        isinstance(message, Append) for message in early
    )  # Entries may leave before the leader's own fsync.
    promises = (AppendReply, VoteReply, VoteRequest, tuple)
    assert not [message for message in early if isinstance(message, promises)]
    assert [item for item in late if isinstance(item, tuple)]  # The result of the proposal.


def test_the_leader_counts_its_own_disk_only_after_its_commit() -> None:
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect()
    cluster.run(0.2)
    commit = leader.engine.core.commit
    cluster.propose(leader.name, "set", "x", "1")
    held: list[int] = []

    def before_commit() -> None:
        held.append(leader.engine.leading.quorum_holds())
        assert leader.engine.context.durable_index < leader.engine.journal.last_index

    leader.store.before_commit = before_commit
    leader.engine.tick()
    assert held == [commit]


@pytest.mark.parametrize(
    "error", [StoreFull("no space left"), StoreBroken("input/output error"), OSError(5, "EIO")]
)
def test_a_failed_commit_ends_the_raft_part_and_nothing_of_the_tick_leaves(error: Exception) -> None:
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect()
    cluster.run(0.3)
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    before = {name: dict(pairs) for name, pairs in follower.store.durable.items()}
    request = cluster.propose(leader.name, "set", "x", "1")
    calls = []

    def fail() -> None:
        calls.append(1)
        raise error

    follower.store.before_commit = fail
    cluster.run(1.0)
    assert follower.engine.failed is not None and type(error).__name__ in follower.engine.failed
    assert len(calls) == 1  # No second try: an fsync that failed says nothing about the disk.
    assert {name: dict(pairs) for name, pairs in follower.store.durable.items()} == before
    assert isinstance(leader.results[request], int)  # The other two are a quorum.
    follower.store.before_commit = lambda: None
    store = cluster.kill(follower.name)
    restarted = cluster.restart(follower.name, store)
    cluster.run(1.0)
    assert cluster.values(restarted.name) == cluster.values(leader.name)


def test_a_leader_whose_disk_fails_answers_unavailable_and_another_takes_over() -> None:
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect()

    def fail() -> None:
        raise StoreFull("no space left")

    leader.store.before_commit = fail
    request = cluster.propose(leader.name, "set", "x", "1")
    cluster.run(3.0)
    assert leader.engine.failed is not None and "no space left" in leader.engine.failed
    assert not isinstance(leader.results[request], int)
    assert cluster.leaders and cluster.leaders != [leader.name]


def test_a_kill_at_any_commit_restarts_at_exactly_one_point() -> None:
    for kill_at in range(1, 25):
        cluster = Cluster("a", "b", "c", seed=kill_at)
        victim = cluster.elect()
        count = [0]

        class Killed(BaseException):
            pass

        def maybe_kill(count: list[int] = count, kill_at: int = kill_at, killed: type = Killed) -> None:
            count[0] += 1
            if count[0] == kill_at:
                raise killed

        victim.store.before_commit = maybe_kill
        requests = []
        try:
            for number in range(12):
                requests.append(cluster.propose(victim.name, "set", f"k{number}", "v"))
                cluster.run(0.05)
        except Killed:
            pass
        acknowledged = {request for request in requests if isinstance(victim.results.get(request), int)}
        victim.store.before_commit = lambda: None
        store = cluster.kill(victim.name)
        cluster.elect()
        cluster.restart(victim.name, store)
        cluster.run(2.0)
        reference = cluster.values("a")
        assert cluster.values("b") == reference and cluster.values("c") == reference
        assert all(b"R" + request in reference for request in acknowledged)


def test_an_idle_tick_writes_nothing_to_the_disk() -> None:
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect()
    cluster.run(1.0)
    state = {name: dict(pairs) for name, pairs in leader.store.durable.items()}
    cluster.run(2.0)
    assert {name: dict(pairs) for name, pairs in leader.store.durable.items()} == state
