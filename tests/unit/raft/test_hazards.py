"""What PySyncObj does wrong as shipped, each shown not to happen here.  Numbers are those of docs/raft.md."""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from iceprod_p2p.base.errors import BadInput, IntegrityError
from iceprod_p2p.raft.compaction import compact
from iceprod_p2p.raft.engine import Engine
from iceprod_p2p.raft.journal import KEY, Journal, digest_after
from iceprod_p2p.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    SnapshotOffer,
    SnapshotPage,
    VoteReply,
    decode,
    encode,
)
from iceprod_p2p.raft.settings import FRAME_BYTES_MAX, RaftSettings
from iceprod_p2p.raft.syncobj import Role
from tests.unit.raft.fakes import Cluster, MemoryStore, Node, apply, said_by


def committed_cluster(*names: str, commands: int = 5, **options: Any) -> tuple[Cluster, Node]:
    cluster = Cluster(*names, **options)
    leader = cluster.elect()
    for number in range(commands):
        cluster.propose(leader.name, "set", f"key{number}", f"value{number}")
        cluster.run(0.05)
    cluster.run(0.5)
    return cluster, leader


def replay_append(leader: Engine, prev: int, until: int) -> Append:
    journal = leader.journal
    journal.open(leader._store.write())
    entries = journal.entries(prev + 1, bytes_max=1 << 20, count_max=until - prev)
    journal.close()
    term, digest = journal.term_at(prev), journal.digest_at(prev)
    assert term is not None and digest is not None
    return Append(leader.core.term, prev, term, digest, leader.core.commit, entries)


def frames_to(cluster: Cluster, target: str, kind: type) -> list[Any]:
    found = [decode(frame) for _, to, frame in cluster.network.frames if to == target]
    return [message for message in found if isinstance(message, kind)]


def test_1_an_old_append_cuts_nothing_off_and_acknowledges_only_itself() -> None:
    cluster, leader = committed_cluster("a", "b", "c", commands=8)
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    last = follower.engine.journal.last_index
    cluster.network.frames.clear()
    follower.engine.receive(leader.name, encode(replay_append(leader.engine, 2, 4)))
    follower.engine.tick()
    assert follower.engine.journal.last_index == last
    (reply,) = frames_to(cluster, leader.name, AppendReply)
    assert (reply.ok, reply.index) == (True, 4)
    progress = leader.engine.leading.followers[follower.name]
    before = (progress.match, progress.next)
    leader.engine.receive(follower.name, encode(reply))
    leader.engine.tick()
    assert (progress.match, progress.next) == before


def test_2_an_acknowledgement_of_another_term_does_not_count() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    cluster.network.isolate(leader.name, list(cluster.nodes))
    cluster.propose(leader.name, "set", "new", "1")
    cluster.run(0.05)
    last, commit = leader.engine.journal.last_index, leader.engine.core.commit
    assert last == commit + 1
    for peer in set(cluster.nodes) - {leader.name}:
        leader.engine.receive(
            peer, said_by(leader.engine, peer, AppendReply(leader.engine.core.term - 1, True, last, 0))
        )
    leader.engine.tick()
    assert leader.engine.core.commit == commit


def test_3_votes_are_counted_by_voter_once_and_for_their_term() -> None:
    cluster = Cluster("a", "b", "c", "d", "e")
    node = cluster.nodes["a"].engine
    cluster.network.isolate("a", list(cluster.nodes))
    cluster.run_until(lambda: node.elections._pre_votes is not None)
    for _ in range(3):
        node.receive("b", said_by(node, "b", VoteReply(node.core.term + 1, True, True)))
    node.receive("stranger", said_by(node, "stranger", VoteReply(node.core.term + 1, True, True)))
    node.tick()
    assert node.core.role is Role.FOLLOWER  # Two of five: itself, and b however often it says so.
    node.receive("c", said_by(node, "c", VoteReply(node.core.term + 1, True, True)))
    node.tick()
    assert node.core.role is Role.CANDIDATE
    term = node.core.term
    for sender in ("b", "b", "b", "stranger"):
        node.receive(sender, said_by(node, sender, VoteReply(term, False, True)))
    node.receive("d", said_by(node, "d", VoteReply(term - 1, False, True)))
    node.tick()
    assert node.core.role is Role.CANDIDATE
    node.receive("d", said_by(node, "d", VoteReply(term, False, True)))
    node.tick()
    assert node.core.role is Role.LEADER


def test_3_observers_never_lead_and_their_acknowledgements_never_commit() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    observer = cluster.join("o")
    cluster.propose(leader.name, "member", "o", "observer")
    cluster.run(1.0)
    assert cluster.applied("o") == cluster.applied(leader.name)
    others = [name for name in cluster.nodes if name not in (leader.name, "o")]
    for name in others:
        cluster.kill(name)
    cluster.propose(leader.name, "set", "x", "1")
    commit = leader.engine.core.commit
    cluster.run(5.0)
    assert leader.engine.core.commit == commit
    assert not leader.engine.is_leader
    assert observer.engine.core.role is Role.FOLLOWER
    assert observer.engine.core.term == leader.engine.core.term


def test_5_a_kill_in_the_middle_of_compaction_keeps_every_entry() -> None:
    settings = RaftSettings(log_keep_entries=10, compact_entries_max=5)
    cluster, leader = committed_cluster("a", commands=30, settings=settings)
    store = leader.store
    entries = len(store.durable["log"])
    transaction = store.write()
    journal = leader.engine.journal
    journal.open(transaction)
    journal.drop_to(journal.base.index + 5)
    transaction.abort()  # The process died before the commit.
    assert len(store.durable["log"]) == entries
    cluster.kill("a")
    restarted = cluster.restart("a", store)
    assert restarted.engine.journal.last_index == restarted.engine.journal.base.index + entries


def test_5_compaction_drops_only_applied_entries_beyond_the_margin() -> None:
    settings = RaftSettings(log_keep_entries=10, compact_entries_max=5)
    leader = committed_cluster("a", commands=60, settings=settings)[1]
    journal = leader.engine.journal
    assert 10 <= journal.last_index - journal.base.index <= 15
    journal.open(leader.store.write())
    with pytest.raises(AssertionError, match="still needed"):
        journal.drop_to(journal.state.applied + 1)
    base = journal.base.index
    compact(journal, RaftSettings(log_keep_entries=1, compact_entries_max=1), base)
    assert journal.base.index == base  # Entries after a snapshot that is being sent are spared.


@pytest.mark.parametrize("position", [0, 8, 12, 30, -1])
def test_6_one_flipped_bit_in_the_log_is_found_and_named_at_start(position: int) -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    store = cluster.kill(leader.name)
    key = KEY.pack(3)
    row = bytearray(store.durable["log"][key])
    row[position] ^= 1
    store.durable["log"][key] = bytes(row)
    with pytest.raises(IntegrityError, match="entry 3"):
        cluster.restart(leader.name, store)


def test_6_a_missing_entry_and_a_damaged_state_are_found_and_named_at_start() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    store = cluster.kill(leader.name)
    removed = store.durable["log"].pop(KEY.pack(3))
    with pytest.raises(IntegrityError, match="entry 3 of the log is missing"):
        cluster.restart(leader.name, store)
    store.durable["log"][KEY.pack(3)] = removed
    for name in (b"state", b"identity"):
        sound = store.durable["meta"][name]
        store.durable["meta"][name] = bytes([sound[0] ^ 1]) + sound[1:]
        with pytest.raises(IntegrityError, match="damaged"):
            cluster.restart(leader.name, store)
        store.durable["meta"][name] = sound
    cluster.restart(leader.name, store)


def test_6_a_log_cut_off_below_its_commit_index_is_refused() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    store = cluster.kill(leader.name)
    del store.durable["log"][store.durable["log"].keys()[-1]]
    with pytest.raises(IntegrityError, match="does not fit"):
        cluster.restart(leader.name, store)


def test_6_an_empty_directory_takes_no_part_under_an_old_name() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    cluster.kill(leader.name)
    with pytest.raises(IntegrityError, match="no node in this data directory"):
        cluster.restart(leader.name, MemoryStore())


def test_7_a_commit_index_counts_only_as_far_as_the_message_verified() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    engine = follower.engine
    term, last, commit = engine.core.term, engine.journal.last_index, engine.core.commit
    digest = engine.journal.digest_at(last)
    last_term = engine.journal.term_at(last)
    assert digest is not None and last_term is not None
    tail = [(term, b"\x00\x90")] * 3
    engine.receive(leader.name, encode(Append(term, last, last_term, digest, commit, tail)))
    engine.tick()
    # Another leader commits far ahead, but its message verifies the log only up to `last`.
    other = next(name for name in cluster.nodes if name not in (leader.name, follower.name))
    engine.receive(other, encode(Append(term + 1, last, last_term, digest, last + 3, [])))
    engine.tick()
    assert engine.core.commit == last
    assert engine.core.applied == last


def test_7_a_heartbeat_never_commits_what_this_node_did_not_acknowledge() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    cluster.network.isolate(follower.name, list(cluster.nodes))
    cluster.propose(leader.name, "set", "x", "1")
    cluster.run(0.3)
    cluster.network.heal()
    cluster.network.frames.clear()
    leader.engine.leading.on_timer(reads_wait=True)
    (beat,) = frames_to(cluster, follower.name, Heartbeat)
    assert beat.commit <= follower.engine.journal.last_index


def small_snapshots() -> RaftSettings:
    return RaftSettings(
        log_keep_entries=5, compact_entries_max=5, snapshot_page_bytes=200, snapshot_pages_in_flight=2
    )


def test_7_a_snapshot_that_is_not_ahead_is_refused() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    core = follower.engine.core
    offer = SnapshotOffer(core.term, b"s" * 16, core.commit, core.term, b"d" * 16)
    values = cluster.values(follower.name)
    follower.engine.receive(leader.name, encode(offer))
    follower.engine.receive(leader.name, encode(SnapshotPage(b"s" * 16, 0, [(b"x", b"y")], True, b"", 1)))
    follower.engine.tick()
    assert cluster.values(follower.name) == values
    assert follower.store.swaps == 0


def test_8_a_snapshot_keeps_the_entries_beyond_it_that_were_acknowledged() -> None:
    cluster, leader = committed_cluster("a", "b", "c", commands=3)
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    engine, journal = follower.engine, follower.engine.journal
    core = engine.core
    # Entries that follow are acknowledged but not known to be committed.
    last, term = journal.last_index, core.term
    digest = journal.digest_at(last)
    assert digest is not None and journal.last_term == term
    tail = [(term, b"\x00\x90")] * 4
    engine.receive(leader.name, encode(Append(term, last, term, digest, core.commit, tail)))
    engine.tick()
    assert journal.last_index == last + 4
    at = last + 2
    snapshot_digest = journal.digest_at(at)
    assert snapshot_digest is not None
    engine.receive(leader.name, encode(SnapshotOffer(term, b"s" * 16, at, term, snapshot_digest)))
    engine.tick()
    total = sha256()
    pairs = sorted(cluster.values(leader.name).items())
    for key, value in pairs:
        total.update(KEY.pack(len(key)) + key + KEY.pack(len(value)) + value)
    page = SnapshotPage(b"s" * 16, 0, pairs, True, total.digest(), len(pairs))
    engine.receive(leader.name, encode(page))
    vote = core.vote
    engine.tick()
    assert follower.store.swaps == 1
    assert (core.commit, core.applied, journal.base.index) == (at, at, at)
    assert journal.last_index == last + 4
    assert (core.term, core.vote) == (term, vote)
    expected = digest_after(digest_after(snapshot_digest, term, b"\x00\x90"), term, b"\x00\x90")
    assert journal.digest_at(last + 4) == expected
    with follower.store.read() as snapshot:
        assert Journal(snapshot, cache_bytes=1_000).last_index == last + 4


def test_9_an_exception_in_apply_ends_the_raft_part_by_name_and_is_not_tried_again() -> None:
    tries = []

    def counted(ledger: Any, index: int, term: int, entry: bytes) -> list[Any]:
        tries.append(index)
        return apply(ledger, index, term, entry)

    cluster, leader = committed_cluster("a", "b", "c", state_machine=counted)
    request = cluster.propose(leader.name, "raise", "x")
    tries.clear()
    cluster.run(1.0)
    failed = [node for node in cluster.nodes.values() if node.engine.failed]
    assert leader in failed
    assert leader.engine.failed is not None and "breaks the ledger" in leader.engine.failed
    assert len(tries) <= len(failed)
    assert leader.results[request].retry_after_s > 0  # Unavailable, not a result.
    sent = len(cluster.network.frames)
    leader.engine.receive("b", encode(Heartbeat(99, 0, 1)))
    leader.engine.tick()
    assert len(cluster.network.frames) == sent
    assert leader.engine.wakeup_at_s() == float("inf")


def test_10_nothing_is_unpickled_while_nodes_elect_replicate_and_send_snapshots() -> None:
    found: list[str] = []
    armed = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if armed[0] and event == "pickle.find_class":
            found.append(str(arguments))

    sys.addaudithook(watch)
    cluster, leader = committed_cluster("a", "b", "c", commands=30, settings=small_snapshots())
    cluster.join("d")
    cluster.propose(leader.name, "member", "d", "observer")
    cluster.run(2.0)
    armed[0] = False
    assert cluster.applied("d") == cluster.applied(leader.name)
    assert found == []


def test_10_a_pickled_or_chunked_command_of_stock_pysyncobj_is_refused() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    last = follower.engine.journal.last_index
    stock = {
        "type": "append_entries",
        "transmission": "start",
        "data": b"\x80\x02",
        "term": 99,
        "commit_index": 9,
    }
    follower.engine.receive(leader.name, msgspec.msgpack.encode(stock))
    membership = Append(
        99, last, follower.engine.journal.last_term, b"0" * 16, 0, [(99, b"\x02\x80\x02]q\x00.")]
    )
    follower.engine.receive(leader.name, encode(membership))
    follower.engine.tick()
    assert follower.engine.frames_dropped == 2
    assert follower.engine.journal.last_index == last
    assert follower.engine.core.term < 99
    assert follower.engine.failed is None


def test_12_a_request_repeated_after_its_leader_died_is_applied_once() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    other = next(name for name in cluster.nodes if name != leader.name)
    request = cluster.propose(other, "set", "once", "1", request=777)
    for _ in range(3):  # Long enough to reach the log, too short for a result.
        cluster.step()
    cluster.kill(leader.name)
    cluster.run_until(lambda: request in cluster.nodes[other].results)
    first = cluster.nodes[other].results.pop(request)
    assert isinstance(first, int)
    third = next(name for name in cluster.nodes if name != other)
    cluster.propose(third, "set", "once", "2", request=777)
    cluster.run_until(lambda: request in cluster.nodes[third].results)
    assert cluster.nodes[third].results[request] == first
    assert cluster.values(other)[b"Vonce"] == b"1"


def test_13_a_leader_without_a_quorum_steps_down_within_an_election_time_out() -> None:
    cluster, leader = committed_cluster("a", "b", "c")
    cluster.network.isolate(leader.name, list(cluster.nodes))
    leader.engine.read(1, cluster.clock.monotonic_s() + 3.0)
    cluster.run(cluster.settings.election_min_s)
    assert not leader.engine.is_leader
    cluster.run(3.0)
    assert not isinstance(leader.reads[1], int)  # No stale read was answered.


def test_14_lengths_are_bounded_and_indexes_have_64_bits() -> None:
    with pytest.raises(BadInput, match="longer than"):
        decode(bytes(FRAME_BYTES_MAX + 1))
    with pytest.raises(BadInput):
        decode(b"\xdd\xff\xff\xff\xff")  # An array that announces four billion elements.
    with pytest.raises(BadInput):
        decode(b"\x97\x03\xc6\xff\xff\xff\xff")  # Bytes that announce 4 GiB.
    beat = Heartbeat(1 << 40, 1 << 41, 1 << 42)
    assert decode(encode(beat)) == beat
    assert KEY.unpack(KEY.pack(1 << 40)) == (1 << 40,)
