"""One member as a process of its own: the real Raft node, links over gRPC with TLS, LMDB with fsync, the ledger.

    python -m tests.integration.chaos.member CONFIG.json

Prints the port on which the test asks it for things.  Every entry it applies is also written to `applied.trace`.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iceprod_p2p.base import logs
from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.ledger import invariants, keys, queries
from iceprod_p2p.ledger.codec import decode_command, encode_outcome
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.identity import Identity
from iceprod_p2p.raft.founding import found, owner_of, prepare_joiner
from iceprod_p2p.raft.machine import StateMachine, ledger_machine
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.raft.ports import KeyValue
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.raft.transport import PeerTransport
from iceprod_p2p.security.random import new_request_id
from iceprod_p2p.site.releases import announce_versions
from iceprod_p2p.site.timekeeper import Timekeeper
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.wire.channel import TlsMaterial, add_secure_port, new_server
from iceprod_p2p.wire.interceptors import ErrorInterceptor
from iceprod_p2p.wire.pb.peer_pb2_grpc import PeerServicer, add_PeerServicer_to_server
from tests.integration.chaos.speech import read_message, write_message

TRACE_HEAD = struct.Struct(">QQI")  # index, term, length of the entry
TICK_S = 0.2


class PeerService(PeerServicer):
    """Hands links to the transport."""

    def __init__(self, transport: PeerTransport) -> None:
        self._transport = transport

    async def Link(self, request_iterator: Any, context: Any) -> None:
        await self._transport.serve(request_iterator, context)


class ClusterTime:
    """What the timekeeper reads."""

    def __init__(self, raft: RaftNode) -> None:
        self._raft = raft

    def time_ms(self) -> int:
        with self._raft.view() as ledger:
            return queries.ledger_time_ms(ledger)

    def term(self) -> int:
        return self._raft.status().term

    def knows(self, node_id: str) -> bool:
        return True


def records_of(trace: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (index, term, entry) of every whole record; the last may be half of one, of whoever was killed then."""
    at = 0
    while at + TRACE_HEAD.size <= len(trace):
        index, term, size = TRACE_HEAD.unpack_from(trace, at)
        at += TRACE_HEAD.size
        if at + size > len(trace):
            return
        yield index, term, trace[at : at + size]
        at += size


def traced(machine: StateMachine, path: Path) -> StateMachine:
    """The same state machine, which also writes down what it applies."""
    trace = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    # Whoever was killed while it wrote down an entry has left half of it: what follows could not be read.
    whole_bytes = sum(TRACE_HEAD.size + len(entry) for _, _, entry in records_of(path.read_bytes()))
    os.ftruncate(trace, whole_bytes)

    def apply(ledger: KeyValue, index: int, term: int, entry: bytes) -> Sequence[Any]:
        os.write(trace, TRACE_HEAD.pack(index, term, len(entry)) + entry)
        return machine.apply(ledger, index, term, entry)

    return replace(machine, apply=apply)


TURN_BYTES = 60_000  # Far less than a real node's: a checkpoint every second or so.


class Member:
    """The process."""

    def __init__(self, config: dict[str, Any]) -> None:
        directory = Path(config["directory"])
        self.node_id: str = config["node_id"]
        self._tls = TlsMaterial(
            *((directory / name).read_bytes() for name in ("chain.pem", "node.key", "root.pem"))
        )
        self._listen = config["listen"]
        self._quiet = False
        self._transport = PeerTransport(
            self.node_id, config["cluster"], tls=lambda: self._tls, admit=self._admit
        )
        machine = traced(ledger_machine(), directory / "applied.trace")
        self._environment = Environment(
            directory / "raft", turn_bytes=TURN_BYTES, sync=config.get("sync", True)
        )
        if owner_of(self._environment) is None:
            genesis = bytes.fromhex(config["genesis"])
            if genesis:
                found(
                    self._environment,
                    self.node_id,
                    genesis,
                    apply=machine.apply,
                    incarnation=new_request_id(),
                )
            else:
                prepare_joiner(self._environment, self.node_id, incarnation=new_request_id())
        self.raft = RaftNode(
            self.node_id,
            environment=self._environment,
            links=self._transport,
            settings=RaftSettings(**config["settings"]),
            machine=machine,
        )

    @staticmethod
    def _admit(identity: Identity) -> None:
        """Every certified node may link."""

    async def serve(self) -> None:
        """Run until the process is ended."""
        server = new_server(interceptors=[ErrorInterceptor()])
        add_PeerServicer_to_server(PeerService(self._transport), server)  # type: ignore[no-untyped-call]
        add_secure_port(server, self._listen, self._tls, require_client_certificate=True)
        await self.raft.start()
        await server.start()
        asking = await asyncio.start_server(self._asked, "127.0.0.1", 0)
        print(asking.sockets[0].getsockname()[1], flush=True)
        keeper = Timekeeper(
            node_id=self.node_id, consensus=self.raft, cluster=ClusterTime(self.raft), clock=SystemClock()
        )
        while True:
            try:
                if not self._quiet:
                    await keeper.tick()
                    await self._announce()
            except IceProdError:
                pass  # Not the leader any more, or no quorum: the next one will tell the time.
            await asyncio.sleep(TICK_S)

    async def _announce(self) -> None:
        """Say which versions of the ledger this program reads, as a node does."""
        with self.raft.view() as ledger:
            record = Tables(ledger).nodes.get(keys.by_name(keys.NODE, self.node_id))
        if record is not None:
            await announce_versions(self.raft, record)

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                message = await read_message(reader)
                task = asyncio.create_task(self._answer(message, writer))
                running.add(task)
                task.add_done_callback(running.discard)
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()

    async def _answer(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        number, verb = message.pop("number"), message.pop("verb")
        try:
            answer = await getattr(self, f"do_{verb}")(**message)
        except IceProdError as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        write_message(writer, {"number": number, "answer": answer})

    async def do_propose(self, command: bytes, actor: str, request_id: bytes, timeout_s: float) -> Any:
        outcome = await self.raft.propose(
            decode_command(command), actor=actor, request_id=request_id, timeout_s=timeout_s
        )
        return {"outcome": encode_outcome(outcome)}

    async def do_barrier(self, timeout_s: float) -> Any:
        return {"index": await self.raft.barrier(timeout_s)}

    async def do_status(self) -> Any:
        status = self.raft.status()
        return {
            "role": status.role,
            "leader": status.leader_id,
            "term": status.term,
            "commit": status.commit,
            "first": status.first,
            "failed": status.failed,
            "members": [[m.node_id, m.role, m.match, m.state] for m in status.members],
        }

    async def do_state(self, check: bool) -> Any:
        """Applied index, digest of the state, and what contradicts itself in it."""
        with self.raft.view() as ledger:
            violations = invariants.check(ledger) if check else []
            return {
                "applied": queries.applied_index(ledger),
                "digest": queries.state_digest(ledger),
                "time_ms": queries.ledger_time_ms(ledger),
                "violations": violations,
            }

    async def do_clock(self) -> Any:
        """What this process believes the time is."""
        return {"wall_ms": SystemClock().wall_ms()}

    async def do_versions(self) -> Any:
        """The ledger's version, and what each node's program reads."""
        with self.raft.view() as ledger:
            nodes = queries.nodes(ledger)
            return {
                "version": queries.version(ledger),
                "nodes": {node.member.node_id: [node.version_least, node.version_most] for node in nodes},
            }

    async def do_quiet(self) -> Any:
        """Let time stand still, so that members can be compared."""
        self._quiet = True
        return {}

    async def do_transfer(self, to: str) -> Any:
        return {"leader": await self.raft.transfer_leader(to or None)}


async def main() -> None:
    """Run the member that the configuration describes."""
    logs.configure(style="json", level="info")
    member = Member(json.loads(Path(sys.argv[1]).read_text()))
    await member.serve()


if __name__ == "__main__":
    asyncio.run(main())
