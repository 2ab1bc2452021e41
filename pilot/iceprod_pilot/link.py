"""The pilot's one line to the cluster: every call to a node, over mutual TLS, with fail-over among the nodes.

Each method makes one attempt at the node whose turn it is and notes how it went; `patiently` repeats an attempt with
growing pauses, which walks over all nodes.  Thread-safe: the exchange loop and every running task share one link.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import IceProdError, IntegrityError, NotAllowed, NotFound, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.wire.channel import CHUNK_BYTES, blocking_channel
from iceprod_p2p.wire.errors import rpc_errors
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2, pilot_pb2_grpc
from iceprod_pilot.config import Node
from iceprod_pilot.enrolment import Credentials
from iceprod_pilot.nodes import NodeBook, Route

_LOG = get_logger("pilot.link")

EXCHANGE_TIMEOUT_S: Final = 8.0  # Longer than a change of leader takes.
RESOLVE_TIMEOUT_S: Final = 10.0
CALL_TIMEOUT_S: Final = 25.0  # A site's own methods may take a while.
PROBE_TIMEOUT_S: Final = 1.0
TRANSFER_STALL_S: Final = 30.0  # A transfer that moves nothing for so long is broken off and resumed.
TRANSFER_TIMEOUT_S: Final = 600.0  # One attempt; a longer one is resumed where it ended.
REFUSED_END_S: Final = 20.0  # A node that has just started may not know this pilot's issuer yet.
PAUSE_FIRST_S: Final = 0.2
PAUSE_MAX_S: Final = 5.0

T = TypeVar("T")


@dataclass(slots=True)
class _Line:
    node: Node
    generation: int
    channel: grpc.Channel
    stub: Any


class Link:
    """Calls to nodes.  `close` ends every call."""

    def __init__(
        self, book: NodeBook, route: Route, credentials: Credentials, clock: Clock, *, site: str
    ) -> None:
        self._site = site
        self.book = book
        self.route = route
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._retired: list[grpc.Channel] = []
        self._refused_by: dict[str, tuple[float, str]] = {}  # Since when, and why.
        self.partner: Node | None = None  # Whom the last exchange was sent to.

    def exchange(self, request: pilot_pb2.ExchangeRequest) -> pilot_pb2.ExchangeReply:
        """Send reports and get orders; learns the member list that comes with them."""
        self._look_home()
        self.partner = node = self.route.choose()
        with self._watched(node, decides=True) as stub, rpc_errors(f"node {node.node_id}"):
            reply: pilot_pb2.ExchangeReply = stub.Exchange(request, timeout=EXCHANGE_TIMEOUT_S)
        self.book.learn(node_of(address) for address in reply.nodes)
        return reply

    def resolve(self, request: pilot_pb2.ResolveRequest) -> pilot_pb2.ResolveReply:
        """Ask what was recorded of logical names."""
        reply: pilot_pb2.ResolveReply = self._attempt(
            lambda stub, _node: stub.Resolve(request, timeout=RESOLVE_TIMEOUT_S)
        )
        return reply

    def find_files(self, request: pilot_pb2.FindFilesRequest) -> pilot_pb2.FindFilesReply:
        """Ask for a page of files by a pattern of their names."""
        reply: pilot_pb2.FindFilesReply = self._attempt(
            lambda stub, _node: stub.FindFiles(request, timeout=RESOLVE_TIMEOUT_S)
        )
        return reply

    def software(self, request: pilot_pb2.SoftwareRequest) -> pilot_pb2.SoftwareReply:
        """Ask which builds of a version there are."""
        reply: pilot_pb2.SoftwareReply = self._attempt(
            lambda stub, _node: stub.GetSoftware(request, timeout=RESOLVE_TIMEOUT_S)
        )
        return reply

    def call_site(self, request: pilot_pb2.SiteCall) -> pilot_pb2.SiteAnswer:
        """Carry a module's call to the node whose turn it is."""
        reply: pilot_pb2.SiteAnswer = self._attempt(
            lambda stub, _node: stub.CallSite(request, timeout=CALL_TIMEOUT_S)
        )
        return reply

    def get_blob(self, sha256: str, *, offset: int) -> Iterator[bytes]:
        """Yield the bytes of a blob from `offset` on; leaving the generator ends the call.

        Raises as other calls do, at any point; IntegrityError when pieces do not follow each other.
        """
        node = self.route.choose()
        request = common_pb2.BlobRequest(sha256=sha256, offset=offset)
        with self._watched(node) as stub, rpc_errors(f"node {node.node_id}"):
            stream = stub.GetBlob(request, timeout=TRANSFER_TIMEOUT_S)
            try:
                for chunk in stream:
                    if chunk.offset != offset:
                        raise IntegrityError(f"a piece at {chunk.offset} came where {offset} was due")
                    offset += len(chunk.body)
                    yield chunk.body
            finally:
                stream.cancel()

    def put_blob(
        self,
        sha256: str,
        size_bytes: int,
        pieces: Iterable[bytes],
        *,
        node: Node | None = None,
        offset: int = 0,
    ) -> common_pb2.BlobReply:
        """Send a blob from `offset` on, to `node` where that matters; returns what the node says it has stored."""

        def send(stub: Any, _node: Node) -> common_pb2.BlobReply:
            reply: common_pb2.BlobReply = stub.PutBlob(
                _parts(sha256, size_bytes, pieces, offset), timeout=TRANSFER_TIMEOUT_S
            )
            return reply

        return self._attempt(send, node=node)

    def upload_state(self, sha256: str) -> common_pb2.UploadState:
        """Ask what the node whose turn it is has kept of an upload that was cut short."""
        request = common_pb2.BlobRequest(sha256=sha256)
        reply: common_pb2.UploadState = self._attempt(
            lambda stub, _node: stub.GetUpload(request, timeout=TRANSFER_STALL_S)
        )
        return reply

    def credentials(self) -> pilot_pb2.CredentialsReply:
        """Get what the site hands out for storages from a node of its own; no other is asked."""
        failure: IceProdError = Unavailable(f"no node of site {self._site} is known")
        for node in self.book.nodes:
            if node.site != self._site:
                continue
            try:
                reply: pilot_pb2.CredentialsReply = self._attempt(
                    lambda stub, _node: stub.GetCredentials(
                        pilot_pb2.CredentialsRequest(), timeout=CALL_TIMEOUT_S
                    ),
                    node=node,
                )
                return reply
            except Unavailable as away:
                failure = away
        raise failure

    def renew(self) -> None:
        """Get a new certificate for the same key from the node whose turn it is, and use it from now on."""

        def ask(stub: Any, node: Node) -> pilot_pb2.RenewReply:
            request = pilot_pb2.RenewRequest(csr_pem=self._credentials.request_pem(node.site))
            reply: pilot_pb2.RenewReply = stub.Renew(request, timeout=EXCHANGE_TIMEOUT_S)
            return reply

        reply = self._attempt(ask)
        self._credentials.adopt(reply.chain_pem, float(reply.lifetime_s), reply.root_pem)
        _LOG.info("certificate renewed", lifetime_s=reply.lifetime_s)

    def refused_everywhere(self) -> str:
        """Return why, when every known node has refused this pilot's identity for a while; else empty."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            refusals = [self._refused_by.get(node.node_id) for node in self.book.nodes]
        said = [refusal for refusal in refusals if refusal is not None]
        if (
            not said
            or len(said) < len(refusals)
            or max(since_s for since_s, _ in said) > now_s - REFUSED_END_S
        ):
            return ""
        return said[0][1]

    def close(self) -> None:
        """Close every channel; calls under way fail."""
        with self._lock:
            channels = [*(line.channel for line in self._lines.values()), *self._retired]
            self._lines.clear()
            self._retired.clear()
        for channel in channels:
            channel.close()

    def _attempt(self, do: Callable[[Any, Node], T], *, node: Node | None = None) -> T:
        node = node or self.route.choose()
        with self._watched(node) as stub, rpc_errors(f"node {node.node_id}"):
            return do(stub, node)

    def _watched(self, node: Node, *, decides: bool = False) -> _Watch:
        return _Watch(self, node, decides=decides)

    def _line(self, node: Node) -> _Line:
        material, generation = self._credentials.material()
        with self._lock:
            line = self._lines.get(node.node_id)
            if line is not None and line.generation == generation and line.node == node:
                return line
            if line is not None:
                self._retire(line.channel)
            channel = blocking_channel(node.address, material, server_name=node.server_name)
            line = _Line(node, generation, channel, pilot_pb2_grpc.PilotsStub(channel))
            self._lines[node.node_id] = line
            return line

    def _retire(self, channel: grpc.Channel) -> None:
        """Let calls on the old channel end: it is closed when two newer ones have been retired after it."""
        self._retired.append(channel)
        while len(self._retired) > 2:
            self._retired.pop(0).close()

    def _look_home(self) -> None:
        """See whether a home node that was given up is back.  A handshake alone, so nothing can get lost there."""
        node = self.route.home_to_probe()
        if node is None:
            return
        try:
            grpc.channel_ready_future(self._line(node).channel).result(timeout=PROBE_TIMEOUT_S)
        except grpc.FutureTimeoutError:
            self.route.probed(node, ready=False)
        else:
            self.route.probed(node, ready=True)

    def note(self, node: Node, failure: BaseException | None, *, decides: bool) -> None:
        """Take note of how a call to `node` went.

        Any failure counts against a node, but only an exchange `decides` that it is well: one that serves files and
        can take no reports would otherwise keep its place for ever.
        """
        with self._lock:
            if isinstance(failure, NotAllowed) and decides:
                since_s, _ = self._refused_by.get(node.node_id, (self._clock.monotonic_s(), ""))
                self._refused_by[node.node_id] = (since_s, failure.message)
            elif decides and not isinstance(failure, Unavailable):
                self._refused_by.pop(node.node_id, None)
        if isinstance(failure, Unavailable | NotAllowed):
            _LOG.info("call failed", node=node.node_id, why=failure.message)
            self.route.failed(node)
        elif decides and (failure is None or isinstance(failure, IceProdError)):
            self.route.answered(node)  # A refusal of one request is an answer.


class _Watch:
    """The context of one call: gives the stub, notes the outcome."""

    def __init__(self, link: Link, node: Node, *, decides: bool) -> None:
        self._link = link
        self._node = node
        self._decides = decides

    def __enter__(self) -> Any:
        return self._link._line(self._node).stub

    def __exit__(self, _kind: object, failure: BaseException | None, _trace: object) -> None:
        self._link.note(self._node, failure, decides=self._decides)


def patiently(do: Callable[[], T], *, stop: Callable[[float], bool], what: str) -> T:
    """Repeat `do` while it raises Unavailable, with pauses from 0.2 s to 5 s.

    `stop(seconds)` waits so long and returns whether to give up: then the last Unavailable is raised.  NotAllowed and
    NotFound are repeated a few times, for a node that lags may know better soon; every other error is raised at once.
    """
    pause_s, refusals = PAUSE_FIRST_S, 0
    while True:
        try:
            return do()
        except (NotAllowed, NotFound):
            refusals += 1
            if refusals > 3 or stop(pause_s):
                raise
        except Unavailable as silent:
            _LOG.info("trying again", what=what, why=silent.message, pause_s=pause_s)
            if stop(max(pause_s, min(silent.retry_after_s, PAUSE_MAX_S))):
                raise
        pause_s = min(PAUSE_MAX_S, pause_s * 2)


def node_of(address: common_pb2.NodeAddress) -> Node:
    """Return a node as a message tells it."""
    return Node(
        address.node_id,
        address.site,
        address.address,
        address.server_name,
        address.enrol_address,
        address.role,
    )


def _parts(
    sha256: str, size_bytes: int, pieces: Iterable[bytes], offset: int
) -> Iterator[common_pb2.PutBlobPart]:
    yield common_pb2.PutBlobPart(announced=common_pb2.BlobReply(sha256=sha256, size_bytes=size_bytes))
    for piece in pieces:
        for start in range(0, len(piece), CHUNK_BYTES):
            body = piece[start : start + CHUNK_BYTES]
            yield common_pb2.PutBlobPart(chunk=common_pb2.Chunk(body=body, offset=offset))
            offset += len(body)
