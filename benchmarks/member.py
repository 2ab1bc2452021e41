"""One real node of the ledger as a process: LMDB with fsync, gRPC links under mutual TLS, the real rules.

What is left out is what serves pilots and people; callers are coroutines in here, as those services are.
Requests and answers are lines of JSON (`children`).
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.children import Answer, say, serve
from benchmarks.load import drive
from benchmarks.work import Recording, Running, Work
from iceprod_p2p.base import logs
from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import RecordBlob, SubmitDataset
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.raft.founding import found, owner_of
from iceprod_p2p.raft.machine import ledger_machine
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.raft.transport import PeerTransport
from iceprod_p2p.site.process import THREAD_SWITCH_S
from iceprod_p2p.site.timekeeper import Timekeeper
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.wire.channel import TlsMaterial, add_secure_port, new_server
from iceprod_p2p.wire.interceptors import ErrorInterceptor
from iceprod_p2p.wire.pb.peer_pb2_grpc import PeerServicer, add_PeerServicer_to_server

TICK_S = 1.0


class PeerService(PeerServicer):
    """Hands links to the transport, as the node's peer service does."""

    def __init__(self, transport: PeerTransport) -> None:
        self._transport = transport

    async def Link(self, request_iterator: Any, context: Any) -> None:
        await self._transport.serve(request_iterator, context)


class Member:
    """The node and its callers.  `config` is what `cluster.Cluster` wrote."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.name: str = config["name"]
        self.site: str = config["site"]
        directory = Path(config["directory"])
        self.tls = TlsMaterial(*(config[key].encode() for key in ("chain", "key", "root")))
        self.transport = PeerTransport(
            self.name, config["cluster"], tls=lambda: self.tls, admit=lambda identity: None
        )
        self.server = new_server(interceptors=[ErrorInterceptor()])
        add_PeerServicer_to_server(PeerService(self.transport), self.server)
        self.address = str(
            add_secure_port(self.server, config["address"], self.tls, require_client_certificate=True)
        )
        self.environment = Environment(directory)
        self.machine = ledger_machine()
        self.raft = RaftNode(self.name, environment=self.environment, links=self.transport)
        self.work: dict[str, Work] = {}

    async def listen(self) -> None:
        await self.server.start()

    async def start(self, genesis: bytes) -> None:
        if owner_of(self.environment) is None:
            found(self.environment, self.name, genesis, apply=self.machine.apply)
        await self.raft.start()
        self.work = {"light": Recording(self.raft), "transitions": Running(self.raft, self.site)}
        clock = SystemClock()
        self._timekeeper = Timekeeper(node_id=self.name, consensus=self.raft, cluster=self, clock=clock)
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await self._timekeeper.tick()
            await asyncio.sleep(TICK_S)

    # What the timekeeper reads.

    def time_ms(self) -> int:
        """Ledger time."""
        with self.raft.view() as ledger:
            return queries.ledger_time_ms(ledger)

    def term(self) -> int:
        """The present term."""
        return self.raft.status().term

    def knows(self, node_id: str) -> bool:
        """Whether the ledger lists a node."""
        return True

    # Requests of the parent.

    async def handle(self, request: Answer) -> Answer:
        """Carry out one request."""
        match request.pop("do"):
            case "start":
                await self.start(bytes.fromhex(request["genesis"]))
            case "submit":
                await self._submit(**request)
            case "prepare":
                await self.work[request["work"]].prepare()
            case "drive":
                return await self._drive(**request)
            case "until_acknowledged":
                await self._until_acknowledged()
            case "status":
                status = self.raft.status()
                anonymous = machine.anonymous_bytes()
                return {"leader": self.raft.is_leader, "applied": status.applied, "anonymous": anonymous}
        return {"ok": True}

    async def _submit(self, jobs: int) -> None:
        command = SubmitDataset("5" * 64, jobs, (TaskShape("simulate"),), 7, "bench")
        outcome = await self.raft.propose(command, actor=f"node:{self.name}")
        assert isinstance(outcome, Applied), outcome

    async def _drive(
        self, *, work: str, callers: int, batch: int, warm_s: float, seconds: float, profile: str = ""
    ) -> Answer:
        profiler = cProfile.Profile() if profile else None
        if profiler is not None:
            profiler.enable()
        done = await drive(self.work[work].call, callers=callers, batch=batch, warm_s=warm_s, seconds=seconds)
        if profiler is not None:
            profiler.disable()
            profiler.dump_stats(profile)
        return done

    async def _until_acknowledged(self) -> None:
        """Propose one small command and go on until it is acknowledged."""
        outcome = await self.raft.propose(
            RecordBlob("7" * 64, 1, ("node-a",)), actor=f"node:{self.name}", timeout_s=60
        )
        assert isinstance(outcome, Applied), outcome


async def main(path: Path) -> None:
    """Listen, say where, and serve the parent until it closes the pipe."""
    member = Member(json.loads(path.read_text(encoding="utf-8")))
    await member.listen()
    say(address=member.address)
    await serve(member.handle)


if __name__ == "__main__":
    logs.configure(style="text", level="warning")
    sys.setswitchinterval(THREAD_SWITCH_S)
    asyncio.run(main(Path(sys.argv[1])))
