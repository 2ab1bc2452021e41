"""Frames that no honest node sends: claims of nodes that do not vote, leaps of terms and indexes, damaged bytes.

Each is dropped with one sentence.  The leader leads on in its term, nobody's part ends, and entries are committed.
Source: Ongaro's dissertation, chapters 3, 4 and 9, for what each message may do to who believes it.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.raft import messages as wire
from iceprod_p2p.raft.settings import FRAME_BYTES_MAX
from tests.unit.raft.fakes import Cluster, Node, said_by

DIGEST = bytes(16)
HIGHEST = 1 << 62
OBSERVER, STRANGER = "o", "x"


@pytest.fixture
def cluster() -> Cluster:
    """Three voters with a leader, and an observer that has caught up."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect()
    cluster.join(OBSERVER)
    cluster.propose(leader.name, "member", OBSERVER, "observer")
    cluster.run(1.0)
    assert cluster.applied(OBSERVER) == cluster.applied(leader.name)
    return cluster


def forgeries(node: Node) -> Iterator[Any]:
    """What would depose, replace, mislead or retire `node` if it were believed of its sender."""
    engine = node.engine
    core, journal = engine.core, engine.journal
    last, last_term = journal.last_index, journal.last_term
    entry = b"\x00" + msgspec.msgpack.encode([])
    for term in (core.term, core.term + 1, core.term + 1_000, HIGHEST - 1, HIGHEST):
        yield wire.Heartbeat(term, 0, 1)
        yield wire.Heartbeat(term, HIGHEST, 1)
        yield wire.Append(term, last, last_term, DIGEST, last + 1, [(term, entry)])
        yield wire.Append(term, 0, 0, DIGEST, HIGHEST, [(term, entry)] * 3)
        yield wire.SnapshotOffer(term, DIGEST, HIGHEST, term, DIGEST)
        for pre in (True, False):
            for transfer in (True, False):
                yield wire.VoteRequest(term, HIGHEST, term, HIGHEST, pre, transfer)
        yield wire.VoteReply(term, False, False)
        yield wire.VoteReply(term, False, True)
        yield wire.AppendReply(term, False, HIGHEST, HIGHEST)
        yield wire.AppendReply(term, True, HIGHEST, 0)
        yield wire.HeartbeatReply(term, HIGHEST)
        yield wire.TimeoutNow(term)
        yield wire.SnapshotDone(term, DIGEST, HIGHEST)
    yield wire.HelloRefused(engine.promises.session.number, "you are an old copy")
    yield wire.StateDiffers(last, b"other")
    yield wire.StateDigest(HIGHEST, b"other")
    yield wire.ReadAnswer(1, True, HIGHEST)
    yield wire.SnapshotPull(DIGEST, HIGHEST, b"")
    yield wire.SnapshotPage(DIGEST, 0, [(b"k", b"v")], True, bytes(32), 1)
    yield wire.ForwardRefused([bytes(16)])
    yield wire.Forward([(bytes(16), b"\xff" * 100, True)])
    for inside in (b"\x91" * 40_000 + b"\xc0", b"\xdd\xff\xff\xff\xff", b""):
        yield wire.Forward([(bytes(16), b"\x94\xc4\x10" + bytes(16) + b"\x00\xa1x" + inside, False)])


def tell(node: Node, sender: str, message: Any) -> None:
    """Let `sender` say it, in a session that counts."""
    frame = wire.encode(message)
    if hasattr(message, "session") and not isinstance(message, wire.HelloRefused):
        frame = said_by(node.engine, sender, message)
    node.engine.receive(sender, frame)
    node.engine.tick()


def unmoved(cluster: Cluster, leader: Node, term: int) -> None:
    """The leader leads on in its term, nobody's part has ended, and what is proposed is committed by all."""
    before = cluster.applied(leader.name)
    cluster.propose(leader.name, "set", "proof", "1")
    cluster.run(1.0)
    assert {name: node.engine.failed for name, node in cluster.nodes.items() if node.engine.failed} == {}
    assert (cluster.leaders, leader.engine.core.term) == ([leader.name], term)
    assert all(cluster.applied(name) > before for name in cluster.nodes)


@pytest.mark.parametrize("sender", [OBSERVER, STRANGER])
@pytest.mark.parametrize("at", ["leader", "follower"])
def test_who_does_not_vote_moves_nobody(cluster: Cluster, sender: str, at: str) -> None:
    leader = cluster.nodes[cluster.leaders[0]]
    term = leader.engine.core.term
    target = (
        leader
        if at == "leader"
        else next(n for n in cluster.nodes.values() if n.name in "abc" and n is not leader)
    )
    for message in list(forgeries(target)):
        tell(target, sender, message)
        assert target.engine.failed is None, (message, target.engine.failed)
        assert target.engine.core.term == term, message
        assert target.engine.core.leader == leader.name, message
        cluster.run(0.02)
    unmoved(cluster, leader, term)


@pytest.mark.parametrize("at", ["leader", "follower"])
def test_a_voter_cannot_leap_in_terms_or_past_the_log(cluster: Cluster, at: str) -> None:
    leader = cluster.nodes[cluster.leaders[0]]
    term = leader.engine.core.term
    one, other = (node for node in cluster.nodes.values() if node.name in "abc" and node is not leader)
    target = leader if at == "leader" else one
    leaps = [
        wire.Heartbeat(HIGHEST, 0, 1),
        wire.VoteRequest(HIGHEST, HIGHEST, HIGHEST, HIGHEST, False, True),
        wire.AppendReply(HIGHEST, False, 0, 0),
        wire.AppendReply(term, True, HIGHEST, 0),
        wire.HeartbeatReply(term, HIGHEST),
        wire.SnapshotDone(term, DIGEST, HIGHEST),
        wire.StateDigest(HIGHEST, b"other"),
        wire.SnapshotPull(DIGEST, HIGHEST, bytes(10_000)),
        wire.ReadAnswer(HIGHEST, True, HIGHEST),
    ]
    for message in leaps:
        tell(target, other.name, message)
        assert target.engine.failed is None, message
    unmoved(cluster, leader, term)


def test_a_cluster_without_a_leader_elects_one_whatever_an_observer_claims(cluster: Cluster) -> None:
    leader = cluster.nodes[cluster.leaders[0]]
    cluster.kill(leader.name)
    rest = [node for node in cluster.nodes.values() if node.name in "abc"]
    for _ in range(400):
        for node in rest:
            for message in (
                wire.Heartbeat(node.engine.core.term + 1, 0, 1),
                wire.VoteRequest(node.engine.core.term + 1, HIGHEST, HIGHEST, HIGHEST, False, True),
            ):
                tell(node, OBSERVER, message)
        cluster.run(0.01)
    assert len(cluster.leaders) == 1 and cluster.leaders[0] in "abc"
    assert rest[0].engine.core.term < leader.engine.core.term + 10


def test_a_voter_that_lags_follows_a_leader_of_whom_it_has_never_heard(cluster: Cluster) -> None:
    """The other side of it: who became a voter while this node was away leads it all the same, after a while."""
    leader = cluster.nodes[cluster.leaders[0]]
    away = next(node for node in cluster.nodes.values() if node.name in "abc" and node is not leader)
    store = cluster.kill(away.name)
    cluster.join("d")
    cluster.propose(leader.name, "member", "d", "observer")
    cluster.run(1.0)
    cluster.propose(leader.name, "member", "d", "voter")
    cluster.run(1.0)
    cluster.run_until(lambda: cluster.applied("d") == cluster.applied(leader.name))
    leader.engine.transfer("d")
    cluster.run_until(lambda: cluster.leaders == ["d"])
    returned = cluster.restart(away.name, store)
    assert "d" not in returned.engine.context.voters
    cluster.run_until(lambda: cluster.applied(returned.name) == cluster.applied("d"))
    assert returned.engine.core.leader == "d" and cluster.leaders == ["d"]


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


DAMAGED = {
    "nothing": b"",
    "one byte": b"\xc1",
    "no array": msgspec.msgpack.encode({"term": 1}),
    "an unknown kind": msgspec.msgpack.encode([99, 1, 2]),
    "a kind that is text": msgspec.msgpack.encode(["3", 1]),
    "a negative kind": msgspec.msgpack.encode([-1, 1]),
    "too few fields": msgspec.msgpack.encode([3, 1]),
    "a negative term": msgspec.msgpack.encode([5, -1, 0, 0]),
    "a fraction": msgspec.msgpack.encode([5, 1.5, 0, 0]),
    "not a number": msgspec.msgpack.encode([5, float("nan"), 0, 0]),
    "infinity": msgspec.msgpack.encode([5, float("inf"), 0, 0]),
    "64 bits": msgspec.msgpack.encode([5, (1 << 64) - 1, 0, 0]),
    "text for a number": msgspec.msgpack.encode([5, "1", 0, 0]),
    "nil": msgspec.msgpack.encode([5, None, 0, 0]),
    "a short digest": msgspec.msgpack.encode([3, 1, 0, 0, b"x", 0, []]),
    "an entry that is no pair": msgspec.msgpack.encode([3, 1, 0, 0, DIGEST, 0, [[1]]]),
    "an array of four thousand million": b"\xdd\xff\xff\xff\xff",
    "bytes of four thousand million": b"\x92\x03\xc6\xff\xff\xff\xff",
    "a map of four thousand million": b"\xdf\xff\xff\xff\xff",
    "an entry as long as it says": b"\x97\x03\x01\x00\x00\xc4\x10" + DIGEST + b"\x00\xdd\x7f\xff\xff\xff",
    "nested a thousand times": nested(1_000),
    "nested to the limit of a frame": nested(FRAME_BYTES_MAX - 1),
    "nested in a field": b"\x92\x05" + nested(100_000),
    "longer than any frame": bytes(FRAME_BYTES_MAX + 1),
    "four megabytes of entries": msgspec.msgpack.encode([3, 1, 0, 0, DIGEST, 0, [(1, b"x" * 4_000_000)]]),
    "extension types": b"\x92\x05\xc7\x05\x01abcde",
    "a timestamp": b"\x92\x05\xd6\xff\x00\x00\x00\x00",
    "text that is no text": b"\x92\xd9\x02\xff\xfe\x01",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_frames_are_one_refusal_at_little_cost(name: str) -> None:
    tracemalloc.start()
    began_s = time.process_time()
    with pytest.raises(BadInput) as refusal:
        wire.decode(DAMAGED[name])
    spent_s = time.process_time() - began_s
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent_s < 0.5 and peak < 16 << 20, (spent_s, peak)
    assert len(str(refusal.value)) < 500 and str(refusal.value).isprintable()


def test_a_flood_of_damaged_frames_costs_no_leader(cluster: Cluster) -> None:
    leader = cluster.nodes[cluster.leaders[0]]
    term = leader.engine.core.term
    draw = random.Random(6)
    good = [wire.encode(message) for message in forgeries(leader)]
    for number in range(3_000):
        frame = bytearray(draw.choice([*DAMAGED.values(), *good]) if number % 50 == 0 else draw.choice(good))
        for _ in range(draw.randrange(4)):
            if frame:
                frame[draw.randrange(len(frame))] = draw.randrange(256)
        leader.engine.receive(draw.choice((OBSERVER, STRANGER)), bytes(frame))
        if number % 100 == 0:
            cluster.run(0.01)
    unmoved(cluster, leader, term)


def test_entries_of_other_kinds_and_sizes_are_refused_by_a_follower(cluster: Cluster) -> None:
    """Even from the leader itself: what its program would never send ends nowhere in a log."""
    leader = cluster.nodes[cluster.leaders[0]]
    term = leader.engine.core.term
    follower = next(node for node in cluster.nodes.values() if node.name in "abc" and node is not leader)
    journal = follower.engine.journal
    last, last_term, digest = journal.last_index, journal.last_term, journal.digest_at(journal.last_index)
    assert digest is not None
    for entries in (
        [(term, b"")],
        [(term, b"\x02membership of PySyncObj")],
        [(term, b"\x03")],
        [(term, b"\x00" + bytes(60 << 10))],
        [(term + 1, b"\x00")],
        [(term, b"\x00"), (term - 1, b"\x00")],
    ):
        tell(follower, leader.name, wire.Append(term, last, last_term, digest, last, entries))
        assert follower.engine.failed is None and follower.engine.journal.last_index == last
    unmoved(cluster, leader, term)
