"""Frames between nodes: one bidirectional gRPC stream for each pair, mutual TLS, the urgent before the bulky.

The node with the smaller id dials, the other one after a moment, so one open direction is enough.  Who
speaks is who the stream's certificate says, asked again for every message.  While a link is down, frames
for it are dropped: Raft sends again what matters.  Frames that wait are packed into one message,
heartbeats and votes first, so none of them queues behind entries or pages.

All methods run on the event loop, except `send` and `members_changed`, which the Raft thread calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import grpc
import msgspec

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.model.identity import Identity, IdentityKind, node_server_name
from iceprod_p2p.model.site import Member
from iceprod_p2p.raft.messages import UNREADABLE, urgency
from iceprod_p2p.security.identity import peer_identity
from iceprod_p2p.wire.channel import TlsMaterial, secure_channel
from iceprod_p2p.wire.pb.peer_pb2 import Frame
from iceprod_p2p.wire.pb.peer_pb2_grpc import PeerStub

log = get_logger("link")

PACK_BYTES: Final = (
    256 << 10
)  # One message on a link holds about so much: small beside a heartbeat's patience.
OUTBOX_BYTES_MAX: Final = 16 << 20  # Data waiting for one peer; beyond it entries and pages are dropped.
OUTBOX_URGENT_MAX: Final = 4_096
PING_S: Final = 1.0  # An idle link says so often that it lives.
SILENCE_S: Final = 6.0  # A link that said nothing for so long is closed and dialled again.
SECOND_DIAL_S: Final = 0.5  # How long the node with the larger id waits for the other one to dial.
DIAL_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
FRAMES_PER_MESSAGE_MAX: Final = 4_096

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode

Admit = Callable[[Identity], None]
"""Raises NotAllowed when this certified node may not (or no longer) speak to us."""


class ServicerContext(Protocol):
    """What the transport needs of a gRPC call it serves."""

    def auth_context(self) -> Any: ...

    async def write(self, message: Any) -> None: ...


class Outbox:
    """Frames for one peer, by urgency.  Filled by the Raft thread, emptied by the event loop."""

    def __init__(self) -> None:
        self._lanes: tuple[deque[bytes], ...] = (deque(), deque(), deque())
        self._data_bytes = 0
        self.dropped = 0

    def put(self, frame: bytes) -> None:
        """Add a frame, or drop it when too many wait."""
        lane = urgency(frame)
        full = self._data_bytes > OUTBOX_BYTES_MAX if lane else len(self._lanes[0]) > OUTBOX_URGENT_MAX
        if full:
            self.dropped += 1
            return
        self._lanes[lane].append(frame)
        if lane:
            self._data_bytes += len(frame)

    def take(self) -> list[bytes]:
        """Return what one message holds: everything urgent, and data up to `PACK_BYTES`."""
        frames: list[bytes] = []
        room = PACK_BYTES
        for number, lane in enumerate(self._lanes):
            while lane and len(frames) < FRAMES_PER_MESSAGE_MAX:
                if number and room < len(lane[0]) and frames:
                    return frames
                frame = lane.popleft()
                frames.append(frame)
                room -= len(frame)
                if number:
                    self._data_bytes -= len(frame)
        return frames

    def clear(self) -> None:
        """Drop everything that waits."""
        for lane in self._lanes:
            lane.clear()
        self._data_bytes = 0


class _Stream:
    """One open stream of a link."""

    def __init__(self, write: Callable[[Frame], Awaitable[None]], *, preferred: bool) -> None:
        self.write = write
        self.preferred = preferred
        self.wake = asyncio.Event()
        self.closed = asyncio.Event()
        self.heard_s = asyncio.get_running_loop().time()
        self.writing_s: float | None = None  # Since when one message has been on its way out.
        self.ping_due = False


class _Link:
    """What there is between this node and one peer: streams (usually one) and what waits to be sent."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.outbox = Outbox()
        self.streams: list[_Stream] = []
        self.active: _Stream | None = None
        self.changed = asyncio.Event()

    def choose(self) -> None:
        """Send on the stream that the smaller id dialled, or else on the newest."""
        best = max(self.streams, key=lambda stream: stream.preferred, default=None)
        if best is not self.active:
            self.active = best
            self.changed.set()
            if best is not None:
                best.wake.set()


class PeerTransport:
    """All links of one node.

    `tls` gives the present key material for dialling; `admit` is asked for every message that arrives.
    """

    def __init__(self, node_id: str, cluster: str, *, tls: Callable[[], TlsMaterial], admit: Admit) -> None:
        self.node_id = node_id
        self._cluster = cluster
        self._tls = tls
        self._admit = admit
        self._links: dict[str, _Link] = {}
        self._dialers: dict[str, tuple[Member, asyncio.Task[None]]] = {}
        self._wake_scheduled = False
        self._woken: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receive: Callable[[str, bytes], None] = lambda peer, frame: None
        self._link_changed: Callable[[str], None] = lambda peer: None
        self._after_batch: Callable[[], None] = lambda: None
        self._stopping = False

    def attach(
        self,
        *,
        receive: Callable[[str, bytes], None],
        after_batch: Callable[[], None],
        link_changed: Callable[[str], None],
    ) -> None:
        """Say where frames go: `receive(peer, frame)` for each, `after_batch()` when a message's last was given."""
        self._loop = asyncio.get_running_loop()
        self._receive, self._after_batch, self._link_changed = receive, after_batch, link_changed

    # Called by the Raft thread.

    def send(self, node_id: str, frame: bytes) -> None:
        """Take one frame for a peer; dropped while there is no link."""
        link = self._links.get(node_id)
        if link is None or link.active is None:
            return
        link.outbox.put(frame)
        self._woken.add(node_id)
        if not self._wake_scheduled and self._loop is not None:
            self._wake_scheduled = True
            self._call_soon(self._wake_writers)

    def members_changed(self, members: Sequence[Member]) -> None:
        """Dial the members that are new, and let go of those that left or moved."""
        self._call_soon(self._dial_members, tuple(members))

    def _call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop has been closed: the process is ending.
                self._loop.call_soon_threadsafe(callback, *arguments)

    # On the event loop.

    def connected(self) -> tuple[str, ...]:
        """Return the peers with an open stream."""
        return tuple(sorted(name for name, link in self._links.items() if link.active is not None))

    async def stop(self) -> None:
        """Close every stream and dial no more."""
        self._stopping = True
        tasks = [task for _, task in self._dialers.values()]
        self._dialers.clear()
        for link in self._links.values():
            for stream in link.streams:
                stream.closed.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def serve(self, requests: AsyncIterable[Frame], context: ServicerContext) -> None:
        """Serve `Peer.Link`: returns when the stream ends; NotAllowed when the caller is no node of ours."""
        identity = self._speaker(context)
        peer = identity.name
        if peer == self.node_id:
            raise NotAllowed("a node does not link to itself", remedy="two nodes may share one certificate")
        stream = _Stream(context.write, preferred=peer < self.node_id)
        # TLS 1.3 keeps one certificate for the life of a connection; whether it still counts may change.
        await self._run(peer, stream, requests, lambda: self._admit(identity))

    def _speaker(self, context: ServicerContext) -> Identity:
        identity = peer_identity(context)
        if identity.kind is not IdentityKind.NODE or identity.cluster != self._cluster:
            raise NotAllowed(f"{identity.actor} is no node of cluster {self._cluster}")
        self._admit(identity)
        return identity

    def _wake_writers(self) -> None:
        self._wake_scheduled = False
        while self._woken:
            link = self._links.get(self._woken.pop())
            if link is not None and link.active is not None:
                link.active.wake.set()

    def _dial_members(self, members: tuple[Member, ...]) -> None:
        if self._stopping:
            return
        wanted = {member.node_id: member for member in members if member.node_id != self.node_id}
        for name, (member, task) in list(self._dialers.items()):
            new = wanted.get(name)
            if new is None or new.address != member.address or new.site != member.site:
                task.cancel()
                del self._dialers[name]
        for name, member in wanted.items():
            if name not in self._dialers:
                self._dialers[name] = (member, asyncio.create_task(self._keep_linked(member)))

    def _link(self, peer: str) -> _Link:
        return self._links.setdefault(peer, _Link(peer))

    async def _keep_linked(self, member: Member) -> None:
        """Dial one member whenever there is no stream to it, with growing pauses."""
        link = self._link(member.node_id)
        first = self.node_id < member.node_id
        attempt = 0
        while not self._stopping:
            if not first and link.active is None:
                await asyncio.sleep(SECOND_DIAL_S)
            if link.active is not None:
                attempt = 0
                link.changed.clear()
                await link.changed.wait()
                continue
            if await self._dial(member):
                attempt = 0
            await asyncio.sleep(DIAL_PAUSES_S[min(attempt, len(DIAL_PAUSES_S) - 1)])
            attempt += 1

    async def _dial(self, member: Member) -> bool:
        """Open a stream and run it to its end; return whether it ever worked."""
        server_name = node_server_name(member.node_id, site=member.site, cluster=self._cluster)
        try:
            channel = secure_channel(member.address, self._tls(), server_name=server_name)
        except BadInput as fault:
            log.error("cannot dial", peer=member.node_id, address=member.address, fault=str(fault))
            return False
        stream: _Stream | None = None
        try:
            call = PeerStub(channel).Link()
            await call.write(Frame(body=_encode([])))
            messages = aiter(call)
            await asyncio.wait_for(
                anext(messages), SILENCE_S
            )  # The other side's first ping: it has let us in.
            stream = _Stream(call.write, preferred=self.node_id < member.node_id)
            # TLS has verified that the server bears this member's name.
            await self._run(member.node_id, stream, messages, lambda: None)
        except (
            TimeoutError,
            StopAsyncIteration,
            grpc.RpcError,
            asyncio.InvalidStateError,
            IceProdError,
        ) as cause:
            log.debug("link not made", peer=member.node_id, address=member.address, cause=str(cause))
        finally:
            await channel.close(None)
        return stream is not None

    async def _run(
        self, peer: str, stream: _Stream, frames: AsyncIterable[Frame], check: Callable[[], None]
    ) -> None:
        """Read and write one stream until either side ends it, or falls silent."""
        link = self._link(peer)
        link.streams.append(stream)
        link.choose()
        self._link_changed(peer)
        log.info("link up", node=self.node_id, peer=peer)
        tasks = [
            asyncio.create_task(self._read(link, stream, frames, check)),
            asyncio.create_task(self._write(link, stream)),
            asyncio.create_task(_watch(stream)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            link.streams.remove(stream)
            if link.active is stream:
                link.outbox.clear()
            link.choose()
            self._link_changed(peer)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            log.info("link down", node=self.node_id, peer=peer)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, TimeoutError):
                raise result

    async def _read(
        self, link: _Link, stream: _Stream, frames: AsyncIterable[Frame], check: Callable[[], None]
    ) -> None:
        loop, peer = asyncio.get_running_loop(), link.peer
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            async for message in frames:
                stream.heard_s = loop.time()
                check()
                receive = self._receive  # Not once for all: a link may be up before `attach`.
                for frame in _unpack(message):
                    receive(peer, frame)
                self._after_batch()

    async def _write(self, link: _Link, stream: _Stream) -> None:
        """Write what waits, one message after the other: while one is on its way, the next one fills."""
        loop = asyncio.get_running_loop()
        packed: list[bytes] = []  # The first ping lets the other side begin.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                stream.writing_s = loop.time()
                stream.ping_due = False
                await stream.write(Frame(body=_encode(packed)))
                stream.writing_s = None
                while not (packed := link.outbox.take() if link.active is stream else []):
                    if stream.ping_due:
                        break
                    await stream.wake.wait()
                    stream.wake.clear()


async def _watch(stream: _Stream) -> None:
    """Ask for pings; return once the stream is closed, silent, or takes no more."""
    loop = asyncio.get_running_loop()
    while not stream.closed.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stream.closed.wait(), PING_S)
        now_s = loop.time()
        if now_s - stream.heard_s >= SILENCE_S:
            return
        if stream.writing_s is None:
            stream.ping_due = True
            stream.wake.set()
        elif now_s - stream.writing_s >= SILENCE_S:
            return


def _unpack(message: Frame) -> list[bytes]:
    try:
        frames = _decode(message.body)
    except UNREADABLE as cause:
        raise BadInput(f"a message on a link holds no frames: {cause}") from cause
    if len(frames) > FRAMES_PER_MESSAGE_MAX:
        raise BadInput(
            f"a message on a link holds {len(frames)} frames; at most {FRAMES_PER_MESSAGE_MAX} are sent"
        )
    return frames
