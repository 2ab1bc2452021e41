"""`iceprod-node doctor`: what is wrong with this node, or will be soon, and what to do about it.

Nothing is changed, nothing is submitted.  Each check is a function that yields findings; one that cannot be
made is a finding too, and the others go on.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cryptography import x509

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.client.enrolment import enrol_call
from iceprod_p2p.security.ca import DAY_MS
from iceprod_p2p.security.certificates import CLOCK_TOLERANCE_MS, chain_from_pem, expires_ms
from iceprod_p2p.site.credential_watch import credential_state
from iceprod_p2p.site.doctor_store import common_digests, look_at_modes, look_at_store
from iceprod_p2p.site.findings import Finding, Verdict
from iceprod_p2p.site.node import make_grid
from iceprod_p2p.site.node_keys import AUTHORITY, BELONGS, KEYS, NodeKeys, has_keys, load_keys
from iceprod_p2p.site.pilot_files import PilotKit
from iceprod_p2p.site.process import running_pid
from iceprod_p2p.site.raft_timing import raft_settings
from iceprod_p2p.wire.addresses import parse_address
from iceprod_p2p.wire.calls import call_blocking
from iceprod_p2p.wire.channel import TlsMaterial, blocking_channel
from iceprod_p2p.wire.pb import common_pb2, enrol_pb2, peer_pb2, peer_pb2_grpc

CONNECT_S: Final = 3.0
SKEW_MS: Final = 5_000  # Certificates tolerate five minutes; good clocks differ by milliseconds.
DAYS_LEAST: Final = 30  # Of an authority: nobody renews it unless told.
NODE_DAYS_LEAST: Final = 40  # Of a node's certificate, which is renewed with 45 days left.


Check = Callable[[], Iterator[Finding]]


def examine(config: SiteConfig, clock: Clock) -> list[Finding]:
    """Return every finding, in the order of looking; blocking, some seconds for each silent node."""
    found: list[Finding] = []
    checks: dict[str, Check] = {
        "timings": lambda: _timings(config),
        "files": lambda: _modes(config.node.data_dir),
        "certificates": lambda: _certificates(config, clock),
        "root key": lambda: _root_key(config.node.data_dir),
        "store": lambda: look_at_store(config),
        "disk": lambda: _disk(config),
        "ports": lambda: _ports(config),
        "batch system": lambda: _grid(config),
        "credential": lambda: _credential(config, clock),
        "clocks": lambda: _clocks(config, clock),
        "digests": lambda: _digests(config),
    }
    for what, check in checks.items():
        try:
            found += check()
        except (IceProdError, OSError) as trouble:
            words, remedy = str(trouble), ""
            if isinstance(trouble, IceProdError):
                words, remedy = trouble.message, trouble.remedy
            found.append(Finding(Verdict.BAD, what, words, remedy))
    return found


def _timings(config: SiteConfig) -> Iterator[Finding]:
    for fault in raft_settings(config).faults():
        yield Finding(Verdict.BAD, "timings", fault, f"mend {config.path}")


def _modes(data_dir: Path) -> Iterator[Finding]:
    """Directories of keys 0700, keys and secrets 0600, all of them this user's."""
    if not data_dir.is_dir():
        yield Finding(Verdict.BAD, "files", f"there is no {data_dir}", BELONGS)
        return
    public = {".pem"}
    looked = 0
    for path in [data_dir, *(data_dir / name for name in (KEYS, AUTHORITY) if (data_dir / name).is_dir())]:
        for entry in [path, *(sorted(path.iterdir()) if path != data_dir else ())]:
            looked += 1
            state = entry.lstat()
            forbidden = 0o022 if entry.suffix in public else 0o077
            if state.st_mode & forbidden:
                mode = stat.S_IMODE(state.st_mode)
                wanted = "700" if entry.is_dir() else "644" if entry.suffix in public else "600"
                yield Finding(Verdict.BAD, "files", f"{entry} has mode {mode:04o}", f"chmod {wanted} {entry}")
            if state.st_uid != os.geteuid():
                yield Finding(
                    Verdict.BAD,
                    "files",
                    f"{entry} belongs to user {state.st_uid}",
                    f"chown it to {os.geteuid()}",
                )
    yield Finding(Verdict.GOOD, "files", f"{looked} files and directories of keys looked at")
    yield from look_at_modes(data_dir)


def _certificates(config: SiteConfig, clock: Clock) -> Iterator[Finding]:
    node = config.node
    if not has_keys(node.data_dir):
        yield Finding(
            Verdict.BAD,
            "certificates",
            f"this node belongs to no cluster: there are no keys in {node.data_dir / KEYS}",
            BELONGS,
        )
        return
    keys = _keys(config)
    now_ms = clock.wall_ms()
    wanted: list[tuple[str, x509.Certificate, int, str]] = [
        (
            "this node",
            keys.certificate,
            NODE_DAYS_LEAST,
            "start the node: it renews its certificate by itself",
        ),
        (
            f"the authority of {keys.site}",
            keys.authority.certificate,
            DAYS_LEAST,
            "start the node: it is made anew by the root, whose node must run, unlocked",
        ),
        ("the root", chain_from_pem(keys.root_pem)[-1], DAYS_LEAST, "iceprod cluster rotate root"),
    ]
    if keys.people is not None:
        wanted.append(
            ("the people's authority", keys.people.certificate, DAYS_LEAST, "start the node: it is made anew")
        )
    for name, certificate, least, remedy in wanted:
        days = (expires_ms(certificate) - now_ms) // DAY_MS
        if days < 0:
            yield Finding(Verdict.BAD, "certificates", f"the certificate of {name} has ended", remedy)
        elif days < least:
            yield Finding(Verdict.WARNING, "certificates", f"{name}: {days} days left", remedy)
        else:
            yield Finding(Verdict.GOOD, "certificates", f"{name}: {days} days left")


def _root_key(data_dir: Path) -> Iterator[Finding]:
    key = data_dir / AUTHORITY / "root.key"
    if key.exists() and b"ENCRYPTED" not in key.read_bytes():
        words = "the key of the cluster's root lies here unencrypted: it can make any identity"
        yield Finding(
            Verdict.WARNING, "root key", words, "keep a copy offline; found with --root-passphrase-file"
        )


def _disk(config: SiteConfig) -> Iterator[Finding]:
    least = config.system.free_disk_mib_least
    seen: set[int] = set()
    for path in (config.node.data_dir, config.system.scratch_dir, config.system.cache_dir):
        present = next(parent for parent in (path, *path.parents) if parent.exists())
        device = present.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(present).free >> 20
        words = f"{free} MiB free at {present}"
        if free < least:
            yield Finding(
                Verdict.BAD, "disk", f"{words}, and no work is taken below {least} MiB", "make room"
            )
        elif free < 4 * least:
            yield Finding(Verdict.WARNING, "disk", words, f"no work is taken below {least} MiB")
        else:
            yield Finding(Verdict.GOOD, "disk", words)


def _ports(config: SiteConfig) -> Iterator[Finding]:
    """When the node runs its ports must answer, otherwise they must be free."""
    node, pid = config.node, running_pid(config)
    state = f"the node runs (process {pid})" if pid is not None else "the node does not run"
    yield Finding(Verdict.GOOD, "process", state)
    for listen, advertised in (
        (node.listen, node.advertise),
        (node.enrol_listen, node.advertise_enrol),
    ):
        if pid is None:
            yield _free(listen)
            continue
        where = parse_address(advertised)
        try:
            socket.create_connection((where.host, where.port), timeout=CONNECT_S).close()
        except OSError as failure:
            yield Finding(
                Verdict.BAD,
                "ports",
                f"nobody can be reached at {advertised}: {failure.strerror or failure}",
                "mend `advertise` in site.toml, or the firewall",
            )
        else:
            yield Finding(Verdict.GOOD, "ports", f"{advertised} answers")


def _free(listen: str) -> Finding:
    where = parse_address(listen, may_be_any_port=True)
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((where.host, where.port))
    except OSError as failure:
        remedy = "stop the other program, or change the port in site.toml"
        return Finding(
            Verdict.BAD, "ports", f"cannot listen on {listen}: {failure.strerror or failure}", remedy
        )
    return Finding(Verdict.GOOD, "ports", f"{listen} is free")


def _grid(config: SiteConfig) -> Iterator[Finding]:
    grid = make_grid(config)
    for misfit in PilotKit(config, b"").misfits(grid):
        yield Finding(Verdict.BAD, "resource classes", misfit, "change the class, or give the grid more")
    yield Finding(Verdict.GOOD, "batch system", f"{config.queue.plugin}: {grid.check()}")


def _credential(config: SiteConfig, clock: Clock) -> Iterator[Finding]:
    queue = config.queue
    if not queue.credential:
        return
    state = credential_state(queue, clock)
    if state.trouble:
        ended = state.left_s is None or state.left_s <= 0
        remedy = "the node runs credential_command" if queue.credential_command else "renew it by hand"
        yield Finding(Verdict.BAD if ended else Verdict.WARNING, "credential", state.trouble, remedy)
    else:
        yield Finding(Verdict.GOOD, "credential", state.words)


def _clocks(config: SiteConfig, clock: Clock) -> Iterator[Finding]:
    """Ask every other node for its clock; their list comes from this node, so it must run."""
    if running_pid(config) is None or not has_keys(config.node.data_dir):
        yield Finding(
            Verdict.WARNING, "clocks", "not compared: the node does not run", "start it, and look again"
        )
        return
    keys = _keys(config)
    for node in _nodes(config, keys):
        if node.node_id != keys.node_id:
            yield _compared(node, keys, clock)


def _nodes(config: SiteConfig, keys: NodeKeys) -> list[common_pb2.NodeAddress]:
    """Every node of the cluster, as this one says."""
    reply = enrol_call(
        config.node.advertise_enrol,
        TlsMaterial.anonymous(keys.root_pem),
        keys.server_name,
        "GetRoot",
        enrol_pb2.GetRootRequest(),
        timeout_s=CONNECT_S,
    )
    return list(reply.nodes)


def _digests(config: SiteConfig) -> Iterator[Finding]:
    """Compare this node's state with those of the others at one common index."""
    if running_pid(config) is None or not has_keys(config.node.data_dir):
        return
    keys = _keys(config)
    yield common_digests(_nodes(config, keys), keys)


def _compared(node: common_pb2.NodeAddress, keys: NodeKeys, clock: Clock) -> Finding:
    channel = blocking_channel(node.address, keys.tls, server_name=node.server_name)
    began_ms = clock.wall_ms()
    try:
        stub = peer_pb2_grpc.PeerStub(channel)
        request = peer_pb2.GetMemberRequest()
        row = call_blocking(stub.GetMember, request, timeout_s=CONNECT_S, peer=f"node {node.node_id}")
    except IceProdError as silent:
        return Finding(Verdict.WARNING, "peers", silent.message, silent.remedy)
    finally:
        channel.close()
    skew_ms = row.wall_ms - (began_ms + clock.wall_ms()) // 2
    words = f"the clock of {node.node_id} differs by {skew_ms / 1_000:+.1f} s"
    if abs(skew_ms) > CLOCK_TOLERANCE_MS:
        return Finding(Verdict.BAD, "clocks", words, "set the clocks: certificates are refused")
    if abs(skew_ms) > SKEW_MS:
        return Finding(Verdict.WARNING, "clocks", words, "let a time service set both clocks")
    return Finding(Verdict.GOOD, "clocks", words)


def _keys(config: SiteConfig) -> NodeKeys:
    node = config.node
    return load_keys(node.data_dir, cluster=node.cluster, site=node.site, node_id=node.id)
