"""One real cluster of three voters for every hostile caller of this directory."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from iceprod_p2p.client.contexts import Context, NodeEntry
from iceprod_p2p.wire.addresses import parse_address
from iceprod_p2p.wire.channel import blocking_channel
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.production import Production

ANSWER_S_MAX = 10.0  # Of an innocent caller meanwhile, on a machine that floods itself.


@dataclass
class Scene:
    """Three voters, and the first administrator's context at the leader."""

    cluster: Production
    context: Context
    node: NodeEntry

    def status(self) -> Any:
        """What the cluster says of itself."""
        return self.cluster.session.connection.call("ClusterStatus", control_pb2.ClusterStatusRequest())

    def channel(self, **options: int) -> grpc.Channel:
        """A connection of its own to the leader."""
        named = {f"grpc.{name}": value for name, value in options.items()}
        return blocking_channel(
            self.node.address, self.context.tls, server_name=self.node.server_name, options=named
        )

    def tls(self) -> ssl.SSLSocket:
        """A bare HTTP/2 connection with the administrator's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.context.tls.root_pem.decode())
        directory = self.context.directory
        chain, key = directory / "flood-chain.pem", directory / "flood-key.pem"
        chain.write_bytes(self.context.tls.certificate_chain_pem)
        key.touch(mode=0o600)
        key.write_bytes(self.context.tls.private_key_pem)
        context.load_cert_chain(chain, key)
        context.set_alpn_protocols(["h2"])
        return context.wrap_socket(self.tcp(), server_hostname=self.node.server_name)

    def tcp(self) -> socket.socket:
        """A bare connection."""
        address = parse_address(self.node.address)
        return socket.create_connection((address.host, address.port), timeout=20)


@contextmanager
def unmoved(scene: Scene) -> Iterator[Callable[[], None]]:
    """The leader and its term are the same afterwards; the block may ask whether others are served."""
    before = scene.status()

    def others_are_served() -> None:
        began = time.monotonic()
        scene.cluster.session.connection.call("ListDatasets", control_pb2.ListDatasetsRequest())
        assert time.monotonic() - began < ANSWER_S_MAX

    yield others_are_served
    for site in scene.cluster.cluster.sites:
        assert site.process is not None
        log = (site.directory / "node.log").read_text(errors="replace")
        assert site.process.poll() is None, f"the node of {site.name} ended: {log[-3_000:]}"
    others_are_served()
    after = scene.status()
    assert (after.leader, after.term) == (before.leader, before.term), "the flood cost the leader"
