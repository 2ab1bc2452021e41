"""Faults: what breaks, when, and how it is mended.  Every choice comes from the world's chance."""

from __future__ import annotations

from iceprod_p2p.store.errors import StoreBroken, StoreFull
from tests.simulation.cluster import Cluster
from tests.simulation.members import Operator
from tests.simulation.process import Process
from tests.simulation.world import Violation, between

LOG_KEPT_WHOLE = 8_192  # No history writes so many entries.
CRASH_POINTS = ("put", "before commit", "after commit", "before swap", "after swap", "send", "release")


class Nemesis:
    """Breaks a cluster for a while, then leaves everything mended."""

    def __init__(self, cluster: Cluster, operator: Operator) -> None:
        self._cluster = cluster
        self._operator = operator
        self._has_damaged = False
        self._odd: Process | None = None
        self._world = cluster.world
        self._random = cluster.world.random
        self._until_s = 0.0

    def begin(self, until_s: float) -> None:
        """Break things until then."""
        self._until_s = until_s
        self._next()

    def _next(self) -> None:
        pause_s = self._random.expovariate(1 / self._cluster.profile.fault_interval_s)
        if self._world.now + pause_s < self._until_s:
            self._world.after(pause_s, self._strike)

    def _strike(self) -> None:
        fault = self._random.choice(self._cluster.profile.faults)
        self._world.note("nemesis", fault)
        self._world.trace("fault", fault)
        kind, _, what = fault.partition(" ")
        if kind == "kill":
            self._kill(what)
        elif kind in ("isolate", "split", "bridge", "ring", "deaf", "mute", "one", "half", "flap"):
            self._cut(fault)
        elif fault in ("slow link", "lossy link", "narrow link"):
            self._degrade(fault)
        else:
            self._other(fault)
        self._next()

    def end(self) -> None:
        """Mend everything."""
        cluster = self._cluster
        cluster.calm = True
        self._world.note("nemesis", "everything is mended")
        for pair, link in cluster.network.links.items():
            healthy = cluster.healthy_link()
            link.delay_s, link.jitter_s, link.loss = healthy.delay_s, healthy.jitter_s, healthy.loss
            link.double, link.rate_bytes_per_s = healthy.double, healthy.rate_bytes_per_s
            link.straggle = healthy.straggle
            cluster.network.empty(*pair)
            cluster.network.heal(*pair)
        for process in cluster.alive():
            process.mend(fsync_s=cluster.profile.fsync_s)
            if process.engine is not None and process.engine.failed is not None:
                process.kill("stopped by its supervisor")
            if process.engine is None:
                process.boot()

    # Processes.

    def _kill(self, whom: str) -> None:
        voters = [name for name in self._cluster.voters() if self._cluster.processes[name].engine is not None]
        others = [process.node_id for process in self._cluster.running() if process.node_id not in voters]
        self._random.shuffle(voters)
        half = len(voters) // 2
        leader = self._cluster.leader()
        chosen = {
            "one": (voters + others)[:1] if self._random.random() < 0.8 else (others + voters)[:1],
            "leader": [leader.node_id] if leader else [],
            "minority": voters[:half],
            "majority": voters[: half + 1],
            "all": voters + others,
        }[whom]
        for name in chosen:
            process = self._cluster.processes[name]
            process.kill()
            self._restart_later(process)

    def _restart_later(self, process: Process) -> None:
        self._world.after(between(self._random, 0.05, 10.0), self._restart, process)

    def _restart(self, process: Process) -> None:
        if process.engine is not None and process.engine.failed is not None:
            process.kill("stopped by its supervisor")
        if process.engine is None and not process.gone:
            process.boot()

    def _someone(self) -> Process | None:
        running = self._cluster.running()
        return self._random.choice(running) if running else None

    def _other(self, fault: str) -> None:
        process = self._cluster.leader() if "leader" in fault or fault == "hand over" else self._someone()
        if process is None or process.engine is None:
            return
        if fault == "members":
            self._operator.change()
        elif fault == "damage":
            self._damage(process)
        elif fault == "odd member":
            self._make_odd(process)
        elif fault == "hand over":
            voters = self._cluster.voters()
            process.engine.transfer(self._random.choice([None, *voters]))
            process.poke()
        elif fault == "power cut":
            point = self._random.choice(CRASH_POINTS)
            process.crash_at(point, self._random.randrange(1, 12))
            self._world.note("nemesis", "power will fail", node=process.node_id, at=point)
            self._world.after(5.0, self._restart_if_down, process)
        elif fault in ("pause", "pause leader"):
            process.pause()
            self._world.after(between(self._random, 0.1, 8.0), process.resume)
        elif fault == "slow disk":
            process.disk.fsync_s = between(self._random, 0.02, 1.5)
            self._world.note("nemesis", "slow disk", node=process.node_id, fsync_s=process.disk.fsync_s)
            self._world.after(between(self._random, 0.5, 10.0), self._mend_disk, process)
        else:
            error = (
                StoreFull("cannot commit: no space left")
                if fault == "full disk"
                else StoreBroken("cannot commit: EIO")
            )
            process.failing = True
            process.disk.fail_next_commit = error
            self._restart_later(process)

    def _damage(self, process: Process) -> None:
        """Flip a bit on the disk of a node that is down: it must not start, and is replaced.  Once a history."""
        voters = [self._cluster.processes[name] for name in self._cluster.voters()]
        sound = all(not voter.gone and self._cluster.applied_index(voter)[0] > 1 for voter in voters)
        # The operator is at rest, and the others hold what this node holds: a minority is lost, no more.
        if self._has_damaged or len(voters) < 3 or not sound or not self._operator.done:
            return
        self._has_damaged = True
        process.kill("killed, and its disk damaged")
        where = process.disk.flip_bit(self._random.getrandbits(40))
        self._world.note("nemesis", "flips a bit", node=process.node_id, where=where)
        process.boot()
        if process.engine is not None:
            raise Violation(f"{process.node_id} started on a damaged disk ({where})")
        process.gone = True
        self._operator.replace(process.node_id)

    def _make_odd(self, process: Process) -> None:
        """Let a member leave out an entry: the others' digests must end it, and it is replaced.  Once a history.

        Not where it might lead and give others its own tables as a snapshot before it is found.
        """
        profile = self._cluster.profile
        voters = self._cluster.voters()
        serves = profile.settings.log_keep_entries < LOG_KEPT_WHOLE
        if (
            self._has_damaged
            or len(voters) < 3
            or serves
            or not profile.production
            or not self._operator.done
        ):
            return
        self._has_damaged = True
        self._odd = process
        process.make_odd(after=self._random.randrange(10))
        self._world.after(1.0, self._look_for_odd, process)

    def _look_for_odd(self, process: Process) -> None:
        if process.engine is not None and process.caught:
            process.kill("stopped by its supervisor")
            process.boot()
        if process.engine is not None or not process.caught:
            self._world.after(1.0, self._look_for_odd, process)
            return
        process.gone = True
        self._operator.replace(process.node_id)

    def missing(self) -> str:
        """Say which member has another state than the others and goes on."""
        odd = self._odd
        if odd is None or odd.gone or not (odd.odd or self._cluster.calm):
            return ""
        return f"{odd.node_id} has another state and goes on"

    @property
    def has_caught(self) -> bool:
        """Whether an odd member was found by the others."""
        return self._odd is not None and bool(self._odd.caught)

    def _restart_if_down(self, process: Process) -> None:
        if process.engine is None:
            self._restart_later(process)

    def _mend_disk(self, process: Process) -> None:
        process.disk.fsync_s = self._cluster.profile.fsync_s

    # Links.

    def _cut(self, fault: str) -> None:
        names = [process.node_id for process in self._cluster.alive()]
        if len(names) < 2:
            return
        pairs = self._pairs(fault, names)
        holds = fault == "half open" or self._random.random() < 0.3
        lasts_s = between(self._random, 0.2, 12.0)
        self._world.note(
            "nemesis", "cut", pairs=" ".join(f"{a}>{b}" for a, b in pairs), holds=holds, for_s=lasts_s
        )
        if fault == "flap":
            for number in range(self._random.randrange(2, 8)):
                self._world.after(2 * number * lasts_s / 8, self._set_cut, pairs, True, holds)
                self._world.after((2 * number + 1) * lasts_s / 8, self._set_cut, pairs, False, holds)
            return
        self._set_cut(pairs, True, holds)
        self._world.after(lasts_s, self._set_cut, pairs, False, holds)

    def _pairs(self, fault: str, names: list[str]) -> list[tuple[str, str]]:
        random = self._random
        random.shuffle(names)
        everything = [(a, b) for a in names for b in names if a != b]
        leader = self._cluster.leader()
        one = leader.node_id if leader is not None and "leader" in fault else names[0]
        if fault == "split":
            left = set(names[: random.randrange(1, len(names))])
            return [(a, b) for a, b in everything if (a in left) != (b in left)]
        if fault == "bridge":  # Two halves that meet in one node only.
            left = set(names[1 : 1 + len(names) // 2])
            return [(a, b) for a, b in everything if names[0] not in (a, b) and (a in left) != (b in left)]
        if fault == "ring":
            place = {name: number for number, name in enumerate(names)}
            return [
                (a, b) for a, b in everything if (place[a] - place[b]) % len(names) not in (1, len(names) - 1)
            ]
        if fault == "deaf":
            return [(a, b) for a, b in everything if b == one]
        if fault == "mute":
            return [(a, b) for a, b in everything if a == one]
        if fault in ("one way", "flap"):
            return random.sample(everything, random.randrange(1, min(len(everything), 4) + 1))
        return [(a, b) for a, b in everything if one in (a, b)]

    def _set_cut(self, pairs: list[tuple[str, str]], cut: bool, holds: bool) -> None:
        cluster = self._cluster
        for source, target in pairs:
            if cut and not cluster.calm:
                cluster.network.cut(source, target, holds=holds)
            else:
                cluster.network.heal(source, target)
        if self._random.random() < 0.7:  # The transport notices, at either end, sooner or later.
            for source, target in pairs:
                for here, there in ((source, target), (target, source)):
                    process = self._cluster.processes[here]
                    self._world.after(2 * self._random.random(), process.link_changed, there)

    def _degrade(self, fault: str) -> None:
        links = self._cluster.network.links
        chosen = [pair for pair in links if self._random.random() < self._random.choice((0.2, 1.0))]
        lasts_s = between(self._random, 0.5, 15.0)
        for pair in chosen:
            link = links[pair]
            if fault == "slow link":
                link.delay_s = between(self._random, 0.02, 0.6)
            elif fault == "lossy link":
                link.loss, link.double = 0.4 * self._random.random(), 0.4 * self._random.random()
            else:
                link.rate_bytes_per_s = between(self._random, 2e3, 4e5)
        self._world.after(lasts_s, self._mend_links, chosen)

    def _mend_links(self, pairs: list[tuple[str, str]]) -> None:
        for pair in pairs:
            link, healthy = self._cluster.network.links[pair], self._cluster.healthy_link()
            link.delay_s, link.loss, link.double = healthy.delay_s, healthy.loss, healthy.double
            link.rate_bytes_per_s = healthy.rate_bytes_per_s
            self._cluster.network.empty(*pair)
