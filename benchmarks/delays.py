"""Long wires: a process between nodes on loopback that hands everything on late, in both directions.

`python -m benchmarks.delays MS`; each request names a target address and is answered with the one to call instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Final

from benchmarks.children import Answer, serve

READ_BYTES: Final = 64 << 10
WAITING_MOST: Final = 1_024  # Pieces on one wire: beyond that its sender waits.

_Piece = tuple[float, bytes]


class Delays:
    """Every connection through it is `delay_s` away, one way."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._servers: list[asyncio.Server] = []

    async def handle(self, request: Answer) -> Answer:
        """Open a way to a target."""
        host, _, port = request["target"].rpartition(":")

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection(host, int(port))
                with contextlib.closing(back):
                    both = [self._carry(reader, back), self._carry(there, writer)]
                    done, left = await asyncio.wait(
                        [asyncio.create_task(one) for one in both], return_when=asyncio.FIRST_COMPLETED
                    )
                    for one in left:
                        one.cancel()
                    await asyncio.gather(*done, *left, return_exceptions=True)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self._servers.append(server)
        return {"address": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction to its end; what comes late goes late, but keeps its pace."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[_Piece] = asyncio.Queue(WAITING_MOST)

        async def read() -> None:
            data = b"-"
            while data:
                try:
                    data = await reader.read(READ_BYTES)
                except OSError:
                    data = b""
                await under_way.put((loop.time() + self._delay_s, data))

        reading = asyncio.create_task(read())
        try:
            while True:
                due_s, data = await under_way.get()
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                if not data:
                    return
                writer.write(data)
                await writer.drain()
        finally:
            reading.cancel()


if __name__ == "__main__":
    asyncio.run(serve(Delays(float(sys.argv[1]) / 1e3).handle))
