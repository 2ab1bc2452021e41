"""A node's door to the replicated ledger: propose, view, barrier.  Everybody else uses only this.

One thread, started here, drives the engine and is the only writer of the store.  Everything
asyncio-facing runs on the loop that called `start`; `view` and `status` may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.base.errors import IceProdError, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import Command
from iceprod_p2p.ledger.outcome import Outcome
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.raft.callers import Callers, settle
from iceprod_p2p.raft.engine import Engine
from iceprod_p2p.raft.journal import read_state
from iceprod_p2p.raft.machine import (
    StateMachine,
    changes_members,
    encode_proposal,
    entry_changes_members,
    ledger_machine,
)
from iceprod_p2p.raft.ports import FrameSender, KeyValue, Random
from iceprod_p2p.raft.settings import RaftSettings
from iceprod_p2p.raft.status import MemberStatus, RaftStatus
from iceprod_p2p.security.random import Jitter, new_ordered_request_id
from iceprod_p2p.store.environment import Environment

log = get_logger("raft")

GRACE_S: Final = 1.0  # How much longer than the engine a caller waits, should a disk hang inside a commit.
TIME_KEPT_S: Final = 0.05  # The ledger time put into proposals may be so old.
IDLE_S: Final = 1.0  # The thread looks around at least so often.


class Links(FrameSender, Protocol):
    """The links to other nodes (`transport.PeerTransport`)."""

    def attach(
        self,
        *,
        receive: Callable[[str, bytes], None],
        after_batch: Callable[[], None],
        link_changed: Callable[[str], None],
    ) -> None: ...

    async def stop(self) -> None: ...


class RaftNode:
    """One member of the cluster.  `failed` says, by name, why its Raft part has ended (None: it has not)."""

    def __init__(
        self,
        node_id: str,
        *,
        environment: Environment,
        links: Links,
        settings: RaftSettings | None = None,
        machine: StateMachine | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        on_failed: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.node_id = node_id
        self._environment = environment
        self._links = links
        self._settings = settings or RaftSettings()
        self._machine = machine or ledger_machine()
        self._clock = clock or SystemClock()
        self._random = random or Jitter()
        self._on_failed = on_failed
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        # A lock used as a binary semaphore: the cheapest way to wake a thread in CPython.
        self._bell = threading.Lock()
        self._ringing = False
        self._callers = Callers()
        self._watch: asyncio.TimerHandle | None = None
        self._reads: dict[int, asyncio.Future[int]] = {}
        self._read_token = 0
        self._time_ms = (0, -1e9)

    # Life.

    async def start(self) -> None:
        """Read and check the state on disk, then take part.

        IntegrityError names damage (the node must join again under a new id); StoreError a fault of the disk;
        ProgramTooOld a cluster that has gone on to a version which this program cannot read.
        """
        self._loop = asyncio.get_running_loop()
        self._links.attach(receive=self._receive, after_batch=self._ring, link_changed=self._link_changed)
        self._engine = await asyncio.to_thread(self._make_engine)
        self._thread = threading.Thread(target=self._run, name=f"raft-{self.node_id}", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Hand leadership over if there is somebody to take it, then end the thread and the links."""
        if self.is_leader and self._has_successor():
            with contextlib.suppress(Unavailable):
                await self.transfer_leader(None, timeout_s=self._settings.election_max_s)
        self._stopping = True
        self._ring()
        thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)
            self._thread = None
        self._fail_callers("this node is stopping")
        if self._watch is not None:
            self._watch.cancel()
        await self._links.stop()
        if self._engine is not None:
            self._engine.close()

    # What everybody uses.

    @property
    def failed(self) -> str | None:
        """Why the Raft part ended, by name, or None."""
        return None if self._engine is None else self._engine.failed

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self._engine is not None and self._engine.is_leader

    async def propose(
        self, command: Command, *, actor: str, request_id: bytes | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        """Replicate one command and return its outcome once it is applied on this node.

        Lost messages, a changed leader and full queues are retried inside, with the same request id, so the
        command is applied at most once.  Unavailable: no result in time, and it may still be applied;
        repeat it with the same `request_id` to learn the first outcome.  Refused at once: some members could
        not read the command.
        """
        ids = None if request_id is None else (request_id,)
        (outcome,) = await self.propose_all((command,), actor=actor, request_ids=ids, timeout_s=timeout_s)
        return outcome

    async def propose_all(
        self,
        commands: Sequence[Command],
        *,
        actor: str,
        request_ids: Sequence[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> list[Outcome]:
        """Replicate commands side by side and return their outcomes, in order: as many calls of `propose`, for less.

        Each is a request of its own, applied or refused by itself; they may share entries and need not stand in
        this order.  Unavailable when the result of any is not known in time.
        """
        engine, loop = self._running()
        refused = [self._machine.too_new(command, self.view) for command in commands]
        if request_ids is None:
            wall_ms = self._clock.wall_ms()
            request_ids = [new_ordered_request_id(wall_ms) for _ in commands]
        now_ms = self._ledger_time_ms()
        proposed = [
            (request_id, encode_proposal(request_id, now_ms, actor, command))
            for request_id, command, refusal in zip(request_ids, commands, refused, strict=True)
            if refusal is None
        ]
        if not proposed:
            return [refusal for refusal in refused if refusal is not None]
        future = self._callers.wait([one for one, _ in proposed], loop.time() + timeout_s + GRACE_S)
        engine.propose_all(proposed, self._clock.monotonic_s() + timeout_s)
        if not self._ringing:  # Callers that run in the same turn of the loop wake the Raft thread once.
            self._ringing = True
            loop.call_soon(self._ring_for_all)
        if self._watch is None:
            self._watch = loop.call_later(GRACE_S, self._give_up_late)
        outcomes = iter(await future)
        return [next(outcomes) if refusal is None else refusal for refusal in refused]

    @contextlib.contextmanager
    def view(self) -> Iterator[KeyValue]:
        """Give one short read snapshot of the ledger, on any thread.  Never hold it across an `await`."""
        with self._environment.read() as snapshot:
            yield snapshot.ledger

    async def barrier(self, timeout_s: float = 5.0) -> int:
        """Return an index up to which this node has applied everything acknowledged before the call.

        A `view` taken afterwards is linearizable.  Unavailable when no leader with a quorum confirms it
        in time.
        """
        engine, loop = self._running()
        self._read_token += 1
        token = self._read_token
        future: asyncio.Future[int] = loop.create_future()
        self._reads[token] = future
        engine.read(token, self._clock.monotonic_s() + timeout_s)
        self._ring()
        try:
            return await asyncio.wait_for(future, timeout_s + GRACE_S)
        except TimeoutError as cause:
            raise Unavailable("this node's Raft thread does not answer", remedy="ask another node") from cause
        finally:
            self._reads.pop(token, None)

    async def transfer_leader(self, to: str | None, *, timeout_s: float = 5.0) -> str:
        """Hand leadership to `to` (None: the most complete voter), whoever leads now; return the new leader's id.

        Unavailable when no leader is known here, or nobody took over in time: the old one then leads on.
        """
        engine, loop = self._running()
        before, end_s = engine.core.leader, loop.time() + timeout_s
        if before is None:
            raise Unavailable("no leader is known here", remedy="ask again, or ask another node")
        if to != before:
            engine.transfer(to)
            self._ring()
        while loop.time() < end_s:
            leader = engine.core.leader
            if leader is not None and (leader == to or (leader != before and to is None)):
                return leader
            await asyncio.sleep(0.02)
        raise Unavailable(
            f"leadership was not handed to {to or 'anybody'} in {timeout_s:g} s: {engine.core.leader or 'nobody'} leads"
        )

    def end(self, cause: IceProdError) -> None:
        """End the Raft part by name, from any thread: damage of its store was found elsewhere."""
        if self._engine is not None:
            self._engine.end(cause)
            self._ring()

    def status(self) -> RaftStatus:
        """Return what this node knows now; cheap, from any thread."""
        engine, _ = self._running()
        core, journal = engine.core, engine.journal
        with self._environment.read() as snapshot:  # One point: what is applied, and its digest.
            applied = read_state(snapshot.meta).applied
            digest = bytes(self._machine.digest(snapshot.ledger)).hex()
        role = "failed" if engine.failed else core.role.name.lower()
        if role == "follower" and self.node_id not in engine.context.voters:
            role = MemberRole.OBSERVER
        commit = core.commit
        return RaftStatus(
            node_id=self.node_id,
            role=role,
            leader_id=core.leader,
            term=core.term,
            commit=commit,
            applied=applied,
            last=journal.last_index,
            first=journal.base.index + 1,
            digest=digest,
            log_digest=(journal.digest_at(commit) or b"").hex(),
            members=self._member_statuses(engine),
            proposals_waiting=len(self._callers),
            log_bytes=journal.kept_bytes,
            frames_dropped=engine.frames_dropped,
            failed=engine.failed,
        )

    def _member_statuses(self, engine: Engine) -> tuple[MemberStatus, ...]:
        last, now_s = engine.journal.last_index, self._clock.monotonic_s()
        followers = dict(engine.leading.followers) if engine.is_leader else {}
        found = []
        for name, member in sorted(dict(engine.context.members).items()):
            common = (name, member.site, member.address, str(member.role))
            progress = followers.get(name)
            if progress is not None:
                heard_ms = (now_s - progress.heard_s) * 1e3
                lag, rtt_ms = max(0, last - progress.match), progress.rtt_s * 1e3
                state = progress.state.value
                found.append(MemberStatus(*common, progress.match, lag, rtt_ms, state, heard_ms))
            elif name == self.node_id:
                found.append(MemberStatus(*common, engine.context.durable_index, 0, 0.0, "", 0.0))
            else:
                found.append(MemberStatus(*common))
        return tuple(found)

    # On the event loop.

    def _running(self) -> tuple[Engine, asyncio.AbstractEventLoop]:
        if self._engine is None or self._loop is None or self._stopping:
            raise Unavailable("this node's Raft part is not running", remedy="ask another node")
        if self._engine.failed is not None and threading.current_thread() is not self._thread:
            self._fail_callers(self._engine.failed)
        return self._engine, self._loop

    def _has_successor(self) -> bool:
        """Return whether another voter that could lead was heard just now."""
        silence_ms = self._settings.quorum_silence_s * 1e3
        return any(
            member.role == MemberRole.VOTER and 0 <= member.heard_ms_ago < silence_ms
            for member in self.status().members
            if member.node_id != self.node_id
        )

    def _ledger_time_ms(self) -> int:
        now_s = self._clock.monotonic_s()
        if now_s - self._time_ms[1] > TIME_KEPT_S:
            with self.view() as ledger:
                self._time_ms = (self._machine.time_ms(ledger), now_s)
        return self._time_ms[0]

    def _resolve_reads(self, done: list[tuple[int, Any]]) -> None:
        for token, result in done:
            future = self._reads.pop(token, None)
            if future is not None:
                settle(future, result)

    def _give_up_late(self) -> None:
        """Answer those whom the engine should have answered long ago; one timer for all, while anyone waits."""
        assert self._loop is not None
        self._callers.give_up(self._loop.time())
        self._watch = self._loop.call_later(GRACE_S, self._give_up_late) if len(self._callers) else None

    def _fail_callers(self, reason: str) -> None:
        error = Unavailable(f"this node's Raft part has ended: {reason}", remedy="ask another node")
        self._callers.fail(error)
        for future in self._reads.values():
            settle(future, error)
        self._reads.clear()

    def _receive(self, peer: str, frame: bytes) -> None:
        if self._engine is not None:
            self._engine.receive(peer, frame)

    def _link_changed(self, peer: str) -> None:
        if self._engine is not None:
            self._engine.link_changed(peer)
            self._ring()

    # On the Raft thread.

    def _make_engine(self) -> Engine:
        with self._environment.read() as snapshot:
            self._machine.check_version(self._machine.version(snapshot.ledger))
        return Engine(
            self.node_id,
            store=self._environment,
            sender=self._links,
            apply=self._machine.apply,
            read_members=self._machine.members,
            changes_members=changes_members,
            entry_changes_members=entry_changes_members,
            clock=self._clock,
            random=self._random,
            on_results=lambda done: self._on_loop(self._callers.resolve, done),
            on_reads=lambda done: self._on_loop(self._resolve_reads, done),
            settings=self._settings,
            copy_job=_copy_on_a_thread,
            wake=self._ring,
            digest=self._machine.digest,
        )

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # The bell has been rung already.
            self._bell.release()

    def _ring_for_all(self) -> None:
        self._ringing = False
        self._ring()

    def _on_loop(self, callback: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # The loop has been closed: nobody waits any more.
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _run(self) -> None:
        engine = self._engine
        assert engine is not None
        self._bell.acquire(blocking=False)
        while not self._stopping and engine.failed is None:
            pause_s = min(IDLE_S, engine.wakeup_at_s() - self._clock.monotonic_s())
            if pause_s > 0:
                self._bell.acquire(timeout=pause_s)
            engine.tick()
        if engine.failed is not None:
            self._on_loop(self._fail_callers, engine.failed)
            self._on_loop(self._on_failed, engine.failed)


def _copy_on_a_thread(make: Callable[[], Any], take: Callable[[Any], None]) -> None:
    def copy() -> None:
        try:
            take(make())
        except IceProdError as error:
            take(error)
        except Exception as cause:
            take(IceProdError(f"the copy for a snapshot failed: {cause}"))

    threading.Thread(target=copy, name="raft-copy", daemon=True).start()
