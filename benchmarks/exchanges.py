"""Callers from outside: a process of pilots that speak to one node's public service, each with its certificate.

They run nothing: what they were given is reported as finished at once, with statistics and resource use, and the
same call brings the next tasks.  Requests and answers of the parent are lines of JSON (`children`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from benchmarks.children import Answer, say, serve
from benchmarks.load import drive
from benchmarks.work import STATISTICS
from iceprod_p2p.wire.channel import TlsMaterial, secure_channel
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2, pilot_pb2_grpc

TIMEOUT_S: Final = 20.0
PAUSE_S: Final = 0.2
TASK_MIB: Final = 64
USAGE: Final = common_pb2.Usage(wall_ms=1_000, cpu_ms=900, memory_peak_mib=10, disk_peak_mib=10)


class Pilot:
    """One caller: its channel, and the tasks that it was given."""

    def __init__(self, name: str, config: dict[str, Any], chain: str, key: str) -> None:
        tls = TlsMaterial(chain.encode(), key.encode(), config["root"].encode())
        self._host = f"worker-{name}"
        channel = secure_channel(config["address"], tls, server_name=config["server_name"])
        self._stub = pilot_pb2_grpc.PilotsStub(channel)
        self._exchanges = 0
        self._reports = 0
        self._held: list[pilot_pb2.Order] = []

    async def call(self, batch: int) -> None:
        """Report `batch` tasks finished, and be given as many; AssertionError when a report was refused."""
        await self.fill(batch)
        reports = []
        for order in self._held:
            self._reports += 1
            done = pilot_pb2.Finished(statistics=STATISTICS, usage=USAGE)
            reports.append(
                pilot_pb2.Report(report_id=self._reports, ref=order.ref, passkey=order.passkey, finished=done)
            )
        reply = await self._exchange(free=batch, reports=reports)
        assert len(reply.acks) == batch and all(ack.accepted for ack in reply.acks), reply.acks[:1]
        self._held = list(reply.orders)

    async def fill(self, batch: int) -> None:
        """Ask until there are `batch` tasks, as at the beginning, or after the node had too few."""
        while len(self._held) < batch:
            running = [pilot_pb2.Running(ref=order.ref, passkey=order.passkey) for order in self._held]
            reply = await self._exchange(free=batch - len(self._held), running=running)
            self._held += reply.orders

    async def _exchange(self, *, free: int, **fields: Any) -> pilot_pb2.ExchangeReply:
        self._exchanges += 1
        room = pilot_pb2.Free(
            slots=free, cpus=free, memory_mib=TASK_MIB * free, disk_mib=TASK_MIB * free, walltime_s=86_400
        )
        request = pilot_pb2.ExchangeRequest(
            host=self._host, resource_class="cpu", free=room, exchange_id=self._exchanges, **fields
        )
        while True:  # As pilots do: the same exchange again, until it is answered.
            try:
                return await self._stub.Exchange(request, timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as failure:
                if failure.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(PAUSE_S)


class Pilots:
    """The callers of one node."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._all = [Pilot(name, config, *keys) for name, keys in config["pilots"].items()]

    async def handle(self, request: Answer) -> Answer:
        """Let every caller have its first tasks, or drive one round."""
        if request.pop("do") == "prepare":
            await asyncio.gather(*(pilot.fill(request["batch"]) for pilot in self._all))
            return {"ok": True}
        callers, request["callers"] = request["callers"], 1
        assert callers <= len(self._all), "as many callers as pilots"
        parts = await asyncio.gather(*(drive(pilot.call, **request) for pilot in self._all[:callers]))
        return {
            "commands": sum(part["commands"] for part in parts),
            "latencies_us": [latency for part in parts for latency in part["latencies_us"]],
        }


async def main(path: Path) -> None:
    """Serve the parent until it closes the pipe."""
    pilots = Pilots(json.loads(path.read_text(encoding="utf-8")))
    say(ready=True)
    await serve(pilots.handle)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
