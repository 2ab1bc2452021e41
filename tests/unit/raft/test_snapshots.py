"""Snapshots and compaction: a follower that fell behind, or joins, gets the tables, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.raft.messages import SnapshotPage, decode, encode
from iceprod_p2p.raft.replication import State
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.store.environment import Environment
from tests.unit.raft.fakes import Cluster, MemoryStore, Node

SMALL = RaftSettings(
    log_keep_entries=10, compact_entries_max=5, snapshot_page_bytes=300, snapshot_pages_in_flight=2
)


def busy_cluster(commands: int = 60) -> tuple[Cluster, Node]:
    cluster = Cluster("a", "b", "c", settings=SMALL)
    leader = cluster.elect()
    for number in range(commands):
        cluster.propose(leader.name, "set", f"key{number}", f"value{number}")
        cluster.run(0.03)
    assert commands < 20 or leader.engine.journal.base.index > 0
    return cluster, leader


def test_a_joiner_gets_the_tables_and_then_the_log() -> None:
    cluster, leader = busy_cluster()
    joiner = cluster.join("d")
    cluster.propose(leader.name, "member", "d", "observer")
    cluster.run(2.0)
    assert joiner.store.swaps == 1
    assert cluster.values("d") == cluster.values(leader.name)
    assert leader.engine.leading.followers["d"].state is State.REPLICATE
    assert "d" in joiner.engine.context.observers


def test_a_follower_that_was_away_for_long_keeps_its_own_term_vote_and_name() -> None:
    cluster, leader = busy_cluster(5)
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    store = cluster.kill(follower.name)
    for number in range(60):
        cluster.propose(leader.name, "set", f"more{number}", "v")
        cluster.run(0.03)
    restarted = cluster.restart(follower.name, store)
    vote = restarted.engine.core.vote
    cluster.run(2.0)
    assert restarted.store.swaps == 1
    assert restarted.engine.core.vote == vote
    assert cluster.values(restarted.name) == cluster.values(leader.name)
    cluster.kill(restarted.name)
    again = cluster.restart(
        restarted.name, restarted.store
    )  # What was installed is a sound state to start from.
    assert again.engine.core.applied >= restarted.engine.journal.base.index


@pytest.mark.parametrize("lost_every", [2, 3, 5])
def test_lost_pages_are_pulled_again(lost_every: int) -> None:
    cluster, leader = busy_cluster()
    cluster.join("d")
    cluster.propose(leader.name, "member", "d", "observer")
    seen = [0]
    step = cluster.step

    def lossy() -> None:
        kept = []
        for origin, target, frame in cluster.network.frames:
            if isinstance(decode(frame), SnapshotPage):
                seen[0] += 1
                if seen[0] % lost_every == 0:
                    continue
            kept.append((origin, target, frame))
        cluster.network.frames = kept
        step()

    cluster.step = lossy  # type: ignore[method-assign]
    cluster.run_until(lambda: cluster.applied("d") == cluster.applied(leader.name), within_s=120.0)
    assert seen[0] > lost_every


def begun(joiner: Node) -> bool:
    incoming = joiner.engine._receiving._incoming
    return incoming is not None and incoming.page >= 3


def test_a_snapshot_goes_on_from_where_it_was_under_another_leader() -> None:
    cluster, leader = busy_cluster()
    joiner = cluster.join("d")
    staged = [0]
    stage = joiner.store.stage

    def counted() -> MemoryStore:
        staged[0] += 1
        return stage()

    joiner.store.stage = counted  # type: ignore[method-assign]
    cluster.propose(leader.name, "member", "d", "observer")
    cluster.run_until(lambda: begun(joiner))
    other = next(name for name in "abc" if name != leader.name)
    step = cluster.step

    def without_pages() -> None:
        frames = cluster.network.frames
        cluster.network.frames = [f for f in frames if not isinstance(decode(f[2]), SnapshotPage)]
        step()

    cluster.step = without_pages  # type: ignore[method-assign]
    leader.engine.transfer(other)
    cluster.run_until(lambda: cluster.nodes[other].engine.is_leader)
    cluster.step = step  # type: ignore[method-assign]
    cluster.propose(other, "set", "after", "the change")
    cluster.run_until(lambda: cluster.applied("d") == cluster.applied(other))
    assert cluster.values("d") == cluster.values(other)
    assert (staged[0], joiner.store.swaps) == (1, 1), "nothing began anew"
    assert cluster.nodes[other].engine.leading.followers["d"].state is State.REPLICATE


def test_a_snapshot_whose_donor_is_gone_comes_from_the_next_leader() -> None:
    cluster, leader = busy_cluster()
    joiner = cluster.join("d")
    cluster.propose(leader.name, "member", "d", "observer")
    cluster.run_until(lambda: begun(joiner))
    cluster.kill(leader.name)
    second = cluster.elect()
    cluster.run_until(lambda: cluster.applied("d") == cluster.applied(second.name))
    assert cluster.values("d") == cluster.values(second.name)


@pytest.mark.parametrize("fault", ["changed value", "missing pair", "order"])
def test_a_snapshot_that_is_not_what_was_promised_is_never_installed(fault: str) -> None:
    cluster, leader = busy_cluster()
    joiner = cluster.join("d")
    cluster.propose(leader.name, "member", "d", "observer")
    step = cluster.step

    def damage(page: SnapshotPage) -> SnapshotPage:
        pairs = list(page.pairs)
        if fault == "changed value":
            pairs[0] = (pairs[0][0], pairs[0][1] + b"!")
        elif fault == "missing pair":
            pairs = pairs[1:]
        else:
            pairs.reverse()
        return SnapshotPage(page.snapshot_id, page.page, pairs, page.last, page.sha256, page.pair_count)

    def damaging() -> None:
        frames: list[Any] = []
        for origin, target, frame in cluster.network.frames:
            message = decode(frame)
            bad = isinstance(message, SnapshotPage) and message.page == 1 and len(message.pairs) > 1
            frames.append((origin, target, encode(damage(message)) if bad else frame))  # type: ignore[arg-type]
        cluster.network.frames = frames
        step()

    cluster.step = damaging  # type: ignore[method-assign]
    cluster.run(10.0)
    assert joiner.store.swaps == 0
    assert cluster.applied("d") == 0
    cluster.step = step  # type: ignore[method-assign]
    cluster.run(5.0)
    assert cluster.values("d") == cluster.values(leader.name)


def test_a_crash_while_a_snapshot_arrives_leaves_the_old_state() -> None:
    cluster, leader = busy_cluster()
    joiner = cluster.join("d")
    cluster.propose(leader.name, "member", "d", "observer")
    cluster.run_until(lambda: joiner.engine._receiving.is_receiving)
    store = cluster.kill("d")
    assert store.swaps == 0 and not cluster_values(store)
    cluster.restart("d", store)
    cluster.run(3.0)
    assert cluster.values("d") == cluster.values(leader.name)


def cluster_values(store: MemoryStore) -> dict[bytes, bytes]:
    return dict(store.durable["ledger"])


def test_snapshots_over_lmdb_survive_a_restart(tmp_path: Path) -> None:
    cluster, leader = busy_cluster()
    environment = Environment(tmp_path / "d", sync=False)
    from iceprod_p2p.raft.founding import prepare_joiner

    prepare_joiner(environment, "d")
    joiner = cluster.nodes["d"] = Node(cluster, "d", environment)  # type: ignore[arg-type]
    cluster.propose(leader.name, "member", "d", "observer")
    cluster.run(2.0)
    assert cluster.applied("d") == cluster.applied(leader.name)
    with environment.read() as snapshot:
        assert dict(snapshot.ledger.scan(b"\x00", b"\xff")) == cluster.values(leader.name)
    del cluster.nodes["d"]
    joiner.engine.close()
    environment.close()
    again = Environment(tmp_path / "d", sync=False)
    restarted = cluster.nodes["d"] = Node(cluster, "d", again)  # type: ignore[arg-type]
    assert restarted.engine.core.applied > 0
    again.close()
