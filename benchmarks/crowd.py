"""Many pilots in one process, at one node: what a pilot says, without what it runs.

Each has its own key, certificate and connection under mutual TLS.  It calls when it was told to, takes as many tasks
as it has slots, and reports their ends with its next call.  Certificates come from the site's authority, without
enrolment.
Requests and answers are lines of JSON (`children`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc.aio
from iceprod_pilot.exchange import RETRY_FIRST_S, RETRY_MAX_S, RETRY_SHARE

from benchmarks.children import Answer, serve
from benchmarks.numbers import thinned
from iceprod_p2p.model.identity import IdentityKind, identity_uri, node_server_name
from iceprod_p2p.security.certificates import key_to_pem, make_request, new_key
from iceprod_p2p.site.node_keys import KEYS, load_authority
from iceprod_p2p.wire.channel import TlsMaterial, secure_channel
from iceprod_p2p.wire.pb import pilot_pb2, pilot_pb2_grpc

SLOTS: Final = 16
CONNECTING: Final = 32  # At a time: a node lets handshakes of ten seconds go.
TRIES: Final = 5
CALL_S: Final = 60.0
FAILURES_SAID: Final = 20  # In its log.
LATENCIES_MOST: Final = 5_000  # Sent to the parent.


@dataclass(slots=True)
class Pilot:
    """One pilot; `reports` are the ends that it has not told."""

    stub: Any
    channel: grpc.aio.Channel
    name: str
    exchanges: int = 0
    reports: list[pilot_pb2.Report] = field(default_factory=list)


class Crowd:
    """The pilots of this process.  `config` is what `pilots.measure` wrote."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        site, data = str(config["site"]), Path(config["data"])
        self._site, self._cluster = site, str(config["cluster"])
        self._authority = load_authority(data / KEYS / "authority", self._cluster, site)
        self._root_pem = (data / KEYS / "root.pem").read_bytes()
        self._server = node_server_name(config["node"], site=site, cluster=self._cluster)
        self._pilots: list[Pilot] = []
        self._loops: list[asyncio.Task[None]] = []
        self._gate = asyncio.Semaphore(CONNECTING)
        self._taken = self._with_tasks = self._calls = self._turned_away = 0
        self._latencies_us: list[int] = []

    async def handle(self, request: Answer) -> Answer:
        """Carry out one request of the parent."""
        match request["do"]:
            case "connect":
                began_s = time.perf_counter()
                await asyncio.gather(*(self._connect(number) for number in range(request["count"])))
                return {"pilots": len(self._pilots), "seconds": time.perf_counter() - began_s}
            case "start":
                self._loops = [asyncio.create_task(self._live(pilot)) for pilot in self._pilots]
            case "counts":
                for loop in self._loops:
                    if loop.done():
                        loop.result()
                return {
                    "calls": self._calls,
                    "with_tasks": self._with_tasks,
                    "taken": self._taken,
                    "turned_away": self._turned_away,
                    "latencies_us": thinned(self._latencies_us, LATENCIES_MOST),
                }
        return {"ok": True}

    async def _connect(self, number: int) -> None:
        """Connect one pilot: its first call, which asks for nothing."""
        name = f"p-{self._config['name']}{number}"
        key, now_ms = new_key(), time.time_ns() // 1_000_000
        claim = identity_uri(IdentityKind.PILOT, name, site=self._site, cluster=self._cluster)
        async with self._gate:
            certificate = self._authority.issue(
                make_request(key, claim), kind=IdentityKind.PILOT, name=name, now_ms=now_ms
            )
            tls = TlsMaterial(self._authority.chain(certificate), key_to_pem(key), self._root_pem)
            channel = secure_channel(self._config["address"], tls, server_name=self._server)
            pilot = Pilot(pilot_pb2_grpc.PilotsStub(channel), channel, name)
            for attempt in range(TRIES):
                try:
                    await self._exchange(pilot, slots=0)
                    break
                except grpc.aio.AioRpcError:
                    if attempt == TRIES - 1:
                        raise
                    await asyncio.sleep(1.0)
        self._pilots.append(pilot)

    async def _live(self, pilot: Pilot) -> None:
        """Call as a pilot does, for ever; one whose call failed repeats it, after pauses as long as a pilot's."""
        pause_s, poll_s = RETRY_FIRST_S, 0.0
        while True:
            try:
                reply = await self._exchange(pilot, slots=SLOTS)
            except grpc.aio.AioRpcError as failure:
                self._turned_away += 1
                if self._turned_away <= FAILURES_SAID:
                    print(pilot.name, failure.code(), failure.details(), file=sys.stderr)
                await asyncio.sleep(pause_s)
                pause_s = min(max(RETRY_MAX_S, RETRY_SHARE * poll_s), 2 * pause_s)
                continue
            pause_s, poll_s = RETRY_FIRST_S, reply.poll_ms / 1_000
            if not reply.orders:
                await asyncio.sleep(poll_s)

    async def _exchange(self, pilot: Pilot, *, slots: int) -> pilot_pb2.ExchangeReply:
        free = pilot_pb2.Free(slots=slots, cpus=slots, memory_mib=65_536, disk_mib=65_536, walltime_s=86_400)
        request = pilot_pb2.ExchangeRequest(
            host="bench",
            free=free,
            reports=pilot.reports,
            resource_class="cpu",
            exchange_id=pilot.exchanges + 1,
        )
        began_s = time.perf_counter()
        reply: pilot_pb2.ExchangeReply = await pilot.stub.Exchange(request, timeout=CALL_S)
        pilot.exchanges += 1
        self._calls += 1
        if pilot.reports:  # Others may have waited for work.
            self._with_tasks += 1
            self._latencies_us.append(int(1e6 * (time.perf_counter() - began_s)))
        told = {ack.report_id for ack in reply.acks}
        pilot.reports = [report for report in pilot.reports if report.report_id not in told]
        self._taken += len(reply.orders)
        pilot.reports += [
            pilot_pb2.Report(
                report_id=order.ref.job + 1,
                ref=order.ref,
                passkey=order.passkey,
                finished=pilot_pb2.Finished(),
            )
            for order in reply.orders
        ]
        return reply


async def main(path: Path) -> None:
    """Serve the parent until it closes the pipe."""
    await serve(Crowd(json.loads(path.read_text(encoding="utf-8"))).handle)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
