"""The real ledger under real consensus: founded, joined, ticked, and equal on every node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest_asyncio

from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import AddNode, Command, FoundCluster, Invite, Proposal, Tick
from iceprod_p2p.ledger.outcome import Applied, Refusal, Refused
from iceprod_p2p.model.site import Member
from iceprod_p2p.raft.machine import ledger_machine
from iceprod_p2p.security.certificates import to_der
from tests.integration import raft_nodes
from tests.integration.raft_nodes import LoopbackCluster, blob
from tests.integration.test_raft_nodes import until


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LoopbackCluster]:
    made = LoopbackCluster(tmp_path, machine=ledger_machine(), genesis=genesis)
    await made.start()
    yield made
    await made.stop()


def genesis(cluster: LoopbackCluster, members: Sequence[Member]) -> bytes:
    """The first entry: the cluster, its founder, and everybody else by an invitation."""
    root, authority = to_der(cluster.ring.root.certificate), to_der(cluster.ring.madison.certificate)
    commands: list[tuple[int, Command]] = [(0, FoundCluster("icecube", root))]
    for number, member in enumerate(members):
        token = member.node_id.encode().ljust(32, b"t") if number else b""
        keys = member.node_id.encode().ljust(32, b"\0")
        if number:  # Voters are added one at a time, each by somebody who has seen the one before.
            commands += [(number - 1, Tick(1, number)), (number, Invite(token, member.site))]
        commands.append((number, AddNode(member, authority, keys, f"key-{member.node_id}", keys, token)))
    return encode_entry(
        [
            Proposal(bytes([n]) * 16, made_at, "node:node-a", command)
            for n, (made_at, command) in enumerate(commands)
        ]
    )


async def test_ticks_of_the_leader_advance_the_same_ledger_time_everywhere(cluster: LoopbackCluster) -> None:
    a, b, c = cluster.nodes.values()
    await a.raft.propose(blob(1), actor="node:node-a")
    for _ in range(20):  # A term that another one follows just then is over.
        term = a.raft.status().term
        first = await b.raft.propose(Tick(term, 5_000), actor="node:node-b")
        if isinstance(first, Applied):
            break
        await asyncio.sleep(0.5)
    assert isinstance(first, Applied)
    stale = await b.raft.propose(Tick(term - 1, 9_000), actor="node:node-b")
    assert isinstance(stale, Refused) and stale.code is Refusal.STALE_TERM
    for node in (a, b, c):
        await node.raft.barrier()
        with node.raft.view() as ledger:
            assert queries.ledger_time_ms(ledger) == 5_000


async def test_members_report_equal_digests_at_equal_indexes(cluster: LoopbackCluster) -> None:
    nodes = list(cluster.nodes.values())
    await asyncio.gather(
        *(node.raft.propose(blob(n), actor=f"node:{node.name}") for n in range(100) for node in nodes)
    )
    await asyncio.gather(*(node.raft.barrier() for node in nodes))

    def stand() -> dict[int, set[str]]:
        by_applied: dict[int, set[str]] = {}
        for node in nodes:
            status = node.raft.status()
            by_applied.setdefault(status.applied, set()).add(status.digest)
            assert [member.role for member in status.members] == ["voter"] * 3
        assert all(len(digests) == 1 for digests in by_applied.values())
        return by_applied

    await until(lambda: len(stand()) == 1)


def test_the_small_ledger_of_other_tests_is_not_the_real_one() -> None:
    assert raft_nodes.MACHINE.apply is not ledger_machine().apply
