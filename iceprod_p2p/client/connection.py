"""Calls to the control service from plain synchronous code, with fail-over between nodes.

One `Connection` serves one person's program on one thread.  It tries the nodes of the context in order, stays with
the one that answered, and goes to the next when that one is silent; the same call may be sent twice, so every
writing request carries a request id.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc

from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.base.errors import Unavailable, Unreachable
from iceprod_p2p.client.contexts import Context, NodeEntry, check_identity, save_nodes
from iceprod_p2p.security.random import new_request_id
from iceprod_p2p.wire.channel import CHUNK_BYTES, blocking_channel
from iceprod_p2p.wire.errors import rpc_errors
from iceprod_p2p.wire.pb import common_pb2, control_pb2_grpc
from iceprod_p2p.wire.pb.control_pb2 import ClusterStatusReply

CALL_TIMEOUT_S = 15.0
GIVE_UP_S = 30.0  # A new leader is elected in about a second; half a minute outlasts any sane fail-over.
PAUSE_S = 0.3
UPLOAD_BYTES_S_LEAST = 256 * 1024  # An upload slower than that is given up.

Reply = TypeVar("Reply")


class Connection:
    """A person's way into the cluster; close it, or use it as a context manager."""

    def __init__(self, context: Context, *, node: str = "", give_up_s: float = GIVE_UP_S) -> None:
        """`node` (id, site or address) chooses one node and no other."""
        chosen = [n for n in context.nodes if not node or node in (n.node_id, n.site, n.address)]
        if not chosen:
            known = ", ".join(f"{n.node_id} ({n.address})" for n in context.nodes)
            raise Unavailable(f"the context knows no node {node!r}", remedy=f"it knows {known}")
        self.context = context
        self._nodes = chosen
        self._pinned = bool(node)
        self._give_up_s = give_up_s
        self._channel: grpc.Channel | None = None
        self._stub: Any = None
        self._checked = False

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def node(self) -> NodeEntry:
        """The node that is asked first."""
        return self._nodes[0]

    def close(self) -> None:
        """Close the channel; the connection may be used again."""
        if self._channel is not None:
            self._channel.close()
        self._channel = self._stub = None

    def call(self, method: str, request: Any, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Call `method` of the control service and return its reply.

        Raises the server's error (`base.errors`), or Unavailable when no node answered within `give_up_s`.
        """
        return self._with_failover(lambda stub: getattr(stub, method)(request, timeout=timeout_s))

    def stream(self, method: str, request: Any, *, timeout_s: float = 3_600.0) -> Iterator[Any]:
        """Yield the replies of a streaming method; a break in the middle raises Unavailable."""
        replies = self._with_failover(lambda stub: getattr(stub, method)(request, timeout=timeout_s))
        with rpc_errors(self.node.node_id):
            yield from replies

    def put_blob(self, content: bytes, *, sha256: str) -> None:
        """Store `content` on the node that is asked; it checks the SHA-256 that is announced."""

        def parts() -> Iterator[common_pb2.PutBlobPart]:
            announced = common_pb2.BlobReply(sha256=sha256, size_bytes=len(content))
            yield common_pb2.PutBlobPart(announced=announced)
            for offset in range(0, len(content), CHUNK_BYTES):
                body = content[offset : offset + CHUNK_BYTES]
                yield common_pb2.PutBlobPart(chunk=common_pb2.Chunk(body=body, offset=offset))

        self._with_failover(lambda stub: stub.PutBlob(parts(), timeout=120.0))

    def put_file(self, path: Path, *, sha256: str, size_bytes: int) -> None:
        """Store a file on the node that is asked, piece by piece; a repeat after a break begins anew."""

        def parts() -> Iterator[common_pb2.PutBlobPart]:
            announced = common_pb2.BlobReply(sha256=sha256, size_bytes=size_bytes)
            yield common_pb2.PutBlobPart(announced=announced)
            offset = 0
            with path.open("rb") as file:
                while body := file.read(CHUNK_BYTES):
                    yield common_pb2.PutBlobPart(chunk=common_pb2.Chunk(body=body, offset=offset))
                    offset += len(body)

        timeout_s = 120.0 + size_bytes / UPLOAD_BYTES_S_LEAST
        self._with_failover(lambda stub: stub.PutBlob(parts(), timeout=timeout_s))

    def get_blob(self, sha256: str) -> Iterator[bytes]:
        """Yield the content with this SHA-256, in pieces; the caller compares the sum."""
        for chunk in self.stream("GetBlob", common_pb2.BlobRequest(sha256=sha256)):
            yield chunk.body

    def remember_nodes(self, status: ClusterStatusReply) -> None:
        """Note the cluster's present nodes in the context, so that it outlives the one it was made with."""
        if self._pinned or not os.access(self.context.directory, os.W_OK):
            return
        nodes = [
            NodeEntry(m.node_id, m.site, m.address, m.server_name, m.enrol_address)
            for m in status.members
            if m.server_name
        ]
        if nodes and set(nodes) != set(self.context.nodes):
            context = self.context
            with contextlib.suppress(
                OSError
            ):  # What was asked for has been answered; the next call notes it.
                save_nodes(context.directory, cluster=context.cluster, person=context.person, nodes=nodes)

    def _with_failover(self, attempt: Callable[[Any], Reply]) -> Reply:
        give_up_at = time.monotonic() + self._give_up_s
        while True:
            last: Unavailable | None = None
            for _ in range(len(self._nodes)):
                try:
                    with rpc_errors(f"{self.node.node_id} at {self.node.address}"):
                        return attempt(self._connected())
                except Unavailable as silent:
                    if last is None or not isinstance(silent, Unreachable):
                        last = silent  # A node that says why it cannot tells more than one that is dead.
                    self.close()
                    self._nodes = self._nodes[1:] + self._nodes[:1]
            assert last is not None
            if time.monotonic() >= give_up_at:
                raise last
            time.sleep(PAUSE_S)

    def _connected(self) -> Any:
        if self._stub is None:
            if not self._checked:
                check_identity(self.context, now_ms=SystemClock().wall_ms())
                self._checked = True
            node = self.node
            self._channel = blocking_channel(node.address, self.context.tls, server_name=node.server_name)
            self._stub = control_pb2_grpc.ControlStub(self._channel)
        return self._stub


def request_id() -> bytes:
    """Return the 16 bytes that make the repeat of one writing call harmless."""
    return new_request_id()
