"""A switch in user space between processes on loopback: delays, limits the rate, cuts in one direction or both.

Each member advertises a port of the switch and listens on another one.  Who dials is found out by the source
port, so every ordered pair of members is a wire of its own.  A wire that is cut holds what is on it, as packets
that are sent again do: nothing is reordered or forged, connections live on when it is mended, unless somebody
lost patience.  Buffers are small, so that a slow wire is felt by its sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

READ_BYTES: Final = 16 << 10
SOCKET_BYTES: Final = 32 << 10  # Asked of the system for each side of a connection.
WHO_TIMES: Final = 4  # So often is asked who dials: longer would hold up the next ones.
QUEUE_BYTES: Final = 64 << 10  # On a wire beside what its delay holds anyway.


@dataclass
class Wire:
    """One direction between two members."""

    delay_s: float = 0.0
    rate_bytes_s: float = 0.0  # 0: as fast as it goes
    cut: bool = False
    free_at_s: float = 0.0  # When the last byte handed to it will have left.
    mended: asyncio.Event = field(default_factory=asyncio.Event)
    carried_bytes: int = 0

    @property
    def room_bytes(self) -> int:
        return QUEUE_BYTES + int(self.rate_bytes_s * self.delay_s)


class Switch:
    """All wires between members, on a thread of its own; every method may be called from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="switch", daemon=True)
        self._thread.start()
        self._finders = ThreadPoolExecutor(16, "finder")
        self._wires: dict[tuple[str, str], Wire] = {}
        self._pids: dict[int, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.AbstractServer] = []
        self._writers: dict[tuple[str, str], set[asyncio.StreamWriter]] = {}

    def add(self, name: str, target_port: int) -> int:
        """Open a port that leads to the member `name`, which listens on `target_port`; return it."""

        async def listen() -> int:
            async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._connected(name, target_port, reader, writer)

            server = await asyncio.start_server(accepted, "127.0.0.1", 0, limit=READ_BYTES)
            self._servers.append(server)
            return int(server.sockets[0].getsockname()[1])

        return int(self._run(listen()))

    def runs(self, name: str, pid: int) -> None:
        """Say that the process `pid` is the member `name` from now on."""
        self._pids[pid] = name

    def ended(self, pid: int) -> None:
        """Say that a process is no more."""
        self._pids.pop(pid, None)

    def shape(self, source: str, target: str, *, delay_s: float = 0.0, rate_bytes_s: float = 0.0) -> None:
        """Give the wire from `source` to `target` a delay and a rate."""

        def change(wire: Wire) -> None:
            wire.delay_s, wire.rate_bytes_s = delay_s, rate_bytes_s

        self._change(source, target, change)

    def cut(self, source: str, target: str) -> None:
        """Let nothing through from `source` to `target`."""
        self._change(source, target, lambda wire: setattr(wire, "cut", True))

    def mend(self, source: str, target: str) -> None:
        """Let everything through again, what was held first."""

        def change(wire: Wire) -> None:
            wire.cut = False
            wire.mended.set()

        self._change(source, target, change)

    def reset(self, one: str, other: str) -> None:
        """Break every connection between two members."""

        async def close() -> None:
            for pair in ((one, other), (other, one)):
                for writer in self._writers.get(pair, set()).copy():
                    writer.transport.abort()

        self._run(close())

    def carried_bytes(self) -> int:
        """How many bytes all wires have carried."""
        return sum(wire.carried_bytes for wire in self._wires.values())

    def close(self) -> None:
        """Break everything and end the thread."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._finders.shutdown()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def _change(self, source: str, target: str, change: Callable[[Wire], None]) -> None:
        async def apply() -> None:
            change(self._wire(source, target))

        self._run(apply())

    def _wire(self, source: str, target: str) -> Wire:
        return self._wires.setdefault((source, target), Wire())

    def _who(self, port: int) -> str:
        """Return the member that dials from this port: whose socket it is, as the system says.

        The system's list may miss a line while others come and go, so it is asked a few times; "" when it
        knows nobody, who has then hung up or ended.
        """
        for _ in range(WHO_TIMES):
            links = {f"socket:[{inode}]" for inode in _inodes(port)}
            for pid, name in list(self._pids.items()) if links else ():
                with contextlib.suppress(OSError):
                    for entry in os.scandir(f"/proc/{pid}/fd"):
                        with contextlib.suppress(OSError):  # Closed meanwhile.
                            if os.readlink(entry.path) in links:
                                return name
            time.sleep(0.02)
        return ""

    async def _connected(
        self, target: str, target_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        port = writer.get_extra_info("peername")[1]
        source = await self._loop.run_in_executor(self._finders, self._who, port)
        if not source:  # On a wire without a name it could not be cut.
            writer.transport.abort()
            return
        _shrink(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", target_port, limit=READ_BYTES)
        except OSError:
            writer.transport.abort()
            return
        _shrink(back)
        writers = self._writers.setdefault((source, target), set())
        pumps = [
            asyncio.create_task(self._pump(reader, back, self._wire(source, target))),
            asyncio.create_task(self._pump(there, writer, self._wire(target, source))),
        ]
        writers |= {writer, back}
        self._tasks.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            writers -= {writer, back}
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._tasks.difference_update(pumps)
            for side in (writer, back):
                side.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> None:
        """Carry one direction of one connection to its end."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        waiting = 0
        taken = asyncio.Event()

        async def read() -> None:
            nonlocal waiting
            while True:
                while waiting >= wire.room_bytes:
                    taken.clear()
                    await taken.wait()
                data = await reader.read(READ_BYTES)
                now_s = self._loop.time()
                wire.free_at_s = max(now_s, wire.free_at_s)
                if wire.rate_bytes_s:
                    wire.free_at_s += len(data) / wire.rate_bytes_s
                waiting += len(data)
                queue.put_nowait((wire.free_at_s + wire.delay_s, data))
                if not data:
                    return

        reading = asyncio.create_task(read())
        try:
            while True:
                due_s, data = await queue.get()
                await asyncio.sleep(max(0.0, due_s - self._loop.time()))
                while wire.cut:
                    wire.mended.clear()
                    await wire.mended.wait()
                if not data:
                    with contextlib.suppress(OSError):  # The other end has gone already.
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
                wire.carried_bytes += len(data)
                waiting -= len(data)
                taken.set()
                if reading.done() and reading.exception() is not None and queue.empty():
                    raise ConnectionResetError
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def _inodes(port: int) -> set[str]:
    """Return the inodes of the sockets bound to a local port; those of IPv6 may speak IPv4 as well."""
    found = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as table:
            lines = [line.split() for line in table]
            found |= {words[9] for words in lines if words[1].endswith(f":{port:04X}")}
    return found - {"0"}


def _shrink(writer: asyncio.StreamWriter) -> None:
    handle: socket.socket = writer.get_extra_info("socket")
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    writer.transport.set_write_buffer_limits(high=READ_BYTES)
