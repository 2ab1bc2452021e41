"""The peer: three members of etcd on loopback with mutual TLS and fsync, as Debian packages them.

Its callers are coroutines in three processes, each with one channel to one member: what a node of ours would
be if it kept its ledger in etcd.  They are as cheap as Python allows: grpc.aio calls whose requests are
encoded by hand below and whose answers are not decoded.  `etcdctl check perf`, etcd's own load in Go, is run
beside them, to show what the client costs.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from iceprod_cli.free_ports import free_ports

from benchmarks import keys
from benchmarks.children import Answer, Child, say, serve
from benchmarks.load import drive

VALUE_BYTES: Final = 200
TRANSACTION_MAX: Final = 512  # Operations that the members accept in one transaction.
READY_S: Final = 30.0
CHECK_S: Final = 120.0
NO_LOCAL_PROXY: Final = (("grpc.enable_http_proxy", 0),)


class Etcd:
    """Three members and three processes of callers; `clients` serve the requests of `load`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clients: list[Child] = []
        self._members: list[subprocess.Popen[bytes]] = []
        keys.write_loopback_keys(directory)
        ports = free_ports(6)
        peers = [f"https://127.0.0.1:{port}" for port in ports[:3]]
        self.endpoints = [f"127.0.0.1:{port}" for port in ports[3:]]
        try:
            for number in range(3):
                self._members.append(self._member(number, peers))
            for endpoint in self.endpoints:
                log = directory / "client.log"
                client = Child("benchmarks.etcd", endpoint, str(directory), log=log)
                client.answer()
                self.clients.append(client)
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process."""
        for client in self.clients:
            client.stop()
        for member in self._members:
            member.terminate()
        for member in self._members:
            try:
                member.wait(10)
            except subprocess.TimeoutExpired:
                member.kill()
                member.wait()

    def own_load(self) -> float:
        """Return the puts a second of etcd's own load tool (1,000 clients in Go, values of 1 KiB), NaN if it fails."""
        done = subprocess.run(
            [
                "etcdctl",
                "--endpoints=" + ",".join(f"https://{endpoint}" for endpoint in self.endpoints),
                *(f"--{kind}={self.directory / name}.pem" for kind, name in _KEY_FILES),
                "check",
                "perf",
                "--load=xl",
            ],
            capture_output=True,
            text=True,
            timeout=CHECK_S,
            env={**os.environ, "ETCDCTL_API": "3"},
            check=False,
        )
        found = re.search(r"[Tt]hroughput[^0-9]*([0-9.]+) writes/s", done.stdout)
        return float(found.group(1)) if found else float("nan")

    def _member(self, number: int, peers: list[str]) -> subprocess.Popen[bytes]:
        path = self.directory
        client = f"https://{self.endpoints[number]}"
        files = [("cert-file", "cert"), ("key-file", "key"), ("trusted-ca-file", "ca")]
        command = [
            "etcd",
            f"--name=m{number}",
            f"--data-dir={path / f'm{number}'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peers[number]}",
            f"--initial-advertise-peer-urls={peers[number]}",
            "--initial-cluster=" + ",".join(f"m{n}={url}" for n, url in enumerate(peers)),
            "--initial-cluster-state=new",
            "--client-cert-auth",
            "--peer-client-cert-auth",
            *(f"--{prefix}{kind}={path / name}.pem" for prefix in ("", "peer-") for kind, name in files),
            f"--max-txn-ops={TRANSACTION_MAX}",
            "--quota-backend-bytes=8589934592",
            "--logger=zap",
            "--log-level=error",
        ]
        with (path / f"m{number}.log").open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _wait(self) -> None:
        end_s = time.monotonic() + READY_S
        while True:
            answers = [client.ask(do="put") for client in self.clients]
            if all(answer["ok"] for answer in answers):
                return
            if time.monotonic() > end_s:
                raise RuntimeError(f"etcd does not answer within {READY_S:.0f} s; see {self.directory}")
            time.sleep(0.2)


_KEY_FILES: Final = (("cert", "cert"), ("key", "key"), ("cacert", "ca"))


def version() -> str | None:
    """Return the version of the etcd that is installed; None when it, or etcdctl, is not."""
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        return None
    said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=False).stdout
    return said.split("\n")[0].rpartition(" ")[2]


def put_request(key: bytes, value: bytes) -> bytes:
    """Encode etcdserverpb.PutRequest: key = 1, value = 2."""
    return _field(1, key) + _field(2, value)


def transaction_request(puts: list[bytes]) -> bytes:
    """Encode etcdserverpb.TxnRequest: success = 2, of RequestOp with request_put = 2; no conditions."""
    return b"".join(_field(2, _field(2, put)) for put in puts)


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Client:
    """Callers of one member, in a process of their own."""

    def __init__(self, endpoint: str, directory: Path) -> None:
        names = ("ca.pem", "key.pem", "cert.pem")
        credentials = grpc.ssl_channel_credentials(*((directory / name).read_bytes() for name in names))
        self._channel = grpc.aio.secure_channel(endpoint, credentials, options=NO_LOCAL_PROXY)
        self._put = self._channel.unary_unary("/etcdserverpb.KV/Put", None, None)
        self._transact = self._channel.unary_unary("/etcdserverpb.KV/Txn", None, None)

    async def put(self, batch: int) -> None:
        """Put one value, or `batch` values in one transaction; keys at random, as callers of one store have."""
        if batch == 1:
            await self._put(put_request(os.urandom(16), bytes(VALUE_BYTES)))
            return
        puts = [put_request(os.urandom(16), bytes(VALUE_BYTES)) for _ in range(batch)]
        await self._transact(transaction_request(puts))

    async def handle(self, request: Answer) -> Answer:
        """Carry out one request of the parent."""
        if request.pop("do") == "put":
            try:
                await self._put(put_request(b"ready", b""), timeout=2)
            except grpc.RpcError:
                return {"ok": False}
            return {"ok": True}
        return await drive(self.put, **request)


async def main(endpoint: str, directory: Path) -> None:
    """Serve the parent until it closes the pipe."""
    client = Client(endpoint, directory)
    say(ready=True)
    await serve(client.handle)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
