"""The limit: what replication to two others and one durable LMDB transaction cost with nothing around them.

A leader sends a batch of 200-byte values to two followers over plain sockets; all three write it with one
transaction and its fsync; when both have answered, the next batch goes.  No terms, no log, no rules, no TLS.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from struct import Struct
from typing import Final

import lmdb

from benchmarks.children import Child, say

VALUE_BYTES: Final = 200
KEY: Final = Struct(">Q")
HEAD: Final = Struct(">QI")
STORE_BYTES: Final = 4 << 30


def measure(directory: Path, *, batch: int, warm_s: float, seconds: float) -> float:
    """Return how many values a second are replicated and durable on three processes."""
    followers: list[Child] = []
    links: list[socket.socket] = []
    try:
        for number in range(2):
            follower = Child("benchmarks.bare", str(directory / f"f{number}"), log=directory / "bare.log")
            followers.append(follower)
            link = socket.create_connection(("127.0.0.1", follower.answer()["port"]))
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            links.append(link)
        return _lead(_Store(directory / "leader"), links, batch, warm_s, seconds)
    finally:
        for link in links:
            link.close()
        for follower in followers:
            follower.stop()


def _lead(store: _Store, links: list[socket.socket], batch: int, warm_s: float, seconds: float) -> float:
    values = bytes(VALUE_BYTES) * batch
    begin_s = time.perf_counter() + warm_s
    first, done = 1, 0
    while (now_s := time.perf_counter()) < begin_s + seconds:
        message = HEAD.pack(first, len(values)) + values
        for link in links:
            link.sendall(message)
        store.put(first, values)
        for link in links:
            if not link.recv(1):
                raise RuntimeError("a follower of the bare loop has ended")
        first += batch
        if now_s >= begin_s:
            done += batch
    return done / (time.perf_counter() - begin_s)


class _Store:
    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._environment = lmdb.open(str(path), map_size=STORE_BYTES)

    def put(self, first: int, values: bytes) -> None:
        with self._environment.begin(write=True) as transaction:
            for offset in range(0, len(values), VALUE_BYTES):
                key = KEY.pack(first + offset // VALUE_BYTES)
                transaction.put(key, values[offset : offset + VALUE_BYTES], append=True)


def follow(path: Path) -> None:
    """Write what the leader sends, and answer each batch with one byte."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        say(port=listening.getsockname()[1])
        link, _ = listening.accept()
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    store = _Store(path)
    with link, link.makefile("rb") as arriving:
        while len(head := arriving.read(HEAD.size)) == HEAD.size:
            first, size = HEAD.unpack(head)
            store.put(first, arriving.read(size))
            link.sendall(b"\0")


if __name__ == "__main__":
    follow(Path(sys.argv[1]))
