"""Proposals and reads: batched, forwarded, repeated with the same id, bounded."""

from __future__ import annotations

import msgspec
import pytest

from iceprod_p2p.base.errors import BadInput, Unavailable
from iceprod_p2p.raft.proposals import join_entry, request_ids, split_entry
from iceprod_p2p.raft.settings import ENTRY_BYTES_MAX, RaftSettings
from tests.unit.raft.fakes import Cluster, Node


def settled(*names: str, settings: RaftSettings | None = None) -> tuple[Cluster, Node, list[Node]]:
    cluster = Cluster(*names, settings=settings)
    leader = cluster.elect()
    cluster.run(0.5)
    return cluster, leader, [node for node in cluster.nodes.values() if node is not leader]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 255, 256, 1_000])
def test_joined_proposals_are_the_entry_that_would_have_been_encoded_at_once(count: int) -> None:
    proposals = [[number.to_bytes(16, "big"), number, "test", ["set", "x"]] for number in range(count)]
    bodies = [split_entry(msgspec.msgpack.encode([proposal])) for proposal in proposals]
    entry = join_entry(bodies)
    assert entry == msgspec.msgpack.encode(proposals)
    assert request_ids(entry) == [proposal[0] for proposal in proposals]


def test_commands_that_wait_together_share_one_entry() -> None:
    cluster, leader, _ = settled("a", "b", "c")
    before = leader.engine.journal.last_index
    requests = [cluster.propose(leader.name, "set", f"k{number}", "v") for number in range(50)]
    cluster.run(0.5)
    assert all(request in leader.results for request in requests)
    assert leader.engine.journal.last_index == before + 1


def test_the_next_round_waits_for_the_last_but_one_to_be_acknowledged() -> None:
    cluster, leader, _ = settled("a", "b", "c", settings=RaftSettings(rounds_in_flight=2))
    cluster.network.isolate(leader.name, list(cluster.nodes))
    before = leader.engine.journal.last_index
    for _ in range(5):
        cluster.propose(leader.name, "set", "x", "1")
        leader.engine.tick()
    assert leader.engine.journal.last_index == before + 2
    assert leader.engine.core.commit == before


def test_no_entry_grows_past_its_bound_and_all_of_a_round_arrives() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    big = "v" * 20_000
    requests = [cluster.propose(follower.name, "set", f"k{number}", big) for number in range(9)]
    cluster.run(1.0)
    assert all(isinstance(follower.results[request], int) for request in requests)
    for value in leader.store.durable["log"].values():
        assert len(value) <= ENTRY_BYTES_MAX + 100


def test_a_proposal_that_no_entry_can_hold_is_refused_at_once() -> None:
    cluster, leader, _ = settled("a", "b", "c")
    request = cluster.propose(leader.name, "set", "x", "v" * ENTRY_BYTES_MAX)
    leader.engine.tick()
    assert isinstance(leader.results[request], BadInput)


def test_a_follower_and_an_observer_get_their_results_when_applied_on_themselves() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    cluster.join("o")
    cluster.propose(leader.name, "member", "o", "observer")
    cluster.run(1.0)
    for name in (follower.name, "o"):
        request = cluster.propose(name, "set", f"from-{name}", "1")
        cluster.run(0.5)
        index = cluster.nodes[name].results[request]
        assert cluster.applied(name) >= index


def test_a_forwarded_proposal_that_is_lost_is_sent_again_with_the_same_id() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    cluster.network.cut.add((follower.name, leader.name))
    request = cluster.propose(follower.name, "set", "x", "1")
    cluster.run(0.3)
    assert request not in follower.results
    cluster.network.heal()
    cluster.run(1.5)
    assert isinstance(follower.results[request], int)
    cluster.run(2.0)
    assert sum(1 for key in cluster.values("a") if key.startswith(b"R" + request)) == 1


def test_proposals_wait_for_a_leader_and_then_go_through() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    cluster.kill(leader.name)
    request = cluster.propose(follower.name, "set", "x", "1")
    cluster.run_until(lambda: request in follower.results, within_s=5.0)
    assert isinstance(follower.results[request], int)


def test_a_proposal_without_a_quorum_ends_unavailable_at_its_deadline() -> None:
    cluster, leader, others = settled("a", "b", "c")
    for node in others:
        cluster.kill(node.name)
    request = cluster.propose(leader.name, "set", "x", "1")
    cluster.run(9.0)
    assert request not in leader.results
    cluster.run(1.5)
    assert isinstance(leader.results[request], Unavailable)


def test_beyond_its_bound_a_node_tells_callers_to_come_back() -> None:
    settings = RaftSettings(proposals_max=10)
    cluster, leader, _ = settled("a", "b", "c", settings=settings)
    cluster.network.isolate(leader.name, list(cluster.nodes))
    requests = [cluster.propose(leader.name, "set", "x", "1") for _ in range(15)]
    leader.engine.tick()
    refused = [leader.results[request] for request in requests if request in leader.results]
    assert len(refused) == 5
    assert all(isinstance(error, Unavailable) and error.retry_after_s > 0 for error in refused)


def test_the_same_request_asked_twice_at_once_is_one_entry_and_one_result() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    for name in (leader.name, follower.name, leader.name):
        request = cluster.propose(name, "set", "x", name, request=99)
    cluster.run(0.5)
    assert leader.results[request] == follower.results[request]


def test_one_change_of_members_at_a_time_is_under_way() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    seen: list[int] = []
    original = leader.engine.core.enqueue

    def watched(entry: bytes) -> None:
        seen.append(leader.engine.core.applied)
        assert entry.count(b"member") == 1
        original(entry)

    leader.engine.core.enqueue = watched  # type: ignore[method-assign]
    for name in ("d", "e", "f"):
        cluster.propose(follower.name, "member", name, "observer")
    cluster.run(2.0)
    assert len(seen) == 3
    assert seen == sorted(set(seen))  # Each was proposed after the one before it had been applied.


def test_a_new_leader_changes_no_members_before_its_own_entry_is_applied() -> None:
    cluster, leader, _ = settled("a", "b", "c")
    cluster.kill(leader.name)
    second = cluster.elect()
    proposals = second.engine.proposals
    assert proposals._member_change_index >= second.engine.core.noop_index


def test_a_read_on_any_node_sees_everything_acknowledged_before_it_began() -> None:
    cluster, leader, others = settled("a", "b", "c")
    request = cluster.propose(leader.name, "set", "x", "1")
    cluster.run_until(lambda: request in leader.results)
    acknowledged = leader.results[request]
    for number, node in enumerate([leader, *others]):
        node.engine.read(number, cluster.clock.monotonic_s() + 2.0)
        cluster.run(0.5)
        assert node.reads[number] >= acknowledged
        assert cluster.applied(node.name) >= acknowledged


def test_a_cut_off_follower_answers_no_read() -> None:
    cluster, _, (follower, _) = settled("a", "b", "c")
    cluster.network.isolate(follower.name, list(cluster.nodes))
    follower.engine.read(1, cluster.clock.monotonic_s() + 2.0)
    cluster.run(3.0)
    assert isinstance(follower.reads[1], Unavailable)


def test_reads_go_on_after_a_change_of_leader() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    follower.engine.read(1, cluster.clock.monotonic_s() + 8.0)
    cluster.kill(leader.name)
    cluster.run_until(lambda: 1 in follower.reads, within_s=6.0)
    assert isinstance(follower.reads[1], int)
