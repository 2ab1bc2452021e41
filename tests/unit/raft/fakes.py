"""Stand-ins with behaviour: a disk that loses what was not synced, a network that is a list, a tiny ledger."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sortedcontainers import SortedDict

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft import messages as wire
from iceprod_p2p.raft.engine import Engine
from iceprod_p2p.raft.founding import found, prepare_joiner
from iceprod_p2p.raft.proposals import split_entry
from iceprod_p2p.raft.settings import RaftSettings

DATABASES = ("ledger", "log", "meta")
MEMBER = b"M"


class MemoryTable:
    """An ordered map that remembers how to undo its writes."""

    def __init__(self, pairs: SortedDict[bytes, bytes]) -> None:
        self.pairs = pairs
        self._undo: list[tuple[bytes, bytes | None]] = []

    def get(self, key: bytes) -> bytes | None:
        return self.pairs.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        assert 0 < len(key) <= 511
        self._undo.append((key, self.pairs.get(key)))
        self.pairs[key] = value

    def delete(self, key: bytes) -> None:
        self._undo.append((key, self.pairs.get(key)))
        self.pairs.pop(key, None)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        for key in self.pairs.irange(start, stop, inclusive=(True, False), reverse=reverse):
            yield key, self.pairs[key]

    def undo(self) -> None:
        for key, value in reversed(self._undo):
            if value is None:
                self.pairs.pop(key, None)
            else:
                self.pairs[key] = value


class MemoryTransaction:
    """Writes in place; what was not committed is undone by `abort`, which is also what a crash does."""

    ledger: MemoryTable
    log: MemoryTable
    meta: MemoryTable

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        for name in DATABASES:
            setattr(self, name, MemoryTable(store.durable[name]))

    def commit(self, *, lasting: bool = True) -> None:
        self._store.before_commit()
        self._store.commits += 1

    def abort(self) -> None:
        for name in DATABASES:
            getattr(self, name).undo()


class MemoryStore:
    """What is in `durable` survives a crash; `before_commit` may raise, as a disk does."""

    def __init__(self) -> None:
        self.durable: dict[str, SortedDict[bytes, bytes]] = {name: SortedDict() for name in DATABASES}
        self.commits = 0
        self.swaps = 0
        self.before_commit: Callable[[], None] = lambda: None

    def write(self) -> MemoryTransaction:
        return MemoryTransaction(self)

    @contextmanager
    def read(self) -> Iterator[MemoryTransaction]:
        yield MemoryTransaction(self)

    def copy(self) -> MemoryStore:
        made = MemoryStore()
        made.durable = {name: pairs.copy() for name, pairs in self.durable.items()}
        return made

    def stage(self) -> MemoryStore:
        return MemoryStore()

    def swap(self, staging: MemoryStore) -> None:
        self.durable = staging.durable
        self.swaps += 1

    def discard(self) -> None:
        self.durable = {}

    def close(self) -> None:
        pass


# A tiny ledger: commands are [verb, key, value]; every applied command is kept by its index.


def read_members(ledger: Any) -> tuple[Member, ...]:
    rows = ledger.scan(MEMBER, b"N")
    return tuple(msgspec.msgpack.decode(value, type=Member) for _, value in rows)


def put_member(ledger: Any, node_id: str, role: MemberRole) -> None:
    member = Member(node_id, node_id, f"{node_id}:1", role)
    ledger.put(MEMBER + node_id.encode(), msgspec.msgpack.encode(member))


def apply(ledger: Any, index: int, term: int, entry: bytes) -> list[Any]:
    outcomes = []
    for request_id, _, _, (verb, key, value) in msgspec.msgpack.decode(entry):
        known = ledger.get(b"R" + request_id)
        if known is None:
            if verb == "member":
                put_member(ledger, key, MemberRole(value))
            elif verb == "remove":
                ledger.delete(MEMBER + key.encode())
            elif verb == "raise":
                raise RuntimeError("this command breaks the ledger")
            else:
                ledger.put(b"V" + key.encode(), value.encode())
            known = b"%d" % index
            ledger.put(b"R" + request_id, known)
        outcomes.append(int(known))
    ledger.put(b"A", msgspec.msgpack.encode([index, term]))
    return outcomes


def encode(request_id: bytes, verb: str, key: str, value: str = "") -> bytes:
    return split_entry(msgspec.msgpack.encode([[request_id, 0, "test", [verb, key, value]]]))


def changes_members(body: bytes) -> bool:
    return msgspec.msgpack.decode(body)[3][0] in ("member", "remove")


def genesis(*voters: str) -> bytes:
    commands = [
        [b"g" * 15 + bytes([n]), 0, "test", ["member", name, "voter"]] for n, name in enumerate(voters)
    ]
    return msgspec.msgpack.encode(commands)


def said_by(engine: Engine, sender: str, message: Any) -> bytes:
    """Return the frame of a message that `sender` sends in a session which `engine` has accepted."""
    known = engine.promises._peers.get(sender)
    if known is None:
        engine.receive(sender, wire.encode(wire.Hello(b"", 1, 7, 0, "", 0, 0)))
        engine.tick()
        known = engine.promises._peers[sender]
    return wire.encode(msgspec.structs.replace(message, session=known.session))


class Network:
    """Every frame waits here until a test delivers, delays or drops it."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, str, bytes]] = []
        self.cut: set[tuple[str, str]] = set()

    def sender(self, origin: str) -> NodeSender:
        return NodeSender(self, origin)

    def isolate(self, node: str, others: Sequence[str]) -> None:
        self.cut |= {(node, other) for other in others} | {(other, node) for other in others}

    def heal(self) -> None:
        self.cut.clear()


class NodeSender:
    def __init__(self, network: Network, origin: str) -> None:
        self._network = network
        self._origin = origin
        self.members: tuple[Member, ...] = ()

    def send(self, node_id: str, frame: bytes) -> None:
        if (self._origin, node_id) not in self._network.cut:
            self._network.frames.append((self._origin, node_id, frame))

    def members_changed(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)


class Node:
    """One engine with its disk; `kill` and `restart` keep only what was durable."""

    def __init__(self, cluster: Cluster, name: str, store: MemoryStore) -> None:
        self.cluster, self.name, self.store = cluster, name, store
        self.results: dict[bytes, Any] = {}
        self.reads: dict[int, Any] = {}
        self.start()

    def start(self) -> None:
        self.sender = self.cluster.network.sender(self.name)
        self.engine = Engine(
            self.name,
            store=self.store,
            sender=self.sender,
            apply=self.cluster.apply,
            read_members=read_members,
            changes_members=changes_members,
            clock=self.cluster.clock,
            random=self.cluster.random,
            on_results=self.results.update,
            on_reads=self.reads.update,
            settings=self.cluster.settings,
        )


class Cluster:
    """Engines in one process; time passes only in `run`."""

    def __init__(
        self, *names: str, seed: int = 1, settings: RaftSettings | None = None, state_machine: Any = apply
    ) -> None:
        self.clock = ManualClock()
        self.random = random.Random(seed)
        self.network = Network()
        self.settings = settings or RaftSettings()
        self.apply = state_machine
        self.nodes: dict[str, Node] = {}
        self.counter = 0
        for name in names:
            store = MemoryStore()
            found(store, name, genesis(*names), apply=apply)
            self.nodes[name] = Node(self, name, store)

    def join(self, name: str) -> Node:
        store = MemoryStore()
        prepare_joiner(store, name)
        self.nodes[name] = Node(self, name, store)
        return self.nodes[name]

    def kill(self, name: str) -> MemoryStore:
        node = self.nodes.pop(name)
        self.network.frames = [f for f in self.network.frames if name not in f[:2]]
        return node.store

    def restart(self, name: str, store: MemoryStore) -> Node:
        self.nodes[name] = Node(self, name, store)
        for other in self.nodes.values():
            other.engine.link_changed(name)
        return self.nodes[name]

    def step(self) -> None:
        """Deliver every frame that is on its way now, then tick everybody until nothing is due."""
        frames, self.network.frames = self.network.frames, []
        for origin, target, frame in frames:
            if target in self.nodes and (origin, target) not in self.network.cut:
                self.nodes[target].engine.receive(origin, frame)
        for node in self.nodes.values():
            for _ in range(50):
                if node.engine.wakeup_at_s() > self.clock.monotonic_s():
                    break
                node.engine.tick()

    def run(self, seconds: float, *, step_s: float = 0.01) -> None:
        for _ in range(round(seconds / step_s)):
            self.step()
            self.clock.advance(step_s)

    def run_until(self, condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
        for _ in range(round(within_s / 0.01)):
            if condition():
                return
            self.run(0.01)
        raise AssertionError("it did not come about in time")

    @property
    def leaders(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.engine.is_leader]

    def elect(self) -> Node:
        self.run_until(lambda: len(self.leaders) == 1 and self._leader_is_ready())
        return self.nodes[self.leaders[0]]

    def _leader_is_ready(self) -> bool:
        core = self.nodes[self.leaders[0]].engine.core
        return core.applied >= core.noop_index

    def propose(self, name: str, verb: str, key: str, value: str = "", request: int = 0) -> bytes:
        self.counter += 1
        request_id = (request or self.counter).to_bytes(16, "big")
        body = encode(request_id, verb, key, value)
        self.nodes[name].engine.propose(request_id, body, self.clock.monotonic_s() + 10.0)
        return request_id

    def values(self, name: str) -> dict[bytes, bytes]:
        return dict(self.nodes[name].store.durable["ledger"].items())

    def applied(self, name: str) -> int:
        return self.nodes[name].engine.core.applied
