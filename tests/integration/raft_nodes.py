"""Three (or more) real nodes on loopback: LMDB with fsync, mutual TLS, gRPC links; a small ledger of blobs."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from iceprod_cli.free_ports import free_ports

from iceprod_p2p.ledger.codec import Damaged, decode_entry, encode_entry
from iceprod_p2p.ledger.commands import AddNode, Command, PromoteMember, Proposal, RecordBlob, RemoveMember
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.model.identity import IdentityKind
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft.founding import found, owner_of, prepare_joiner
from iceprod_p2p.raft.machine import StateMachine
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.raft.ports import KeyValue
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.raft.transport import PeerTransport
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.wire.channel import TlsMaterial, add_secure_port, new_server
from iceprod_p2p.wire.interceptors import ErrorInterceptor
from iceprod_p2p.wire.pb.peer_pb2_grpc import PeerServicer, add_PeerServicer_to_server
from tests.unit.security.rings import Ring, issued, make_ring

CLUSTER = "icecube"


def now_ms() -> int:
    """The time, in whole seconds, as certificates have it."""
    return int(time.time()) * 1_000


def blob(number: int, nodes: tuple[str, ...] = ()) -> RecordBlob:
    return RecordBlob(f"{number:064x}", number, nodes)


def genesis(members: Sequence[Member]) -> bytes:
    return encode_entry(
        [
            Proposal(
                number.to_bytes(16, "big"),
                0,
                "node:founder",
                AddNode(member, b"", b"\0" * 32, "k", b"\0" * 32),
            )
            for number, member in enumerate(members)
        ]
    )


def apply(ledger: KeyValue, index: int, term: int, entry: bytes) -> list[Outcome]:
    """A ledger of blobs and members with a memory of requests."""
    return [_apply_one(ledger, index, proposal) for proposal in decode_entry(entry)]


def _apply_one(ledger: KeyValue, index: int, proposal: Proposal | Damaged) -> Outcome:
    if isinstance(proposal, Damaged):
        return proposal.refusal
    known = ledger.get(b"R" + proposal.request_id)
    if known is not None:
        return Applied((), int(known))
    command: Command = proposal.command
    match command:
        case AddNode():
            ledger.put(b"M" + command.member.node_id.encode(), msgspec.msgpack.encode(command.member))
        case PromoteMember() | RemoveMember():
            row = ledger.get(b"M" + command.node_id.encode())
            if row is None:
                return Refused(Refusal.NOT_FOUND, command.node_id)
            ledger.delete(b"M" + command.node_id.encode())
            if isinstance(command, PromoteMember):
                member = msgspec.msgpack.decode(row, type=Member)
                promoted = msgspec.structs.replace(member, role=MemberRole.VOTER)
                ledger.put(b"M" + command.node_id.encode(), msgspec.msgpack.encode(promoted))
        case RecordBlob():
            ledger.put(b"B" + command.sha256.encode(), b"%d" % command.size_bytes)
    ledger.put(b"R" + proposal.request_id, b"%d" % index)
    return Applied((), index)


def members(ledger: KeyValue) -> tuple[Member, ...]:
    return tuple(msgspec.msgpack.decode(value, type=Member) for _, value in ledger.scan(b"M", b"N"))


MACHINE = StateMachine(apply, members, lambda ledger: 0, lambda ledger: b"")


class PeerService(PeerServicer):
    """The part of the node's peer service that hands links to the transport."""

    def __init__(self, transport: PeerTransport) -> None:
        self._transport = transport

    async def Link(self, request_iterator: Any, context: Any) -> None:
        await self._transport.serve(request_iterator, context)


class LoopbackNode:
    """One node in this process; `start` and `stop` may be repeated, the data directory stays."""

    def __init__(
        self, ring: Ring, root: Path, name: str, settings: RaftSettings, machine: StateMachine = MACHINE
    ) -> None:
        self.name = name
        self.path = root / name
        self.settings = settings
        self.machine = machine
        chain, key = issued(ring.madison, IdentityKind.NODE, name, now_ms=now_ms())
        self.tls = TlsMaterial(chain, key, ring.root_pem)
        # Not one that the system gives to callers: it must still be free when the node comes back.
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self.failures: list[str] = []
        self.raft: RaftNode

    async def listen(self) -> None:
        self.transport = PeerTransport(self.name, CLUSTER, tls=lambda: self.tls, admit=lambda identity: None)
        self.server = new_server(interceptors=[ErrorInterceptor()])
        add_PeerServicer_to_server(PeerService(self.transport), self.server)  # type: ignore[no-untyped-call]
        bound = add_secure_port(self.server, self.address, self.tls, require_client_certificate=True)
        self.address = str(bound)
        await self.server.start()

    async def start(self, first_entry: bytes = b"") -> None:
        self.environment = Environment(self.path)
        if owner_of(self.environment) is None:
            if first_entry:
                found(self.environment, self.name, first_entry, apply=self.machine.apply)
            else:
                prepare_joiner(self.environment, self.name)
        self.raft = RaftNode(
            self.name,
            environment=self.environment,
            links=self.transport,
            settings=self.settings,
            machine=self.machine,
            on_failed=self.failures.append,
        )
        # Elections take their time on a busy machine; who means to be impatient says so.
        self.raft.propose = functools.partial(self.raft.propose, timeout_s=60.0)  # type: ignore[method-assign]
        self.raft.barrier = functools.partial(self.raft.barrier, timeout_s=60.0)  # type: ignore[method-assign]
        await self.raft.start()

    async def stop(self) -> None:
        await self.raft.stop()
        await self.server.stop(0.1)
        self.environment.close()

    def member(self, role: MemberRole = MemberRole.VOTER) -> Member:
        return Member(self.name, "madison", self.address, role)


class LoopbackCluster:
    """Nodes `a`, `b`, `c` of one new cluster, all voters from the first entry on."""

    def __init__(
        self,
        root: Path,
        *,
        names: str = "abc",
        settings: RaftSettings | None = None,
        machine: StateMachine = MACHINE,
        genesis: Callable[[LoopbackCluster, Sequence[Member]], bytes] = lambda cluster, members: genesis(
            members
        ),
    ) -> None:
        self._genesis = genesis
        self.ring = make_ring(now_ms=now_ms())
        self.root = root
        self.settings = settings or RaftSettings()
        self.machine = machine
        self.nodes = {name: self.new_node(f"node-{name}") for name in names}

    def new_node(self, name: str) -> LoopbackNode:
        return LoopbackNode(self.ring, self.root, name, self.settings, self.machine)

    async def start(self) -> None:
        for node in self.nodes.values():
            await node.listen()
        first = self._genesis(self, [node.member() for node in self.nodes.values()])
        for node in self.nodes.values():
            await node.start(first)

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))

    @property
    def leader(self) -> LoopbackNode | None:
        return next((node for node in self.nodes.values() if node.raft.is_leader), None)

    @property
    def followers(self) -> list[LoopbackNode]:
        return [node for node in self.nodes.values() if not node.raft.is_leader]
