"""Elections: who stands, who votes, who gives up."""

from __future__ import annotations

import pytest

from iceprod_p2p.base.errors import ConfigError, IntegrityError
from iceprod_p2p.raft.messages import Heartbeat, TimeoutNow, VoteReply, VoteRequest, decode, encode
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.raft.syncobj import Role
from tests.unit.raft.fakes import Cluster, Node, said_by


def settled(*names: str, seed: int = 1) -> tuple[Cluster, Node, list[Node]]:
    cluster = Cluster(*names, seed=seed)
    leader = cluster.elect()
    cluster.run(0.5)
    return cluster, leader, [node for node in cluster.nodes.values() if node is not leader]


def ask(node: Node, sender: str, request: VoteRequest) -> list[VoteReply]:
    network = node.cluster.network
    frame = said_by(node.engine, sender, request)
    network.frames.clear()
    node.engine.receive(sender, frame)
    node.engine.tick()
    found = [
        decode(frame) for origin, target, frame in network.frames if (origin, target) == (node.name, sender)
    ]
    return [message for message in found if isinstance(message, VoteReply)]


def complete(node: Node, *, term: int, pre: bool = False, transfer: bool = False) -> VoteRequest:
    journal = node.engine.journal
    return VoteRequest(term, journal.last_index, journal.last_term, node.engine.core.applied, pre, transfer)


@pytest.mark.parametrize("seed", range(20))
def test_there_is_one_leader_soon_whatever_the_jitter(seed: int) -> None:
    cluster = Cluster("a", "b", "c", "d", "e", seed=seed)
    cluster.run_until(lambda: len(cluster.leaders) == 1, within_s=5.0)
    cluster.run(3.0)
    assert len(cluster.leaders) == 1
    assert {node.engine.core.leader for node in cluster.nodes.values()} == set(cluster.leaders)


@pytest.mark.parametrize("seed", range(20))
def test_a_killed_leader_is_replaced_within_three_seconds(seed: int) -> None:
    cluster, leader, _ = settled("a", "b", "c", seed=seed)
    cluster.kill(leader.name)
    cluster.run_until(lambda: len(cluster.leaders) == 1, within_s=3.0)


def test_nobody_votes_while_a_leader_is_alive() -> None:
    _, leader, (follower, other) = settled("a", "b", "c")
    term = follower.engine.core.term
    for pre in (True, False):
        assert ask(follower, other.name, complete(other, term=term + 5, pre=pre)) == []
        assert ask(leader, other.name, complete(other, term=term + 5, pre=pre)) == []
    assert follower.engine.core.term == term
    assert leader.engine.is_leader


def test_a_leader_s_own_wish_to_hand_over_overrides_that() -> None:
    _, _, (follower, other) = settled("a", "b", "c")
    term = follower.engine.core.term
    (reply,) = ask(follower, other.name, complete(other, term=term + 1, transfer=True))
    assert (reply.term, reply.pre, reply.granted) == (term + 1, False, True)


def test_a_node_cut_off_for_long_comes_back_without_a_higher_term() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    term = leader.engine.core.term
    cluster.network.isolate(follower.name, list(cluster.nodes))
    cluster.run(30.0)
    assert follower.engine.core.term == term
    cluster.network.heal()
    cluster.run(2.0)
    assert leader.engine.is_leader
    assert leader.engine.core.term == term


def test_a_vote_is_given_once_in_a_term_and_survives_a_restart() -> None:
    cluster, leader, (follower, other) = settled("a", "b", "c")
    cluster.kill(leader.name)
    cluster.clock.advance(cluster.settings.election_min_s)  # Long enough without a leader to vote at all.
    term = follower.engine.core.term + 1
    (reply,) = ask(follower, other.name, complete(other, term=term))
    assert (reply.term, reply.pre, reply.granted) == (term, False, True)
    (reply,) = ask(follower, leader.name, complete(other, term=term))
    assert (reply.term, reply.pre, reply.granted) == (term, False, False)
    store = cluster.kill(follower.name)
    restarted = cluster.restart(follower.name, store)
    (reply,) = ask(restarted, leader.name, complete(other, term=term))
    assert not reply.granted
    (reply,) = ask(restarted, other.name, complete(other, term=term))
    assert reply.granted  # The same candidate may ask again.


@pytest.mark.parametrize("pre", [True, False])
def test_a_candidate_with_an_older_log_gets_no_vote(pre: bool) -> None:
    cluster, leader, (follower, other) = settled("a", "b", "c")
    cluster.kill(leader.name)
    cluster.clock.advance(cluster.settings.election_min_s)
    journal = follower.engine.journal
    term = follower.engine.core.term + 1
    short = VoteRequest(term, journal.last_index - 1, journal.last_term, 0, pre, False)
    old = VoteRequest(term, journal.last_index + 9, journal.last_term - 1, 0, pre, False)
    for request in (short, old):
        (reply,) = ask(follower, other.name, request)
        assert not reply.granted


def test_an_observer_votes_only_for_a_candidate_that_knows_more() -> None:
    cluster, leader, _ = settled("a", "b", "c")
    observer = cluster.join("o")
    cluster.propose(leader.name, "member", "o", "observer")
    cluster.run(1.0)
    cluster.network.isolate("o", list(cluster.nodes))
    cluster.run(2.0)
    cluster.network.heal()
    core, journal = observer.engine.core, observer.engine.journal
    known = VoteRequest(core.term + 1, journal.last_index, journal.last_term, core.applied, True, False)
    more = VoteRequest(
        core.term + 1, journal.last_index + 1, journal.last_term, core.applied + 1, True, False
    )
    assert not ask(observer, "a", known)[0].granted
    assert ask(observer, "a", more)[0].granted  # It may have applied this observer's promotion.


def test_a_promoted_node_that_has_not_heard_of_it_still_helps_to_elect() -> None:
    cluster, leader, (follower, other) = settled("a", "b", "c")
    joiner = cluster.join("d")
    cluster.propose(leader.name, "member", "d", "observer")
    cluster.run(1.0)
    others = list(cluster.nodes)
    cluster.network.isolate("d", others)
    cluster.propose(leader.name, "member", "d", "voter")
    cluster.run(0.3)
    assert "d" not in joiner.engine.context.voters and "d" in follower.engine.context.voters
    cluster.network.heal()
    cluster.network.frames.clear()
    cluster.kill(leader.name)
    # Three of four voters live, one of which does not know that it is one: without its vote nobody could win.
    cluster.run_until(lambda: len(cluster.leaders) == 1)
    cluster.run(1.0)
    assert "d" in joiner.engine.context.voters
    assert other.engine.failed is None


def test_nobody_stands_before_it_has_applied_what_it_knows_to_be_committed() -> None:
    cluster, _, (follower, _) = settled("a", "b", "c")
    core = follower.engine.core
    assert follower.engine.elections.may_stand()
    core.applied = core.commit - 1
    assert not follower.engine.elections.may_stand()
    assert cluster.leaders


def test_a_removed_leader_steps_down_and_the_others_go_on() -> None:
    cluster, leader, others = settled("a", "b", "c")
    cluster.propose(leader.name, "remove", leader.name)
    cluster.run(4.0)
    assert not leader.engine.is_leader
    assert cluster.leaders and cluster.leaders[0] != leader.name
    term = others[0].engine.core.term
    cluster.run(10.0)
    assert others[0].engine.core.term == term  # The removed node does not disturb them.


def test_leadership_is_handed_over_without_an_election_time_out() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    leader.engine.transfer(follower.name)
    cluster.run(0.3)
    assert cluster.leaders == [follower.name]


def test_a_handing_over_that_cannot_work_is_given_up() -> None:
    cluster, leader, (follower, _) = settled("a", "b", "c")
    cluster.kill(follower.name)
    leader.engine.transfer(follower.name)
    cluster.propose(leader.name, "set", "x", "1")
    cluster.run(1.0)
    assert leader.engine.leading.is_handing_over
    cluster.run(3.0)
    assert leader.engine.is_leader and not leader.engine.leading.is_handing_over
    assert b"Vx" in cluster.values(leader.name)


def test_only_the_leader_may_ask_to_take_over() -> None:
    _, leader, (follower, other) = settled("a", "b", "c")
    follower.engine.receive(other.name, encode(TimeoutNow(follower.engine.core.term)))
    follower.engine.receive(leader.name, encode(TimeoutNow(follower.engine.core.term - 1)))
    follower.engine.tick()
    assert follower.engine.core.role is Role.FOLLOWER


def test_a_leader_of_an_old_term_is_told_and_steps_down() -> None:
    cluster, leader, (follower, other) = settled("a", "b", "c")
    cluster.network.isolate(leader.name, list(cluster.nodes))
    cluster.run_until(lambda: any(node.engine.is_leader for node in (follower, other)))
    cluster.network.heal()
    old = leader.engine.core.term
    cluster.network.frames.clear()
    follower.engine.receive(leader.name, encode(Heartbeat(old, 0, 7)))
    follower.engine.tick()
    answers = [decode(frame) for _, target, frame in cluster.network.frames if target == leader.name]
    assert any(getattr(answer, "term", 0) > old for answer in answers)


def test_two_leaders_in_one_term_stop_the_node_that_sees_it() -> None:
    _, leader, (follower, _) = settled("a", "b", "c")
    leader.engine.receive(follower.name, encode(Heartbeat(leader.engine.core.term, 0, 1)))
    leader.engine.tick()
    assert leader.engine.failed is not None and "two leaders in term" in leader.engine.failed


def test_a_data_directory_serves_one_node_id() -> None:
    cluster, leader, _ = settled("a", "b", "c")
    store = cluster.kill(leader.name)
    with pytest.raises(IntegrityError, match="belongs to node"):
        Node(cluster, "z", store)


def test_settings_that_contradict_themselves_are_refused_with_every_fault() -> None:
    wrong = RaftSettings(heartbeat_s=0.5, election_min_s=0.6, election_max_s=0.6, quorum_silence_s=2.0)
    with pytest.raises(ConfigError) as caught:
        Cluster("a", settings=wrong)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize("voters", [3, 5, 7])
def test_any_minority_of_the_voters_may_be_lost_and_observers_neither_help_nor_hinder(voters: int) -> None:
    names = "abcdefg"[:voters]
    cluster = Cluster(*names)
    leader = cluster.elect()
    for observer in ("x", "y", "z"):
        cluster.join(observer)
        cluster.propose(leader.name, "member", observer, "observer")
        cluster.run_until(lambda name=observer: name in leader.engine.context.observers)  # type: ignore[misc]
    for lost in range((voters - 1) // 2):
        cluster.kill(cluster.elect().name)  # The leader, each time.
        present = cluster.elect()
        cluster.propose(present.name, "set", f"key{lost}", "value")
        cluster.run_until(lambda node=present: node.engine.core.applied == node.engine.journal.last_index)  # type: ignore[misc]
    last = cluster.elect()
    cluster.run_until(lambda: all(cluster.applied(name) == cluster.applied(last.name) for name in "xyz"))
    cluster.kill(last.name)  # Half of the voters and more are gone: all observers together are no quorum.
    cluster.run(10.0)
    assert cluster.leaders == []
