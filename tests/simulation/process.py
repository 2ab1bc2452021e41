"""One simulated node: a disk that lasts, and processes that come and go on it, each driving the real engine.

A tick happens at one instant of virtual time; its fsync may take longer.  What the engine sends before its
commit leaves at once, the rest when the fsync is over, and never if the process died in between: then the commit
itself may be lost or kept, as on a real disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from iceprod_p2p.base.errors import IceProdError, IntegrityError, Unavailable
from iceprod_p2p.model.site import Member
from iceprod_p2p.raft.engine import Engine
from iceprod_p2p.raft.proposals import EMPTY_ENTRY
from iceprod_p2p.raft.settings import RaftSettings
from tests.simulation.disk import Disk, PowerCut, View
from tests.simulation.network import Life, Network
from tests.simulation.world import Violation, World

Done = Callable[[Any], None]
IDLE_TICKS_MAX = 100  # More would keep a core of the machine busy with nothing.


class Machine(Protocol):
    """The replicated state machine."""

    def apply(self, kv: Any, index: int, term: int, entry: bytes) -> Sequence[Any]: ...

    def read_members(self, kv: Any) -> Sequence[Member]: ...

    def changes_members(self, body: bytes) -> bool: ...

    def entry_changes_members(self, entry: bytes) -> bool: ...

    def digest(self, kv: Any) -> bytes: ...

    def applied_index(self, kv: Any) -> int: ...


class Watch(Protocol):
    """Who is told what a process does (the checkers)."""

    def booted(self, process: Process) -> None: ...

    def applied(
        self,
        process: Process,
        kv: View,
        index: int,
        term: int,
        entry: bytes,
        outcomes: Sequence[Any],
        written: int,
    ) -> None: ...

    def known_effect(
        self, process: Process, kv: View, index: int, term: int, entry: bytes
    ) -> Sequence[Any] | None: ...

    def ticked(self, process: Process) -> None: ...

    def sending(self, process: Process, target: str, frame: bytes, leaves_at: float) -> None: ...

    def died(self, node_id: str) -> None: ...


class NodeClock:
    """A node's own monotonic clock: begins anywhere, and is a little fast or slow."""

    def __init__(self, world: World, *, offset_s: float, rate: float) -> None:
        self._world = world
        self.offset_s = offset_s
        self.rate = rate

    def monotonic_s(self) -> float:
        return self.offset_s + self._world.now * self.rate

    def wall_ms(self) -> int:
        raise AssertionError("the engine must not read the wall clock")

    def world_time(self, monotonic_s: float) -> float:
        """Return the virtual time at which this clock shows `monotonic_s`."""
        return (monotonic_s - self.offset_s) / self.rate


class Process:
    """A node and its current process, if one runs."""

    def __init__(
        self,
        world: World,
        node_id: str,
        network: Network,
        machine: Machine,
        settings: RaftSettings,
        watch: Watch,
        clock: NodeClock,
    ) -> None:
        self.world = world
        self.node_id = node_id
        self.network = network
        self.machine = machine
        self.settings = settings
        self.watch = watch
        self.clock = clock
        self.disk = Disk()
        self.engine: Engine | None = None
        self.life = Life(died_at=0.0)
        self.paused = False
        self.gone = False  # Removed from the cluster, or damaged: never started again.
        self.failing = False  # A disk failure was ordered: the engine must end by name.
        self.odd = False  # It has left out an entry: its tables are not the others', on its disk for good.
        self.caught = ""  # By what name the Raft part of an odd node ended.
        self._leaves_out: int | None = None  # After so many entries with commands it leaves one out.
        self.refused = ""  # Why the last start was refused.
        self.boots = 0
        self.on_boot: list[Callable[[], None]] = []
        self._idle_ticks = 0  # In a row that wrote nothing and asked for another at once.
        self._reported = False  # The end of its Raft part is in the story already.
        self._random = Random(f"{world.seed}/{node_id}")
        self._busy_until = 0.0
        self._leaves_at: float | None = None  # Set between a tick's commit and its end.
        self._tick_at = float("inf")
        self._waiting: dict[bytes, list[Done]] = {}
        self._reads: dict[int, Done] = {}
        self._read_number = 0
        self._crash_in: dict[str, int] = {}

    # Starting and ending.

    @property
    def up(self) -> bool:
        """Whether a process runs whose Raft part has not ended."""
        return self.engine is not None and self.engine.failed is None

    def boot(self) -> None:
        """Start a process on what is on the disk."""
        assert self.engine is None, f"{self.node_id} runs already"
        self.boots += 1
        self.paused = self.failing = self._reported = False
        self.disk.fail_next_commit = None
        self.disk.commit_failed = False
        self._crash_in = {}
        self._busy_until = self.world.now
        try:
            self.engine = Engine(
                self.node_id,
                store=self.disk,  # type: ignore[arg-type]
                sender=self,
                apply=self.apply,
                read_members=self.machine.read_members,
                changes_members=self.machine.changes_members,
                entry_changes_members=self.machine.entry_changes_members,
                clock=self.clock,
                random=self._random,
                on_results=self._on_results,
                on_reads=self._on_reads,
                settings=self.settings,
                copy_job=self._copy_job,
                wake=self.poke,
                digest=self.machine.digest,
            )
        except IntegrityError as refused:
            self.refused = str(refused)
            self.world.note(self.node_id, "start refused", why=self.refused)
            return
        self.life = Life()
        self.watch.booted(self)
        self.world.note(
            self.node_id, "starts", term=self.engine.core.term, last=self.engine.journal.last_index
        )
        self._schedule(self.world.now)
        for begin in self.on_boot:
            begin()

    def kill(self, why: str = "killed") -> None:
        """End the process at once; what its last fsync had not finished may be lost."""
        if self.engine is None:
            return
        now = self.world.now
        self.engine = None
        self.paused = False
        self.life.died_at = now
        at_risk = self.disk.at_risk(synced=now >= self._busy_until)
        lost = self.world.random.randint(0, at_risk) if at_risk and self.world.random.random() < 0.5 else 0
        self.disk.crash(lose=lost)
        self._waiting.clear()
        self._reads.clear()
        self._tick_at = float("inf")
        self._leaves_at = None
        self.watch.died(self.node_id)
        self.world.note(self.node_id, why, commits_lost=lost)

    def pause(self) -> None:
        """Stop the process as SIGSTOP does: frames pile up, its clock goes on."""
        self.paused = True
        self.world.note(self.node_id, "paused")

    def resume(self) -> None:
        """Let a paused process go on."""
        if self.paused:
            self.paused = False
            self.world.note(self.node_id, "resumed")
            self._schedule(self.world.now)

    def crash_at(self, point: str, countdown: int = 0) -> None:
        """Lose power the next time that `point` is passed for the `countdown`-th time.

        Points: put, before commit, after commit, before swap, after swap, send, release.
        """
        if self.engine is None:
            return
        self._crash_in[point] = countdown
        if point == "put":
            self.disk.on_put = lambda: self._pass("put")

    def make_odd(self, after: int = 0) -> None:
        """Leave out one of the next entries, and apply all others: whether it is found is up to the engine.

        From then on nobody believes what this node answers.
        """
        self._leaves_out = after

    def mend(self, *, fsync_s: float) -> None:
        """Forget every fault that was ordered: from here the disk is sound and the power stays."""
        self._crash_in = {}
        self.failing = False
        self.disk.fail_next_commit = None
        self.disk.on_put = None
        self.disk.fsync_s = fsync_s
        self.resume()

    # What others ask.

    def propose(self, request_id: bytes, body: bytes, timeout_s: float, done: Done) -> None:
        """Propose; `done` gets an outcome or an error, or nothing if the process dies first."""
        if self.engine is None:
            done(Unavailable(f"{self.node_id} does not answer"))
            return
        self._waiting.setdefault(request_id, []).append(done)
        self.engine.propose(request_id, body, self.clock.monotonic_s() + timeout_s)
        self.poke()

    def read_barrier(self, timeout_s: float, done: Done) -> None:
        """Ask for a linearizable read point; `done` gets the index applied here, or an error."""
        if self.engine is None:
            done(Unavailable(f"{self.node_id} does not answer"))
            return
        self._read_number += 1
        self._reads[self._read_number] = done
        self.engine.read(self._read_number, self.clock.monotonic_s() + timeout_s)
        self.poke()

    def receive(self, source: str, frame: bytes) -> None:
        """Take a frame from the network."""
        if self.engine is not None:
            self.engine.receive(source, frame)
            self.poke()

    def link_changed(self, peer: str) -> None:
        """The transport says that the link to `peer` came up or went down."""
        if self.engine is not None:
            self.engine.link_changed(peer)
            self.poke()

    def poke(self) -> None:
        """Something waits: tick soon."""
        self._schedule(self.world.now + 0.0002)

    # One tick.

    def _schedule(self, when: float) -> None:
        when = max(when, self._busy_until)
        if self.engine is not None and when < self._tick_at:
            self._tick_at = when
            self.world.at(when, self._tick, self.life, when)

    def _tick(self, life: Life, scheduled: float) -> None:
        engine = self.engine
        if engine is None or life is not self.life or scheduled != self._tick_at:
            return
        self._tick_at = float("inf")
        if self.paused:
            return
        self.world.ticks += 1
        self._leaves_at = None
        self.disk.on_commit = self._on_commit
        commits, lasting = self.disk.commits, self.disk.lasting
        try:
            engine.tick()
        except PowerCut as cut:
            self.kill(f"loses power at: {cut}")
            return
        if self.disk.lasting == lasting:
            self._busy_until = self.world.now
        self._leaves_at = None
        if engine.failed is not None:
            if not self._reported:
                self._reported = True
                self.world.note(self.node_id, "Raft part ended", why=engine.failed)
            if self.odd or "majority" in engine.failed:
                self.caught = engine.failed
            elif not self.failing:
                raise Violation(f"{self.node_id} stopped though its disk is sound: {engine.failed}")
        else:
            if self.failing and self.disk.commit_failed:
                raise Violation(f"{self.node_id} goes on after a commit that failed")
            self.watch.ticked(self)
        wakeup_s = engine.wakeup_at_s()
        idle = not wakeup_s and self.disk.commits == commits and engine.failed is None
        self._idle_ticks = self._idle_ticks + 1 if idle else 0
        if self._idle_ticks > IDLE_TICKS_MAX:
            raise Violation(
                f"{self.node_id} ticks again and again at once, {self._idle_ticks} times without writing"
            )
        if wakeup_s != float("inf"):
            # A timer never fires early, though its clock is rounded.
            self._schedule(self.clock.world_time(wakeup_s) + 1e-6 if wakeup_s else self._busy_until + 0.0001)

    def _on_commit(self, point: str) -> None:
        if point == "after commit":
            self._busy_until = self.world.now + (self.disk.fsync_s if self.disk.syncing else 0.0)
            self._leaves_at = self._busy_until
        self._pass(point)

    def _pass(self, point: str) -> None:
        countdown = self._crash_in.get(point)
        if countdown is None:
            return
        if countdown <= 0:
            self._crash_in = {}
            raise PowerCut(point)
        self._crash_in[point] = countdown - 1

    def apply(self, kv: View, index: int, term: int, entry: bytes) -> Sequence[Any]:
        """Apply one entry, as the engine asks, and let the checkers see what came of it."""
        written = kv.written
        carried_out = EMPTY_ENTRY if self._leaves_out_this(entry) else entry
        outcomes = self.watch.known_effect(self, kv, index, term, carried_out)
        if outcomes is None:
            outcomes = self.machine.apply(kv, index, term, carried_out)
        try:
            self.watch.applied(self, kv, index, term, entry, outcomes, written)
        except Exception as error:  # Not the engine's: it must not take it for its own.
            raise Violation(f"a checker failed at entry {index}: {type(error).__name__}: {error}") from error
        return outcomes

    def _leaves_out_this(self, entry: bytes) -> bool:
        if self._leaves_out is None or entry == EMPTY_ENTRY or self.machine.entry_changes_members(entry):
            return False
        self._leaves_out -= 1
        if self._leaves_out >= 0:
            return False
        self._leaves_out, self.odd = None, True
        self.world.note(self.node_id, "leaves out an entry")
        return True

    def _copy_job(self, make: Callable[[], Any], take: Callable[[Any], None]) -> None:
        """Copy the store a little later, between two ticks, as a thread of its own does."""
        life = self.life

        def copy() -> None:
            if life is self.life and self.engine is not None:
                try:
                    take(make())
                except IceProdError as error:
                    take(error)

        self.world.after(0.001 + 0.2 * self.world.random.random(), copy)

    def _on_results(self, results: list[tuple[bytes, Any]]) -> None:
        for request_id, outcome in [] if self.odd else results:
            waiting = self._waiting.pop(request_id, [])
            if waiting:
                self.world.at(self._after_commit(), self._hand_out, self.life, waiting, outcome)

    def _on_reads(self, reads: list[tuple[int, Any]]) -> None:
        for token, index in reads:
            done = self._reads.pop(token, None)
            if done is not None:
                self.world.at(self._after_commit(), self._hand_out, self.life, [done], index)

    def _hand_out(self, life: Life, waiting: list[Done], outcome: Any) -> None:
        if self.world.now <= life.died_at:
            for done in waiting:
                done(outcome)

    def _after_commit(self) -> float:
        return self.world.now if self._leaves_at is None else self._leaves_at

    # The engine's way out (`ports.FrameSender`).

    def send(self, node_id: str, frame: bytes) -> None:
        """Put a frame of the engine on the wire."""
        if self._crash_in:
            self._pass("send" if self._leaves_at is None else "release")
        assert self.engine is not None
        if self.engine.failed is not None:
            raise Violation(f"{self.node_id} sends to {node_id} after its Raft part has ended")
        leaves_at = self._after_commit()
        self.watch.sending(self, node_id, frame, leaves_at)
        self.network.send(self.node_id, node_id, frame, leaves_at, self.life)

    def members_changed(self, members: Sequence[Member]) -> None:
        """Links follow by themselves."""
