"""Links between simulated nodes: delay, jitter, rate, loss, duplication, reordering, cuts in one or both directions.

Each ordered pair of nodes is a link of its own.  A cut link drops what is sent, or holds it and delivers it late
when it heals, as a connection does whose other end sleeps.  Urgent frames overtake data, as the transport lets
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from iceprod_p2p.raft.messages import urgency
from tests.simulation.world import World

LATE_S_MAX = 8.0
BACKLOG_S_MAX = 20.0
BACKLOG_BYTES_MAX = 4 << 20  # What a link queues before it drops, as a bounded send buffer does.


@dataclass(slots=True)
class Link:
    """One direction between two nodes."""

    delay_s: float = 0.0005
    jitter_s: float = 0.0
    loss: float = 0.0
    double: float = 0.0
    straggle: float = 0.0  # How often a frame comes seconds late, long after those sent after it.
    rate_bytes_per_s: float = 1e9
    in_order: bool = True
    cut: bool = False
    holds: bool = False  # While cut: keep frames for later instead of dropping them.
    held: list[tuple[str, str, bytes, float, Life]] = field(default_factory=list)
    free_at: float = 0.0
    last_at: dict[bool, float] = field(default_factory=dict)  # Urgent or not: each lane keeps its order.


@dataclass(slots=True)
class Life:
    """One process from start to end; frames that it would have sent later than it died never left."""

    died_at: float = float("inf")


class Network:
    """All links, and who hears of what arrives."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.links: dict[tuple[str, str], Link] = {}
        self.arrive: Callable[[str, str, bytes], None] = lambda source, target, frame: None
        self.intercept: Callable[[str, str, bytes], bool] | None = None  # Takes a frame off the wire.
        self.sent = self.dropped = 0

    def link(self, source: str, target: str) -> Link:
        """Return the link from `source` to `target`, made when first asked for."""
        found = self.links.get((source, target))
        if found is None:
            found = self.links[(source, target)] = Link()
        return found

    def send(self, source: str, target: str, frame: bytes, at: float, life: Life) -> None:
        """Send one frame that leaves at time `at`, if its process lives until then."""
        world, link = self._world, self.link(source, target)
        self.sent += 1
        if self.intercept is not None and self.intercept(source, target, frame):
            return
        if link.cut:
            if link.holds:
                link.held.append((source, target, frame, at, life))
            else:
                self.dropped += 1
            return
        chance = world.random.random
        if link.loss and chance() < link.loss:
            self.dropped += 1
            return
        copies = 2 if link.double and chance() < link.double else 1
        for _ in range(copies):
            arrival = self._arrival(link, frame, at)
            if arrival is None:
                self.dropped += 1
            else:
                world.at(arrival, self._deliver, source, target, frame, at, life)

    def _arrival(self, link: Link, frame: bytes, at: float) -> float | None:
        takes_s = len(frame) / link.rate_bytes_per_s
        urgent = urgency(frame) == 0
        if urgent:
            leaves = at + takes_s
        else:
            waits_s = link.free_at - at
            if waits_s > BACKLOG_S_MAX or waits_s * link.rate_bytes_per_s > BACKLOG_BYTES_MAX:
                return None
            leaves = link.free_at = max(link.free_at, at) + takes_s
        arrival = leaves + link.delay_s
        if link.jitter_s:
            arrival += link.jitter_s * self._world.random.random()
        if link.straggle and self._world.random.random() < link.straggle:
            return arrival + LATE_S_MAX * self._world.random.random()
        if link.in_order:
            arrival = link.last_at[urgent] = max(link.last_at.get(urgent, 0.0), arrival)
        return arrival

    def _deliver(self, source: str, target: str, frame: bytes, left_at: float, life: Life) -> None:
        link = self.links[(source, target)]
        if life.died_at < left_at or (link.cut and not link.holds):
            self.dropped += 1
        elif link.cut:
            link.held.append((source, target, frame, left_at, life))
        else:
            self.arrive(source, target, frame)

    def cut(self, source: str, target: str, *, holds: bool) -> None:
        """Cut one direction."""
        link = self.link(source, target)
        link.cut, link.holds = True, holds

    def empty(self, source: str, target: str) -> None:
        """Let what is queued on a link stand in nobody's way any more: a new connection, or a faster line."""
        link = self.link(source, target)
        link.free_at = min(link.free_at, self._world.now)
        link.last_at.clear()

    def heal(self, source: str, target: str) -> None:
        """Mend one direction; what was held arrives now."""
        link = self.link(source, target)
        link.cut = False
        held, link.held = link.held, []
        for frame in held:
            self._world.at(max(self._world.now, frame[3]) + link.delay_s, self._deliver, *frame)

    def heal_all(self) -> None:
        """Mend every link."""
        for source, target in self.links:
            self.heal(source, target)
