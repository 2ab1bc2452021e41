"""Data directories that are older than what their node promised: seen by peers, ended by name, for ever."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from iceprod_p2p.base.errors import IntegrityError
from iceprod_p2p.raft.founding import found, prepare_joiner
from iceprod_p2p.raft.messages import Append, AppendReply, Hello, VoteRequest, decode, encode
from tests.unit.raft.fakes import Cluster, MemoryStore, Node, apply, genesis


def copied(store: MemoryStore) -> MemoryStore:
    made = MemoryStore()
    made.durable = copy.deepcopy(store.durable)
    return made


def busy_cluster(commands: int = 5, *, ready: int = 0) -> tuple[Cluster, Node, list[Node]]:
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect()
    work(cluster, leader, commands)
    return cluster, leader, [node for node in cluster.nodes.values() if node is not leader]


def work(cluster: Cluster, leader: Node, commands: int) -> None:
    for number in range(commands):
        cluster.propose(leader.name, "set", f"key{number}", "value")
        cluster.run(0.05)


def test_a_follower_set_back_behind_its_acknowledgements_ends_by_name_and_stays_out() -> None:
    cluster, leader, (follower, _) = busy_cluster()
    backup = copied(follower.store)
    work(cluster, leader, 5)
    cluster.kill(follower.name)
    old = cluster.restart(follower.name, backup)
    cluster.run_until(lambda: old.engine.failed is not None)
    assert old.engine.failed is not None and "it is an old copy" in old.engine.failed
    assert "may not vote any more" in old.engine.failed
    cluster.kill(follower.name)
    with pytest.raises(IntegrityError, match="may not vote any more"):
        cluster.restart(follower.name, backup)


def test_nothing_that_an_old_copy_says_counts_before_it_is_found_out() -> None:
    cluster, leader, (follower, other) = busy_cluster()
    backup = copied(follower.store)
    work(cluster, leader, 5)
    cluster.kill(follower.name)
    old = cluster.restart(follower.name, backup)
    session = old.engine.context.session
    term = leader.engine.core.term
    journal = leader.engine.journal
    # Alone with the third node, it asks for a vote and acknowledges what it is sent.
    question = VoteRequest(term + 1, journal.last_index, journal.last_term, 99, False, True, session)
    cluster.network.frames.clear()
    other.engine.receive(old.name, encode(question))
    other.engine.tick()
    kinds = {type(decode(frame)).__name__ for _, to, frame in cluster.network.frames if to == old.name}
    assert kinds <= {"Hello", "HelloWanted"} and "HelloWanted" in kinds
    assert other.engine.core.term == term
    match = leader.engine.leading.followers[old.name].match
    leader.engine.receive(old.name, encode(AppendReply(term, True, journal.last_index, 0, session)))
    leader.engine.tick()
    assert leader.engine.leading.followers[old.name].match == match


def test_a_vote_that_was_forgotten_is_remembered_by_the_candidate() -> None:
    cluster, leader, (follower, _) = busy_cluster(0)
    assert leader.engine.promises._peers[follower.name].voted_term in (0, leader.engine.core.term)
    voter = next(
        node
        for node in cluster.nodes.values()
        if leader.engine.promises._peers.get(node.name, None) is not None
        and leader.engine.promises._peers[node.name].voted_term == leader.engine.core.term
    )
    known = leader.engine.promises._peers[voter.name]
    hello = Hello(b"", known.boot + 1, 99, leader.engine.core.term, "", 1 << 20, 1 << 20)
    assert "vote in term" in leader.engine.promises._contradiction(known, hello)
    honest = Hello(b"", known.boot + 1, 99, leader.engine.core.term, leader.name, 1 << 20, 1 << 20)
    assert leader.engine.promises._contradiction(known, honest) == ""


def test_a_leader_set_back_behind_what_it_committed_is_found_out_by_its_followers() -> None:
    cluster, leader, (follower, _) = busy_cluster()
    backup = copied(leader.store)
    work(cluster, leader, 5)
    cluster.run(0.5)
    cluster.kill(leader.name)
    old = cluster.restart(leader.name, backup)
    cluster.run_until(lambda: old.engine.failed is not None)
    assert old.engine.failed is not None and "old copy" in old.engine.failed
    assert follower.engine.failed is None
    cluster.run_until(lambda: any(name != old.name for name in cluster.leaders), within_s=5.0)


def test_a_copy_from_before_a_restart_is_found_out_even_where_nothing_was_promised() -> None:
    cluster, _, (follower, other) = busy_cluster()
    backup = copied(follower.store)
    for _ in range(2):
        store = cluster.kill(follower.name)
        follower = cluster.restart(follower.name, store)
        cluster.run(1.0)
    cluster.kill(follower.name)
    old = cluster.restart(follower.name, backup)
    known = other.engine.promises._peers[old.name]
    hello = Hello(b"", old.engine.promises.session.boot, 1234, 1 << 20, "", 0, 1 << 20)
    assert "this is its start" in other.engine.promises._contradiction(known, hello)


def test_an_empty_directory_under_an_old_id_is_another_node() -> None:
    cluster = Cluster("a", "b", "c")
    for number, name in enumerate("abc"):
        cluster.kill(name)
        store = MemoryStore()
        found(store, name, genesis("a", "b", "c"), apply=apply, incarnation=bytes([number]) * 16)
        cluster.restart(name, store)
    leader = cluster.elect()
    cluster.run(1.0)
    victim = next(name for name in "abc" if name != leader.name)
    cluster.kill(victim)
    wiped = MemoryStore()
    prepare_joiner(wiped, victim, incarnation=b"z" * 16)
    again = cluster.restart(victim, wiped)
    cluster.run_until(lambda: again.engine.failed is not None)
    assert again.engine.failed is not None and "another data directory" in again.engine.failed


@pytest.mark.parametrize("seed", range(15))
def test_sound_restarts_are_never_taken_for_old_copies(seed: int) -> None:
    cluster = Cluster("a", "b", "c", seed=seed)
    leader = cluster.elect()
    for round_ in range(8):
        work(cluster, leader, 2)
        name = cluster.random.choice(sorted(cluster.nodes))
        store = cluster.kill(name)
        cluster.run(cluster.random.random() * 3)
        cluster.restart(name, store)
        leader = cluster.elect()
        assert not [node.engine.failed for node in cluster.nodes.values() if node.engine.failed], round_


def test_a_hello_that_comes_late_or_twice_changes_nothing() -> None:
    cluster, leader, (follower, _) = busy_cluster()
    hello: Any = None
    follower.engine.promises.greet(leader.name)
    follower.engine.context.release()
    hello = next(f for o, t, f in cluster.network.frames if (o, t) == (follower.name, leader.name))
    work(cluster, leader, 5)
    leader.engine.receive(follower.name, hello)
    leader.engine.tick()
    cluster.run(0.5)
    assert follower.engine.failed is None and leader.engine.failed is None


def test_acknowledgements_of_an_earlier_term_say_nothing_about_the_present_one() -> None:
    _, _, (follower, _) = busy_cluster()
    state = follower.engine.journal.state
    assert state.acked == follower.engine.journal.last_index
    beat = Append(state.term + 1, 1, 1, follower.engine.journal.digest_at(1) or b"", 1, [])
    follower.engine.receive("b" if follower.name != "b" else "c", encode(beat))
    follower.engine.tick()
    assert follower.engine.journal.state.acked == 1
