"""RaftNode over real gRPC, mutual TLS and LMDB with fsync, three nodes in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from iceprod_p2p.base.errors import IntegrityError, Unavailable
from iceprod_p2p.ledger.commands import AddNode, PromoteMember
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.outcome import Applied, Outcome
from iceprod_p2p.model.identity import IdentityKind, node_server_name
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.raft.machine import StateMachine
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.store.errors import StoreLocked
from iceprod_p2p.wire.channel import TlsMaterial, secure_channel
from iceprod_p2p.wire.pb.peer_pb2 import Frame
from iceprod_p2p.wire.pb.peer_pb2_grpc import PeerStub
from tests.integration.raft_nodes import MACHINE, LoopbackCluster, LoopbackNode, blob, now_ms
from tests.unit.security.rings import issued


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LoopbackCluster]:
    made = LoopbackCluster(tmp_path, settings=RaftSettings(log_keep_entries=50, compact_entries_max=20))
    await made.start()
    yield made
    await made.stop()


async def until(condition: Callable[[], Any], *, within_s: float = 60.0) -> Any:
    """Wait until `condition()` is true and return it."""
    end_s = asyncio.get_running_loop().time() + within_s
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < end_s, "it did not come about in time"
        await asyncio.sleep(0.02)
    return value


async def hand_over(asked: LoopbackNode, to: str) -> str:
    """Ask a node that `to` shall lead, again while it knows no leader or the old one leads on; return who does."""
    end_s = asyncio.get_running_loop().time() + 60.0
    while True:
        try:
            return await asked.raft.transfer_leader(to)
        except Unavailable:
            assert asyncio.get_running_loop().time() < end_s, f"{to} does not lead"
            await asyncio.sleep(0.1)


async def test_commands_from_every_node_are_applied_on_all_of_them(cluster: LoopbackCluster) -> None:
    nodes = list(cluster.nodes.values())
    outcomes = await asyncio.gather(
        *(
            node.raft.propose(blob(3 * n + k), actor="node:x")
            for n in range(60)
            for k, node in enumerate(nodes)
        )
    )
    assert all(isinstance(outcome, Applied) for outcome in outcomes)
    index = await nodes[0].raft.barrier()
    for node in nodes:
        assert await node.raft.barrier() >= index
        with node.raft.view() as ledger:
            assert sum(1 for _ in ledger.scan(b"B", b"C")) == 180

    def agree() -> bool:
        first, second, third = (node.raft.status() for node in nodes)
        return (
            first.term == second.term == third.term
            and {status.role for status in (first, second, third)} == {"leader", "follower"}
            and first.log_digest == second.log_digest == third.log_digest
        )

    await until(agree)


async def test_a_request_repeated_on_another_node_gives_the_first_outcome(cluster: LoopbackCluster) -> None:
    a, b, _ = cluster.nodes.values()
    first = await a.raft.propose(blob(1), actor="node:x", request_id=b"r" * 16)
    again = await b.raft.propose(blob(1), actor="node:x", request_id=b"r" * 16)
    assert first == again


async def test_a_stopped_leader_hands_over_and_comes_back_without_a_list_of_peers(
    cluster: LoopbackCluster,
) -> None:
    old = await until(lambda: cluster.leader)
    await old.raft.propose(blob(1), actor="node:x")
    await old.stop()
    other = next(node for node in cluster.nodes.values() if node is not old)
    await other.raft.propose(blob(2), actor="node:x")
    await old.listen()
    await old.start()
    await until(lambda: old.raft.status().applied == other.raft.status().applied)
    with old.raft.view() as ledger:
        assert sum(1 for _ in ledger.scan(b"B", b"C")) == 2


async def test_a_node_that_was_linked_before_its_raft_part_began_hears_the_leader(
    cluster: LoopbackCluster,
) -> None:
    await until(lambda: cluster.leader is not None)
    late = cluster.followers[0]
    await late.stop()
    await late.listen()
    others = [node for node in cluster.nodes.values() if node is not late]
    await until(lambda: all(late.name in node.transport.connected() for node in others))
    await others[0].raft.propose(blob(1), actor="node:x")
    await late.start()
    await until(lambda: late.raft.status().applied == others[0].raft.status().applied)
    await until(lambda: late.raft.status().leader_id is not None)


async def test_what_the_status_calls_applied_is_what_a_view_shows(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def apply(ledger: KeyValue, index: int, term: int, entry: bytes) -> Sequence[Outcome]:
        outcomes = MACHINE.apply(ledger, index, term, entry)
        if nodes:  # In the middle of a tick: this entry is applied, but not committed to the disk.
            seen.append((index, nodes[0].raft.status().applied))
        return outcomes

    nodes: list[LoopbackNode] = []
    machine = StateMachine(apply, MACHINE.members, MACHINE.time_ms, MACHINE.digest)
    cluster = LoopbackCluster(tmp_path, names="a", machine=machine)
    await cluster.start()
    try:
        nodes.extend(cluster.nodes.values())
        await nodes[0].raft.propose(blob(1), actor="node:x")
        assert seen and all(applied < index for index, applied in seen)
        with nodes[0].raft.view() as ledger:
            assert sum(1 for _ in ledger.scan(b"B", b"C")) == 1
        assert nodes[0].raft.status().applied == seen[-1][0]
    finally:
        await cluster.stop()


async def test_leadership_is_handed_to_the_node_asked_for(cluster: LoopbackCluster) -> None:
    leader = await until(lambda: cluster.leader)
    await leader.raft.propose(blob(1), actor="node:x")
    target, other = (node for node in cluster.nodes.values() if node is not leader)
    assert await hand_over(leader, target.name) == target.name
    assert await hand_over(leader, target.name) == target.name, "it leads already"
    assert await hand_over(other, leader.name) == leader.name, "whoever is asked"
    with pytest.raises(Unavailable, match="was not handed to nobody-there"):
        await other.raft.transfer_leader("nobody-there", timeout_s=0.5)


async def test_a_joiner_gets_a_snapshot_follows_and_is_promoted(cluster: LoopbackCluster) -> None:
    a = cluster.nodes["a"]
    for start in range(0, 200, 2):
        await asyncio.gather(*(a.raft.propose(blob(n), actor="node:x") for n in range(start, start + 2)))
    await until(lambda: any(n.raft.is_leader and n.raft.status().first > 1 for n in cluster.nodes.values()))
    joiner = cluster.new_node("node-d")
    await joiner.listen()
    await joiner.start()
    cluster.nodes["d"] = joiner
    member = joiner.member(MemberRole.OBSERVER)
    await a.raft.propose(AddNode(member, b"", b"\0" * 32, "k", b"\0" * 32), actor="node:x")
    outcome = await joiner.raft.propose(blob(999), actor="node:x")  # An observer proposes like anybody.
    assert isinstance(outcome, Applied)
    assert joiner.raft.status().role == "observer"
    await a.raft.propose(PromoteMember(joiner.name), actor="node:x")
    await until(lambda: joiner.raft.status().role in ("follower", "leader"))
    index = await joiner.raft.barrier()
    assert index >= 200 / 3
    with joiner.raft.view() as ledger:
        assert sum(1 for _ in ledger.scan(b"B", b"C")) == 201


async def test_without_a_quorum_nothing_is_acknowledged_and_no_read_is_answered(
    cluster: LoopbackCluster,
) -> None:
    a, b, c = cluster.nodes.values()
    await a.raft.propose(blob(1), actor="node:x")
    await b.stop()
    await c.stop()
    with pytest.raises(Unavailable):
        await a.raft.propose(blob(2), actor="node:x", timeout_s=1.5)
    with pytest.raises(Unavailable):
        await a.raft.barrier(timeout_s=1.0)
    for node in (b, c):
        await node.listen()
        await node.start()
    await a.raft.propose(blob(3), actor="node:x")


async def test_one_data_directory_is_open_in_one_node_at_a_time(cluster: LoopbackCluster) -> None:
    a = cluster.nodes["a"]
    twin = LoopbackNode(cluster.ring, cluster.root, a.name, cluster.settings)
    await twin.listen()
    with pytest.raises(StoreLocked, match="open in another process"):
        await twin.start()
    await twin.server.stop(0)


async def test_damage_on_disk_is_named_at_start_and_the_node_takes_no_part(cluster: LoopbackCluster) -> None:
    a, b, _ = cluster.nodes.values()
    await a.raft.propose(blob(1), actor="node:x")
    await a.stop()
    from iceprod_p2p.raft.journal import KEY
    from iceprod_p2p.store.environment import Environment

    environment = Environment(a.path)
    transaction = environment.write()
    row = transaction.log.get(KEY.pack(2))
    assert row is not None
    transaction.log.put(KEY.pack(2), row[:-1] + bytes([row[-1] ^ 1]))
    transaction.commit()
    environment.close()
    await a.listen()
    with pytest.raises(IntegrityError, match="entry 2 of the log is damaged"):
        await a.start()
    await a.server.stop(0)
    a.environment.close()
    await b.raft.propose(blob(2), actor="node:x")  # The other two go on.
    del cluster.nodes["a"]


async def speak_as(cluster: LoopbackCluster, tls: TlsMaterial) -> grpc.StatusCode:
    """Open a link to node a with someone's certificate and return how it ends."""
    a = cluster.nodes["a"]
    name = node_server_name(a.name, site="madison", cluster="icecube")
    async with secure_channel(a.address, tls, server_name=name) as channel:
        call = PeerStub(channel).Link()
        try:
            await call.write(Frame(body=b"\x90"))
            while True:
                if await asyncio.wait_for(call.read(), 30.0) is grpc.aio.EOF:
                    break
        except grpc.aio.AioRpcError as error:
            return error.code()
        return await call.code()


async def test_pilots_and_persons_cannot_link(cluster: LoopbackCluster) -> None:
    for kind, issuer in (
        (IdentityKind.PILOT, cluster.ring.madison),
        (IdentityKind.PERSON, cluster.ring.people),
    ):
        chain, key = issued(issuer, kind, "somebody", now_ms=now_ms())
        code = await speak_as(cluster, TlsMaterial(chain, key, cluster.ring.root_pem))
        assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_garbage_from_a_certified_node_is_refused_and_hurts_nobody(cluster: LoopbackCluster) -> None:
    a = cluster.nodes["a"]
    chain, key = issued(cluster.ring.madison, IdentityKind.NODE, "node-z", now_ms=now_ms())
    name = node_server_name(a.name, site="madison", cluster="icecube")
    tls = TlsMaterial(chain, key, cluster.ring.root_pem)
    async with secure_channel(a.address, tls, server_name=name) as channel:
        call = PeerStub(channel).Link()
        await call.write(Frame(body=b"\x92\xc4\x02\x91\x63\xc4\x01\xc1"))  # Two frames that are no messages.
        await until(lambda: a.raft.status().frames_dropped >= 2)
        await call.write(Frame(body=b"no list of frames"))
        with pytest.raises(grpc.aio.AioRpcError, match="holds no frames"):
            while await asyncio.wait_for(call.read(), 30.0) is not grpc.aio.EOF:
                pass
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert a.raft.failed is None
    await a.raft.propose(blob(1), actor="node:x")
