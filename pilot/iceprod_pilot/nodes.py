"""Which node to call: the book of known nodes, kept on disk, and the route among them.

The pilot's own site comes first.  When its node has been silent for some seconds the others are asked, each pilot
beginning at another one so that a lost node's pilots spread; the own site is tried again now and then.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.logs import get_logger
from iceprod_pilot.config import Node

_LOG = get_logger("pilot.nodes")
NODES_MAX = 512  # A cluster has tens; a longer list is damaged.
RETRY_FIRST_S = 2.0
RETRY_MAX_S = 60.0


class NodeBook:
    """The nodes that are known now.  Thread-safe; written to disk when they change."""

    def __init__(self, path: Path, first: Sequence[Node]) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=tuple[Node, ...])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            kept = ()
        kept_ids = {node.node_id for node in kept}
        self._nodes = (*kept, *(node for node in first if node.node_id not in kept_ids))[:NODES_MAX]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node known, in the order in which the cluster told them."""
        with self._lock:
            return self._nodes

    def learn(self, nodes: Iterable[Node]) -> None:
        """Replace the book by what a node has just told; an empty list is ignored, for it can help nobody."""
        told = tuple(node for node in nodes if node.node_id and node.address and node.server_name)[:NODES_MAX]
        with self._lock:
            known = {node.node_id: node for node in self._nodes}
            # A node that was told without its enrolment address keeps the one that is known.
            told = tuple(
                msgspec.structs.replace(node, enrol_address=known[node.node_id].enrol_address)
                if not node.enrol_address and node.node_id in known
                else node
                for node in told
            )
            if not told or told == self._nodes:
                return
            self._nodes = told
            scratch = self._path.with_suffix(".new")
            try:
                scratch.write_bytes(msgspec.json.encode(told))
                scratch.replace(self._path)
            except OSError as fault:  # The book in memory serves this pilot; only a restart would miss it.
                _LOG.warning("node list not kept", path=str(self._path), fault=fault.strerror)


@dataclass(slots=True)
class _Trouble:
    since_s: float
    last_s: float
    retry_at_s: float
    pause_s: float
    on_trial: bool = False


class Route:
    """Chooses the node for the next call from how the last ones went.  Thread-safe.

    A home node keeps its place until it has failed for `silence_s`; any other node loses it at its first failure and
    is asked again after a pause that doubles from 2 s to 60 s.
    """

    def __init__(self, book: NodeBook, *, home_site: str, pilot: str, silence_s: float, clock: Clock) -> None:
        self._book = book
        self._home_site = home_site
        self._turn = zlib.crc32(pilot.encode())
        self._silence_s = silence_s
        self._clock = clock
        self._trouble: dict[str, _Trouble] = {}
        self._lock = threading.Lock()

    def ordered(self) -> list[Node]:
        """Return all nodes, those of the own site first, the others from this pilot's own starting point."""
        home = [node for node in self._book.nodes if node.site == self._home_site]
        others = [node for node in self._book.nodes if node.site != self._home_site]
        start = self._turn % len(others) if others else 0
        return [*home, *others[start:], *others[:start]]

    def choose(self) -> Node:
        """Return the node to call now; where all are in trouble, the one that was not tried for longest."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            nodes = self.ordered()
            for node in nodes:
                if self._may_serve(node, now_s):
                    return node
            return min(nodes, key=lambda node: self._last_s(node.node_id))

    def answered(self, node: Node) -> None:
        """Note that a call to `node` went well."""
        with self._lock:
            self._trouble.pop(node.node_id, None)

    def failed(self, node: Node) -> None:
        """Note that a call to `node` did not go through."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            before = self._trouble.get(node.node_id)
            if before is None:
                self._trouble[node.node_id] = _Trouble(now_s, now_s, now_s + RETRY_FIRST_S, RETRY_FIRST_S)
                return
            before.last_s = now_s
            if now_s >= before.retry_at_s or before.on_trial:
                before.pause_s = min(RETRY_MAX_S, before.pause_s * 2)
                before.retry_at_s = now_s + before.pause_s
                before.on_trial = False

    def home_to_probe(self) -> Node | None:
        """Return a home node that was given up and is due for a look, if there is one."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            for node in self.ordered():
                trouble = self._trouble.get(node.node_id)
                if node.site != self._home_site or trouble is None or trouble.on_trial:
                    continue
                if now_s - trouble.since_s >= self._silence_s and now_s >= trouble.retry_at_s:
                    return node
        return None

    def probed(self, node: Node, *, ready: bool) -> None:
        """Note what a look at a home node gave: when `ready`, the next call goes there, on trial."""
        if not ready:
            self.failed(node)
            return
        with self._lock:
            trouble = self._trouble.get(node.node_id)
            if trouble is not None:
                trouble.on_trial = True

    def _may_serve(self, node: Node, now_s: float) -> bool:
        trouble = self._trouble.get(node.node_id)
        if trouble is None or trouble.on_trial:
            return True
        if node.site == self._home_site:
            return now_s - trouble.since_s < self._silence_s
        return now_s >= trouble.retry_at_s

    def _last_s(self, node_id: str) -> float:
        trouble = self._trouble.get(node_id)
        return 0.0 if trouble is None else trouble.last_s
