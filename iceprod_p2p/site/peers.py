"""Channels to the other nodes: one per node, opened when first needed, reopened when its address changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc.aio

from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.wire.channel import TlsMaterial, TlsSource, secure_channel
from iceprod_p2p.wire.pb import common_pb2, peer_pb2_grpc

CLOSE_S: Final = 600.0  # A large file may take so long; nothing new begins on an old channel.
log = get_logger("peers")


class Peers:
    """The other nodes as this node can call them; used on the event loop only.

    `known` gives all nodes of the cluster from the ledger.  Raft has channels of its own, so that a large
    file never stands in the way of a heartbeat.
    """

    def __init__(
        self, *, node_id: str, tls: TlsSource, known: Callable[[], tuple[common_pb2.NodeAddress, ...]]
    ) -> None:
        self._node_id = node_id
        self._tls = tls
        self._known = known
        self._channels: dict[str, tuple[tuple[str, str, TlsMaterial], grpc.aio.Channel]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def others(self) -> list[common_pb2.NodeAddress]:
        """Return every other node, in the ledger's order."""
        return [node for node in self._known() if node.node_id != self._node_id]

    def of_sites(self, sites: tuple[str, ...]) -> list[common_pb2.NodeAddress]:
        """Return the other nodes of these sites, in the order of the sites."""
        others = self.others()
        return [node for site in sites for node in others if node.site == site]

    def peer(self, node: common_pb2.NodeAddress) -> Any:
        """Return the stub of a node's peer service."""
        return peer_pb2_grpc.PeerStub(self._channel(node))

    async def close(self) -> None:
        """Close every channel."""
        for _, channel in self._channels.values():
            await channel.close(None)
        self._channels.clear()
        for closing in self._closing:
            closing.cancel()

    def _channel(self, node: common_pb2.NodeAddress) -> grpc.aio.Channel:
        where = (node.address, node.server_name, self._tls())
        present = self._channels.get(node.node_id)
        if present is not None and present[0] == where:
            return present[1]
        if present is not None:  # Moved, or our certificates changed: calls under way end first.
            closing = asyncio.create_task(present[1].close(CLOSE_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        channel = secure_channel(node.address, where[2], server_name=node.server_name)
        self._channels[node.node_id] = (where, channel)
        return channel
