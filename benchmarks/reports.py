"""Reports from outside, many in one call, beside etcd's transactions of as many puts, in turn within one run.

Our side are three real `iceprod-node`s of three sites on loopback.  Callers are pilots (`exchanges`): gRPC under mutual
TLS to the node's public service, passkeys checked, and an answer when the outcome of every report is known there.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from iceprod_cli.demo_cluster import DemoSite
from iceprod_cli.session import Session

from benchmarks import etcd
from benchmarks.children import Child, Say, ask_all
from benchmarks.grid_ours import PROGRAM, STEERING, Sites
from benchmarks.ledger import Load, Measured, drive
from benchmarks.numbers import milliseconds, rate, ratio
from benchmarks.report import table
from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.client.contexts import NodeEntry
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.model.identity import IdentityKind, identity_uri
from iceprod_p2p.security.certificates import key_to_pem, make_request, new_key
from iceprod_p2p.site.node_keys import load_authority

LOADS: Final = (Load(3, 64), Load(16, 64))
JOBS: Final = 5_000_000  # More than any run reports.
SLOTS: Final = 768  # Of each site: twice what its callers hold at once, and as many are claimed ahead.
SETTLE_S: Final = 3.0  # Until every site has claimed that.
ASLEEP: Final = "#!/bin/sh\nexec sleep 3600\n"


class Stage(Sites):
    """Three sites whose only grid job never calls: what it may run is claimed, and left to the callers."""

    def __init__(self, directory: Path, *, say: Say) -> None:
        super().__init__(directory, slots=SLOTS, say=say)
        self._asleep = directory / "asleep"
        self._asleep.write_text(ASLEEP, encoding="utf-8")
        self._asleep.chmod(0o755)

    def site_toml(self, site: DemoSite) -> str:
        said = f'worker_python = "{self._asleep}"\n\n[queue.options]'
        return super().site_toml(site).replace("[queue.options]", said)


def measure(
    directory: Path, *, rounds: int, seconds: float, with_peer: bool, say: Say = lambda line: None
) -> list[str]:
    """Measure and return the report's lines; the sides take turns, and medians of the rounds count."""
    results: dict[tuple[str, Load], Measured] = defaultdict(Measured)
    stage = Stage(directory / "ours", say=say)
    callers: list[Child] = []
    peer: etcd.Etcd | None = None
    try:
        stage.found()
        steering = directory / "reports.yaml"
        steering.write_text(STEERING % PROGRAM, encoding="utf-8")
        with closing(Session(context_name=f"{stage.context_directory}/")) as session:
            submit_file(session.connection, steering, jobs=JOBS, seed=1311)
            context = session.connection.context
            for site in stage.sites:
                callers.append(_callers(directory, site, context.cluster, context.nodes, say))
        if with_peer:
            (directory / "etcd").mkdir()
            peer = etcd.Etcd(directory / "etcd")
        ask_all(callers, [{"do": "prepare", "batch": LOADS[0].batch}] * len(callers))
        time.sleep(SETTLE_S)
        for number in range(rounds):
            for load in LOADS:
                drive(results["ours", load], callers, load, seconds)
                if peer is not None:
                    drive(results["etcd", load], peer.clients, load, seconds)
                rates = ", ".join(
                    f"{side} {rate(results[side, load].rates[-1])}"
                    for side in ("ours", "etcd")
                    if (side, load) in results
                )
                say(f"round {number + 1}/{rounds}, {load}: {rates}")
    finally:
        for caller in callers:
            caller.stop()
        if peer is not None:
            peer.stop()
        stage.stop()
    return _lines(results, rounds, seconds)


def _callers(directory: Path, site: DemoSite, cluster: str, nodes: Sequence[NodeEntry], say: Say) -> Child:
    """Start the callers of one site's node, with certificates from the site's authority."""
    keys_at = site.directory / "data" / "keys"
    authority = load_authority(keys_at / "authority", cluster, site.name)
    node = next(node for node in nodes if node.site == site.name)
    pilots: dict[str, tuple[str, str]] = {}
    for number in range(-(-max(load.callers for load in LOADS) // 3)):
        name, key = f"bench-{site.name}-{number}", new_key()
        uri = identity_uri(IdentityKind.PILOT, name, site=site.name, cluster=cluster)
        certificate = authority.issue(
            make_request(key, uri), kind=IdentityKind.PILOT, name=name, now_ms=SystemClock().wall_ms()
        )
        pilots[name] = (authority.chain(certificate).decode(), key_to_pem(key).decode())
    config = directory / f"{site.name}.json"
    config.touch(mode=0o600)
    config.write_text(
        json.dumps(
            {
                "address": node.address,
                "server_name": node.server_name,
                "root": (keys_at / "root.pem").read_text(encoding="utf-8"),
                "pilots": pilots,
            }
        ),
        encoding="utf-8",
    )
    child = Child("benchmarks.exchanges", str(config), log=directory / f"{site.name}-callers.log")
    child.answer()
    say(f"{len(pilots)} callers at {site.name}")
    return child


def _lines(results: dict[tuple[str, Load], Measured], rounds: int, seconds: float) -> list[str]:
    rows = []
    for load in LOADS:
        ours, peer = results["ours", load], results["etcd", load]
        rows.append(
            [
                f"{load}",
                rate(ours.rate),
                f"{milliseconds(ours.latency(50))} / {milliseconds(ours.latency(99))}",
                rate(peer.rate),
                f"{milliseconds(peer.latency(50))} / {milliseconds(peer.latency(99))}",
                ratio(ours.rate / peer.rate),
            ]
        )
    heads = [
        *("callers x reports in a call", "reports /s", "p50 / p99 ms of a call"),
        *("etcd puts /s", "p50 / p99 ms of a transaction", "reports : puts"),
    ]
    return [*table(heads, rows), "", f"Medians of {rounds} rounds of {seconds:g} s each, the sides in turn."]
