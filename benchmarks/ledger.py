"""Commands a second of the replicated ledger, beside etcd and beside the bare loop, in turn within one run."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import bare, etcd
from benchmarks.children import Answer, Child, Say, ask_all
from benchmarks.cluster import Cluster
from benchmarks.numbers import median, milliseconds, percentile, rate, ratio
from benchmarks.report import table

TRANSACTION_PUTS: Final = 64
BATCHES: Final = (1, 16, 64, 256)  # Of the bare loop.


class Load(NamedTuple):
    """How many callers at once, and how many commands each of them proposes together."""

    callers: int
    batch: int

    @property
    def together(self) -> int:
        """Commands under way at once: the largest batch that one fsync can carry."""
        return self.callers * self.batch

    def __str__(self) -> str:
        return f"{self.callers} x {self.batch}"


LOADS: Final = (Load(1, 1), Load(16, 1), Load(64, 1), Load(256, 1), Load(16, 16), Load(1, 256))
PEER_LOADS: Final = {Load(16, 16): Load(16, TRANSACTION_PUTS)}
"""Where the peer's load is another one: its callers put 64 values in one transaction."""


@dataclass(slots=True)
class Measured:
    """Rates of all rounds, and latencies of all of them together, of one side under one load."""

    rates: list[float] = field(default_factory=list)
    latencies_us: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return median(self.rates)

    def latency(self, percent: float) -> float:
        return percentile(self.latencies_us, percent)

    def add(self, answers: Sequence[Answer], seconds: float) -> None:
        """Take one round's answers of all processes."""
        self.rates.append(sum(answer["commands"] for answer in answers) / seconds)
        for answer in answers:
            self.latencies_us.extend(answer["latencies_us"])


Results = dict[tuple[str, Load], Measured]


def measure(
    directory: Path,
    *,
    rounds: int,
    seconds: float,
    loads: Sequence[Load] = LOADS,
    with_peer: bool,
    own_load: bool = False,
    say: Say = lambda line: None,
) -> list[str]:
    """Measure and return the report's lines.  The sides take turns (A B C, A B C); medians of the rounds count."""
    results: Results = defaultdict(Measured)
    limits: dict[int, list[float]] = defaultdict(list)
    own = math.nan
    cluster = Cluster(_made(directory / "ledger"))
    peer: etcd.Etcd | None = None
    try:
        peer = etcd.Etcd(_made(directory / "etcd")) if with_peer else None
        for number in range(rounds):
            for load in loads:
                for work in ("light", "transitions"):
                    drive(results[work, load], cluster.members, load, seconds, work=work)
                if peer is not None:
                    drive(results["etcd", load], peer.clients, PEER_LOADS.get(load, load), seconds)
                say(f"round {number + 1}/{rounds}, {load}: {_progress(results, load)}")
            for batch in BATCHES:
                path = _made(directory / "bare")
                limits[batch].append(bare.measure(path, batch=batch, warm_s=0.1, seconds=seconds / 2))
                shutil.rmtree(path)
        if peer is not None and own_load:
            own = peer.own_load()
    finally:
        if peer is not None:
            peer.stop()
        cluster.stop()
    return _report(
        results, {batch: median(rates) for batch, rates in limits.items()}, loads, rounds, seconds, own
    )


def drive(measured: Measured, children: Sequence[Child], load: Load, seconds: float, **more: str) -> None:
    """Drive one round of one load through all processes; a single caller visits one after the other."""
    request: Answer = {"do": "drive", "batch": load.batch, "warm_s": min(0.3, seconds / 5), **more}
    count = len(children)
    if load.callers < count:
        parts = [c.ask(**request, callers=load.callers, seconds=seconds / count) for c in children]
    else:
        shares = [load.callers // count + (number < load.callers % count) for number in range(count)]
        parts = ask_all(children, [{**request, "callers": share, "seconds": seconds} for share in shares])
    measured.add(parts, seconds)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _progress(results: Results, load: Load) -> str:
    sides = ("light", "transitions", "etcd")
    return ", ".join(
        f"{side} {rate(results[side, load].rates[-1])}" for side in sides if (side, load) in results
    )


def _report(
    results: Results,
    limits: dict[int, float],
    loads: Sequence[Load],
    rounds: int,
    seconds: float,
    own: float,
) -> list[str]:
    rows = []
    for load in loads:
        light, moves, peer = (results[side, load] for side in ("light", "transitions", "etcd"))
        peer_load = PEER_LOADS.get(load, load)
        limit = limits.get(min(load.together, max(BATCHES)), math.nan)
        rows.append(
            [
                f"{load}",
                rate(light.rate),
                f"{milliseconds(light.latency(50))} / {milliseconds(light.latency(99))}",
                rate(moves.rate),
                f"{milliseconds(moves.latency(50))} / {milliseconds(moves.latency(99))}",
                rate(peer.rate) + ("" if peer_load == load else f" ({peer_load})"),
                f"{milliseconds(peer.latency(50))} / {milliseconds(peer.latency(99))}",
                ratio(light.rate / peer.rate),
                ratio(moves.rate / peer.rate),
                rate(limit),
                ratio(light.rate / limit),
            ]
        )
    heads = [
        *("callers x commands", "light /s", "p50 / p99 ms", "transitions /s", "p50 / p99 ms"),
        *(
            "etcd puts /s",
            "p50 / p99 ms",
            "light : etcd",
            "transitions : etcd",
            "bare loop /s",
            "light : bare",
        ),
    ]
    lines = table(heads, rows)
    lines += ["", f"Medians of {rounds} rounds of {seconds:g} s each, the sides in turn."]
    if not math.isnan(own):
        lines.append(
            f"etcd's own load tool in the same run (`etcdctl check perf`, Go, 1,000 clients): {rate(own)} puts/s."
        )
    return lines
