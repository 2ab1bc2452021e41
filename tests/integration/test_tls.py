"""Real servers with mutual TLS on loopback: who belongs gets in, each other caller gets one clear error."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from iceprod_p2p.base.errors import (
    BadInput,
    ConfigError,
    IceProdError,
    NotAllowed,
    NotFound,
    Refused,
    Unavailable,
)
from iceprod_p2p.model.identity import IdentityKind, node_server_name
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import chain_from_pem, fingerprint
from iceprod_p2p.security.identity import peer_identity, require_tls13
from iceprod_p2p.security.policy import require
from iceprod_p2p.security.trust import Trust
from iceprod_p2p.wire.calls import call, call_blocking
from iceprod_p2p.wire.channel import (
    MESSAGE_BYTES_MAX,
    TlsMaterial,
    add_secure_port,
    blocking_channel,
    new_server,
    secure_channel,
)
from iceprod_p2p.wire.errors import rpc_errors
from iceprod_p2p.wire.interceptors import ErrorInterceptor
from iceprod_p2p.wire.pinned import fetch_root
from tests.unit.security.rings import HOUR_MS, Ring, issued, make_ring

SERVER_NAME = node_server_name("madison-1", site="madison", cluster="icecube")


def now_ms() -> int:
    """The time, in whole seconds, as certificates have it; not that at which this file was read."""
    return int(time.time()) * 1_000


@dataclass(frozen=True)
class Node:
    """A node with its site's authority and its own credentials."""

    ring: Ring
    authority: Authority
    tls: TlsMaterial

    @property
    def fingerprint(self) -> str:
        return fingerprint(chain_from_pem(self.tls.certificate_chain_pem)[0])

    @property
    def root_fingerprint(self) -> str:
        return fingerprint(self.ring.root.certificate)


def node_of(ring: Ring, site: Authority) -> Node:
    chain, key = issued(site, IdentityKind.NODE, f"{site.scope}-1", now_ms=now_ms())
    return Node(ring, site, TlsMaterial(chain, key, ring.root_pem))


@pytest.fixture(scope="module")
def madison() -> Node:
    ring = make_ring(now_ms=now_ms())
    return node_of(ring, ring.madison)


@pytest.fixture(scope="module")
def zeuthen(madison: Node) -> Node:
    return node_of(madison.ring, madison.ring.zeuthen)


@pytest.fixture(scope="module")
def impostor() -> Node:
    """The same names under another root."""
    ring = make_ring(now_ms=now_ms())
    return node_of(ring, ring.madison)


def material(node: Node) -> TlsMaterial:
    return node.tls


def pilot(node: Node, *, later_ms: int = 0) -> TlsMaterial:
    begins_ms = now_ms() + later_ms
    chain, key = issued(node.authority, IdentityKind.PILOT, "p-1", now_ms=begins_ms, lifetime_ms=HOUR_MS)
    return TlsMaterial(chain, key, node.ring.root_pem)


def person(node: Node) -> TlsMaterial:
    chain, key = issued(node.ring.people, IdentityKind.PERSON, "ada", now_ms=now_ms())
    return TlsMaterial(chain, key, node.ring.root_pem)


@dataclass
class Service:
    """Two methods and a stream that ask who calls before they answer."""

    trust: Trust
    method_asked: str = "/iceprod.v1.Peer/Link"
    revoked: set[str] = field(default_factory=set)

    def identify(self, context: Any) -> str:
        identity = peer_identity(context)
        if identity.fingerprint in self.revoked:
            raise NotAllowed("revoked")
        self.trust.admit(identity, now_ms=now_ms())
        require(self.method_asked, identity)
        return identity.actor

    async def who(self, request: bytes, context: Any) -> bytes:
        return self.identify(context).encode()

    async def fail(self, request: bytes, context: Any) -> bytes:
        errors: dict[bytes, Exception] = {
            b"bad": BadInput("the number ² is odd", remedy="use an even one: ½ is none"),
            b"config": ConfigError("the file is wrong", faults=("line 3: x",)),
            b"refused": Refused("stale_attempt", "0 is not 1", remedy="stop"),
            b"missing": NotFound("no dataset 7"),
            b"busy": Unavailable("no leader yet", remedy="wait", retry_after_s=3.5),
            b"bug": ZeroDivisionError("secret internals"),
            b"escape": BadInput("clear\x1b[2Jscreen"),
        }
        raise errors[request]

    async def slow(self, request: bytes, context: Any) -> bytes:
        await asyncio.sleep(30)
        return b""

    async def echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request + b" from " + self.identify(context).encode()

    def handler(self) -> grpc.GenericRpcHandler:
        methods = {
            "Who": grpc.unary_unary_rpc_method_handler(self.who),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Slow": grpc.unary_unary_rpc_method_handler(self.slow),
            "Echo": grpc.stream_stream_rpc_method_handler(self.echo),
        }
        return grpc.method_handlers_generic_handler("test.Test", methods)


@contextlib.asynccontextmanager
async def serving(
    service: Service, tls: Any, *, require_client_certificate: bool = True
) -> AsyncIterator[str]:
    server = new_server(interceptors=[ErrorInterceptor()])
    server.add_generic_rpc_handlers((service.handler(),))
    address = add_secure_port(
        server, "127.0.0.1:0", tls, require_client_certificate=require_client_certificate
    )
    await server.start()
    try:
        yield str(address)
    finally:
        await server.stop(0)


@pytest.fixture
def service(madison: Node, zeuthen: Node) -> Service:
    return Service(madison.ring.trust())


async def ask(
    address: str,
    tls: TlsMaterial,
    *,
    method: str = "Who",
    request: bytes = b"",
    server_name: str = SERVER_NAME,
) -> bytes:
    async with secure_channel(address, tls, server_name=server_name) as channel:
        answer = await call(channel.unary_unary(f"/test.Test/{method}"), request, timeout_s=60)
        assert isinstance(answer, bytes)
        return answer


async def test_a_node_of_another_site_is_let_in(madison: Node, zeuthen: Node, service: Service) -> None:
    async with serving(service, material(madison)) as address:
        assert await ask(address, material(zeuthen)) == b"node:zeuthen-1"


async def test_the_blocking_channel_says_the_same(madison: Node, zeuthen: Node, service: Service) -> None:
    def ask_blocking(address: str) -> bytes:
        with blocking_channel(address, material(zeuthen), server_name=SERVER_NAME) as channel:
            with pytest.raises(Refused, match="0 is not 1"):
                call_blocking(channel.unary_unary("/test.Test/Fail"), b"refused")
            answer: bytes = call_blocking(channel.unary_unary("/test.Test/Who"), b"")
            return answer

    async with serving(service, material(madison)) as address:
        assert await asyncio.to_thread(ask_blocking, address) == b"node:zeuthen-1"


async def test_a_pilot_is_let_in_where_pilots_may_call(
    madison: Node, zeuthen: Node, service: Service
) -> None:
    service.method_asked = "/iceprod.v1.Pilots/Exchange"
    async with serving(service, material(madison)) as address:
        assert await ask(address, pilot(zeuthen)) == b"pilot:zeuthen/p-1"


async def test_a_person_is_refused_where_a_node_is_needed(madison: Node, service: Service) -> None:
    async with serving(service, material(madison)) as address:
        with pytest.raises(NotAllowed, match="people may not call Link"):
            await ask(address, person(madison))


async def test_a_certificate_of_another_cluster_is_refused(
    madison: Node, impostor: Node, service: Service
) -> None:
    forged = material(impostor)
    knows_the_root = TlsMaterial(forged.certificate_chain_pem, forged.private_key_pem, madison.ring.root_pem)
    async with serving(service, material(madison)) as address:
        with pytest.raises(Unavailable, match="does not accept this certificate"):
            await ask(address, knows_the_root)


async def test_a_server_of_another_cluster_is_refused(
    madison: Node, impostor: Node, service: Service
) -> None:
    async with serving(service, material(impostor)) as address:
        with pytest.raises(NotAllowed, match="its certificate is not of this cluster"):
            await ask(address, material(madison))


async def test_a_server_under_another_name_is_refused(madison: Node, zeuthen: Node, service: Service) -> None:
    async with serving(service, material(zeuthen)) as address:
        with pytest.raises(NotAllowed, match="another node than the one expected"):
            await ask(address, material(madison))


async def test_a_caller_without_a_certificate_is_refused(madison: Node, service: Service) -> None:
    async with serving(service, material(madison)) as address:
        with pytest.raises(Unavailable, match="does not accept this certificate"):
            await ask(address, TlsMaterial.anonymous(madison.ring.root_pem))


async def test_an_expired_certificate_is_refused(madison: Node, service: Service) -> None:
    async with serving(service, material(madison)) as address:
        with pytest.raises(Unavailable, match="does not accept this certificate"):
            await ask(address, pilot(madison, later_ms=-2 * HOUR_MS))


async def test_a_certificate_that_is_not_valid_yet_is_refused(madison: Node, service: Service) -> None:
    async with serving(service, material(madison)) as address:
        with pytest.raises(Unavailable, match="does not accept this certificate"):
            await ask(address, pilot(madison, later_ms=2 * HOUR_MS))
        assert await ask(address, material(madison)) == b"node:madison-1"


async def test_a_pilot_may_not_serve(madison: Node, service: Service) -> None:
    async with serving(service, pilot(madison)) as address:
        with pytest.raises(NotAllowed, match="its certificate is not of this cluster"):
            await ask(address, material(madison))


async def test_a_site_that_speaks_for_another_is_refused_by_the_handshake(
    madison: Node, zeuthen: Node, service: Service
) -> None:
    """Zeuthen's authority, driven by a thief, signs a pilot of Madison."""
    thief = replace(zeuthen.authority, scope="madison")  # The key is Zeuthen's, and so is the certificate.
    chain, key = issued(thief, IdentityKind.PILOT, "p-1", now_ms=now_ms())
    forged = TlsMaterial(chain, key, madison.ring.root_pem)
    service.method_asked = "/iceprod.v1.Pilots/Exchange"
    async with serving(service, material(madison)) as address:
        with pytest.raises(Unavailable, match="does not accept this certificate"):
            await ask(address, forged)


async def test_a_member_that_was_removed_is_refused_with_its_pilots(
    madison: Node, zeuthen: Node, service: Service
) -> None:
    service.trust = madison.ring.trust(madison.authority)
    service.method_asked = "/iceprod.v1.Pilots/Exchange"
    async with serving(service, material(madison)) as address:
        with pytest.raises(NotAllowed, match="not, or no longer, one of the cluster"):
            await ask(address, pilot(zeuthen))


async def test_tls_1_2_is_refused_at_the_call(
    madison: Node, zeuthen: Node, service: Service, tmp_path: Path
) -> None:
    """A hand-made HTTP/2 client over TLS 1.2, because gRPC's own always offers 1.3."""
    tls = material(zeuthen)
    (tmp_path / "chain.pem").write_bytes(tls.certificate_chain_pem)
    (tmp_path / "key.pem").write_bytes(tls.private_key_pem)
    (tmp_path / "root.pem").write_bytes(tls.root_pem)

    def old_client(address: str) -> bytes:
        context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
        context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=SERVER_NAME) as connection,
        ):
            assert connection.version() == "TLSv1.2"
            return _http2_call(connection, "/test.Test/Who")

    async with serving(service, material(madison)) as address:
        answer = await asyncio.to_thread(old_client, address)
        assert b"only TLS 1.3 is accepted" in answer
        assert b"node:zeuthen-1" not in answer


def _http2_call(connection: ssl.SSLSocket, path: str) -> bytes:
    """One unary call with an empty message; returns all bytes answered (header literals are readable in them)."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    def literal(name: str, value: str) -> bytes:
        return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    headers = b"".join(
        literal(name, value)
        for name, value in [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", path),
            (":authority", SERVER_NAME),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
    )
    connection.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")
        + frame(1, 4, 1, headers)
        + frame(0, 1, 1, b"\x00\x00\x00\x00\x00")
    )
    connection.settimeout(20)
    answer = b""
    while b"TLS 1.3" not in answer and b"node:" not in answer and (part := connection.recv(4096)):
        answer += part
    return answer


async def test_revocation_reaches_an_open_stream(madison: Node, zeuthen: Node, service: Service) -> None:
    async with (
        serving(service, material(madison)) as address,
        secure_channel(address, material(zeuthen), server_name=SERVER_NAME) as channel,
    ):
        stream = channel.stream_stream("/test.Test/Echo")()
        with pytest.raises(NotAllowed, match="revoked"), rpc_errors():
            await stream.write(b"one")
            assert await stream.read() == b"one from node:zeuthen-1"
            service.revoked.add(zeuthen.fingerprint)
            await stream.write(b"two")
            await stream.read()


async def test_the_end_of_its_own_site_reaches_a_pilot_that_another_site_renewed_in_mid_stream(
    madison: Node, zeuthen: Node, service: Service
) -> None:
    chain, key = issued(madison.authority, IdentityKind.PILOT, "p-1", now_ms=now_ms(), home="zeuthen")
    renewed = TlsMaterial(chain, key, madison.ring.root_pem)
    service.method_asked = "/iceprod.v1.Pilots/Exchange"
    async with (
        serving(service, material(madison)) as address,
        secure_channel(address, renewed, server_name=SERVER_NAME) as channel,
    ):
        stream = channel.stream_stream("/test.Test/Echo")()
        with (
            pytest.raises(NotAllowed, match="site zeuthen, to which pilot:madison/p-1 belongs"),
            rpc_errors(),
        ):
            await stream.write(b"one")
            assert await stream.read() == b"one from pilot:madison/p-1"
            service.trust = madison.ring.trust(madison.authority)
            await stream.write(b"two")
            await stream.read()


@pytest.mark.parametrize(
    ("request_", "kind", "text"),
    [
        (b"bad", BadInput, "the number ² is odd (use an even one: ½ is none)"),
        (b"config", ConfigError, "the file is wrong\nline 3: x"),
        (b"refused", Refused, "0 is not 1 (stop)"),
        (b"missing", NotFound, "no dataset 7"),
        (b"busy", Unavailable, "no leader yet (wait)"),
        (b"bug", IceProdError, "the node failed on this call; its log says why"),
        (b"escape", BadInput, "clear\\x1b[2Jscreen"),
    ],
)
async def test_errors_arrive_with_class_sentence_and_remedy(
    madison: Node, service: Service, request_: bytes, kind: type[IceProdError], text: str
) -> None:
    async with serving(service, material(madison)) as address:
        with pytest.raises(IceProdError) as caught:
            await ask(address, material(madison), method="Fail", request=request_)
    assert type(caught.value) is kind
    assert str(caught.value) == text
    if isinstance(caught.value, Refused):
        assert caught.value.code == "stale_attempt"
    if isinstance(caught.value, Unavailable):
        assert caught.value.retry_after_s == 3.5


async def test_calls_that_cannot_be_answered_say_why(madison: Node, service: Service) -> None:
    async with serving(service, material(madison)) as address:
        channel = secure_channel(address, material(madison), server_name=SERVER_NAME)
        async with channel:
            with pytest.raises(Unavailable, match="madison-1 gave no answer in time"):
                await call(channel.unary_unary("/test.Test/Slow"), b"", timeout_s=0.2, peer="madison-1")
            with pytest.raises(IceProdError, match="does not know this call"):
                await call(channel.unary_unary("/test.Test/Nothing"), b"")
            with pytest.raises(BadInput, match="too large"):
                await call(channel.unary_unary("/test.Test/Who"), bytes(MESSAGE_BYTES_MAX + 1))
    with pytest.raises(Unavailable, match="cannot reach"):
        await ask(address, material(madison))


async def test_a_port_in_use_is_one_clear_error(madison: Node, service: Service) -> None:
    async with serving(service, material(madison)) as address:
        with pytest.raises(ConfigError, match=f"cannot listen on {address}: the port is in use"):
            add_secure_port(new_server(), address, material(madison), require_client_certificate=True)


async def test_a_server_shows_its_renewed_certificate_to_the_next_caller(
    madison: Node, impostor: Node, service: Service
) -> None:
    present = [material(impostor)]
    async with serving(service, lambda: present[0]) as address:
        with pytest.raises(NotAllowed):
            await ask(address, material(madison))
        present[0] = material(madison)
        assert await ask(address, material(madison)) == b"node:madison-1"


async def test_a_newcomer_finds_the_root_by_its_fingerprint(
    madison: Node, impostor: Node, service: Service
) -> None:
    class Enrol(Service):
        async def who(self, request: bytes, context: Any) -> bytes:
            require_tls13(context)
            with pytest.raises(NotAllowed, match="showed no certificate"):
                peer_identity(context)
            return b"welcome"

    enrol = Enrol(service.trust)
    async with serving(enrol, material(madison), require_client_certificate=False) as address:
        pinned = await asyncio.to_thread(fetch_root, address, root_fingerprint=madison.root_fingerprint)
        assert pinned.server_name == SERVER_NAME
        assert pinned.root_pem == madison.ring.root_pem
        anonymous = TlsMaterial.anonymous(pinned.root_pem)
        assert await ask(address, anonymous, server_name=pinned.server_name) == b"welcome"
        with pytest.raises(NotAllowed, match="does not belong to the cluster"):
            await asyncio.to_thread(fetch_root, address, root_fingerprint=impostor.root_fingerprint)
    with pytest.raises(Unavailable, match="cannot reach"):
        await asyncio.to_thread(fetch_root, address, root_fingerprint=madison.root_fingerprint)


async def test_a_silent_connection_is_let_go_and_harms_nobody(madison: Node, service: Service) -> None:
    async with serving(service, material(madison)) as address:
        host, _, port = address.rpartition(":")
        silent = [socket.create_connection((host, int(port)), timeout=30) for _ in range(50)]
        try:
            assert await ask(address, material(madison)) == b"node:madison-1"
            silent[0].sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert await ask(address, material(madison)) == b"node:madison-1"
        finally:
            for connection in silent:
                connection.close()
