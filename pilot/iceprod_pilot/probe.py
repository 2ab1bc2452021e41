"""``iceprod-pilot --config FILE --probe``: looks at this worker node as a pilot would need it, and ends.

It runs nothing, enrols nowhere and uses no secret.  Each finding is one line of JSON on standard output, for the
node that sent the probe: ``{"name": ..., "result": "ok"|"warning"|"failed", "text": ..., "remedy": ...}``.
"""

from __future__ import annotations

import json
import platform as python_platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.wire.addresses import parse_address
from iceprod_p2p.wire.calls import call_blocking
from iceprod_p2p.wire.channel import TlsMaterial, blocking_channel
from iceprod_p2p.wire.pb import enrol_pb2, enrol_pb2_grpc
from iceprod_pilot import platform
from iceprod_pilot.config import Node, PilotConfig
from iceprod_pilot.environment import GPUS

EXIT_UNFIT: Final = 3  # No pilot can work here.
CALL_S: Final = 8.0
NODES_MAX: Final = 16  # More are not asked: a probe takes a minute at most.
Finding = dict[str, str]


def probe(config: PilotConfig, environ: Mapping[str, str], clock: Clock) -> int:
    """Print what was found, a line each; return 0, or `EXIT_UNFIT` when something failed."""
    unfit = False
    for finding in findings(config, environ, clock):
        unfit = unfit or finding["result"] == "failed"
        print(json.dumps(finding), flush=True)
    return EXIT_UNFIT if unfit else 0


def findings(config: PilotConfig, environ: Mapping[str, str], clock: Clock) -> Iterator[Finding]:
    """Yield what a pilot with this configuration would meet here."""
    facts = platform.facts()
    yield _ok(
        "worker",
        f"{facts['host']}, {facts['os']} {facts['arch']}, Python {python_platform.python_version()}"
        f" ({sys.executable}), user {facts['uid']}, {facts['cpus_usable']} CPUs usable",
    )
    left_s = platform.WallTime(config.walltime_s, clock, environ).left_s()
    if left_s is not None:
        yield _ok("time", f"{left_s:.0f} s of wall time left")
    if config.gpus:
        yield _gpus(config, environ)
    yield from _directories(config)
    reached = False
    for node in config.nodes[:NODES_MAX]:
        finding = _node(config, node)
        reached = reached or (node.site == config.site and finding["result"] == "ok")
        yield finding
    if not reached:
        yield _failed(
            "home",
            f"no node of site {config.site} can be reached from here",
            "open outgoing TCP from worker nodes to `advertise` and `advertise_enrol` of [node]",
        )


def _gpus(config: PilotConfig, environ: Mapping[str, str]) -> Finding:
    named = next((environ[name] for name in GPUS if environ.get(name)), "")
    count = len([word for word in named.split(",") if word.strip()])
    if count >= config.gpus:
        return _ok("gpus", f"{count}: {named}")
    return _failed(
        "gpus",
        f"{config.gpus} GPUs were asked for, the environment names {count}",
        "make the batch system give GPUs to this class's jobs, or set gpu_emulation",
    )


def _directories(config: PilotConfig) -> Iterator[Finding]:
    for name in ("work_dir", "state_dir", "cache_dir"):
        path = Path(getattr(config, name))
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as file:
                file.write(b"probe")
            free_mib = shutil.disk_usage(path).free >> 20
        except OSError as broken:
            what = f"{name} {path} cannot be written to: {broken.strerror or broken}"
            yield _failed(
                name, what, "set [system] scratch_dir and cache_dir to what worker nodes can write to"
            )
            continue
        said = f"{path}, {free_mib} MiB free"
        if name == "work_dir" and free_mib < config.disk_mib:
            yield _warning(
                name, f"{said}, less than the {config.disk_mib} MiB of this class", "lower disk_mib"
            )
        else:
            yield _ok(name, said)


def _node(config: PilotConfig, node: Node) -> Finding:
    """Connect to both ports of a node; its certificate must be of this cluster."""
    name, own = f"node {node.node_id}", node.site == config.site
    try:
        address = parse_address(node.address)
        socket.create_connection((address.host, address.port), CALL_S).close()
        if node.enrol_address:
            _greet(config, node)
    except (IceProdError, OSError) as broken:
        what = broken.message if isinstance(broken, IceProdError) else f"{node.address}: {broken}"
        remedy = "check its address, and the firewall between worker nodes and it"
        return _failed(name, what, remedy) if own else _warning(name, what, remedy)
    return _ok(name, f"{node.address} and {node.enrol_address or 'no enrolment port'} answer")


def _greet(config: PilotConfig, node: Node) -> None:
    tls = TlsMaterial.anonymous(config.root_pem.encode())
    channel = blocking_channel(node.enrol_address, tls, server_name=node.server_name)
    try:
        stub = enrol_pb2_grpc.EnrolStub(channel)
        call_blocking(stub.GetRoot, enrol_pb2.GetRootRequest(), timeout_s=CALL_S, peer=f"node {node.node_id}")
    finally:
        channel.close()


def _ok(name: str, text: str) -> Finding:
    return {"name": name, "result": "ok", "text": text, "remedy": ""}


def _warning(name: str, text: str, remedy: str) -> Finding:
    return {"name": name, "result": "warning", "text": text, "remedy": remedy}


def _failed(name: str, text: str, remedy: str) -> Finding:
    return {"name": name, "result": "failed", "text": text, "remedy": remedy}
