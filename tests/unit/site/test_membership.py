"""Members are changed one at a time, and only where it does no harm; refusals say whom they are about."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import NotFound, Refused, Unavailable
from iceprod_p2p.ledger import queries, versions
from iceprod_p2p.ledger.commands import AddNode, Invite, PromoteMember, Tick
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft.status import RaftStatus
from iceprod_p2p.site.membership import Membership
from iceprod_p2p.wire.pb import common_pb2, control_pb2
from tests.unit.site.one_ledger import OneLedger

ADMIN = "person:ada"


class Cluster:
    """Nodes m1 (voter) and those that joined; what each answers is in `rows`."""

    def __init__(self, *joined: str) -> None:
        self.ledger = OneLedger()
        self.ledger.found(site="madison", node_id="m1")
        self.now_ms = 0
        self.clock = ManualClock()
        self.applied: dict[str, int | None] = {"m1": 1 << 40}
        self.misses: dict[str, int] = {}  # How many times a node does not answer before it does.
        self.leader = "m1"
        for name in joined:
            self.join(name)
        self.members = Membership(
            node_id="m1", consensus=self.ledger, raft=self, cluster=self, ask=self.ask, clock=self.clock
        )

    def join(self, name: str) -> None:
        token = name.encode().ljust(32, b"t")
        self.ledger.must(Invite(token, f"site-{name}"))
        member = Member(name, f"site-{name}", "127.0.0.1:1", MemberRole.OBSERVER)
        node = AddNode(member, b"ca", bytes(32), f"key-{name}", bytes(32), token)
        self.ledger.must(msgspec.structs.replace(node, version_most=versions.VERSION_MOST))
        self.applied[name] = 1 << 40

    def tick(self) -> None:
        self.now_ms += 1_000
        self.ledger.must(Tick(1, self.now_ms))

    def vote(self, *names: str) -> None:
        for name in names:
            self.tick()
            self.ledger.must(PromoteMember(name))
        self.tick()

    def roles(self) -> dict[str, str]:
        return {member.node_id: str(member.role) for member in queries.members(self.ledger.kv)}

    # What the membership reads.

    def nodes_now(self) -> tuple[common_pb2.NodeAddress, ...]:
        return tuple(common_pb2.NodeAddress(node_id=name, role=role) for name, role in self.roles().items())

    async def ask(self, node: common_pb2.NodeAddress) -> control_pb2.MemberStatus:
        self.clock.advance(0.2)
        applied = self.applied[node.node_id]
        left = self.misses.get(node.node_id, 0)
        self.misses[node.node_id] = max(0, left - 1)
        if applied is None or left:
            return control_pb2.MemberStatus(reachable=False)
        return control_pb2.MemberStatus(reachable=True, applied_index=applied)

    def status(self) -> RaftStatus:
        return RaftStatus("m1", "leader", self.leader, 1, 1, 1, 1, 1, "", "", ())

    async def transfer_leader(self, to: str | None) -> str:
        self.leader = to or "anybody"
        return self.leader

    async def promote(self, name: str, *, wait_s: float = 5.0) -> tuple[str, ...]:
        return await self.members.promote(name, actor=ADMIN, request_id=b"r" * 16, wait_s=wait_s)

    async def remove(self, name: str) -> tuple[str, ...]:
        return await self.members.remove(name, actor=ADMIN, request_id=b"s" * 16)


async def test_an_observer_is_promoted_when_it_has_caught_up() -> None:
    cluster = Cluster("g1")
    cluster.tick()
    cluster.applied["g1"] = 0

    async def catch_up() -> None:
        await asyncio.sleep(0.3)
        assert cluster.roles()["g1"] == "observer", "not before it has caught up"
        cluster.applied["g1"] = cluster.ledger.index

    notes, _ = await asyncio.gather(cluster.promote("g1", wait_s=60), catch_up())
    assert cluster.roles()["g1"] == "voter"
    assert notes == (
        "node g1 is a voter",
        "2 voters survive the loss of none, no more than 1 do: an odd number serves better",
    )
    assert await cluster.promote("g1") == ("node g1 is a voter already",)


async def test_an_observer_that_does_not_catch_up_is_refused_with_how_far_behind_it_is() -> None:
    cluster = Cluster("g1")
    for _ in range(20):
        cluster.tick()
    cluster.applied["g1"] = cluster.ledger.index - 17
    with pytest.raises(Refused, match=r"g1 is 17 entries behind: it has applied 7 of 24") as refused:
        await cluster.promote("g1", wait_s=1)
    assert refused.value.code == "behind" and "--wait" in refused.value.remedy
    cluster.applied["g1"] = None
    with pytest.raises(Refused, match="g1 does not answer"):
        await cluster.promote("g1", wait_s=1)
    with pytest.raises(NotFound, match="there is no node 'x9'"):
        await cluster.promote("x9")
    assert cluster.roles()["g1"] == "observer"


async def test_a_replacement_joins_is_promoted_and_the_old_one_removed() -> None:
    cluster = Cluster("g1", "u1")
    cluster.vote("g1", "u1")
    cluster.applied["g1"] = None  # Its machine is gone.
    cluster.join("g2")
    cluster.tick()
    await cluster.promote("g2")
    cluster.tick()
    assert (await cluster.remove("g1"))[-1] == "3 voters survive the loss of 1"
    assert cluster.roles() == {"m1": "voter", "u1": "voter", "g2": "voter"}


async def test_no_voter_is_removed_when_the_rest_could_not_write() -> None:
    cluster = Cluster("g1", "u1")
    cluster.vote("g1", "u1")
    cluster.applied["u1"] = None
    with pytest.raises(
        Refused, match=r"without node g1 nothing could be written any more: .* u1 does not"
    ) as no:
        await cluster.remove("g1")
    assert no.value.remedy == "start u1 first, or remove it instead"
    await cluster.remove("u1")
    assert set(cluster.roles()) == {"m1", "g1"}
    with pytest.raises(Unavailable, match="does not remove itself"):
        await cluster.remove("m1")


async def test_a_voter_that_is_silent_for_a_moment_does_not_stop_a_removal() -> None:
    cluster = Cluster("g1", "u1")
    cluster.vote("g1", "u1")
    cluster.misses["g1"] = 3
    await cluster.remove("u1")
    assert "u1" not in cluster.roles()


async def test_a_change_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster("g1", "u1")
    cluster.vote("g1")
    cluster.ledger.must(PromoteMember("u1"))  # In this very moment of ledger time.

    async def later() -> None:
        await asyncio.sleep(0.3)
        assert "g1" in cluster.roles()
        cluster.tick()

    await asyncio.gather(cluster.remove("g1"), later())
    assert "g1" not in cluster.roles()


async def test_only_a_voter_that_answers_is_asked_to_lead() -> None:
    cluster = Cluster("g1", "u1")
    cluster.vote("u1")
    with pytest.raises(Refused, match="g1 is an observer and cannot lead"):
        await cluster.members.transfer_leader("g1")
    assert await cluster.members.transfer_leader("m1") == "m1", "it leads already"
    assert await cluster.members.transfer_leader("u1") == "u1"
    cluster.leader, cluster.applied["u1"] = "m1", None
    with pytest.raises(Refused, match="u1 does not answer"):
        await cluster.members.transfer_leader("u1")
    assert await cluster.members.transfer_leader("") == "anybody"
