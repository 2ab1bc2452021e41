"""A cluster with behaviour for the pilot's tests: real gRPC, real TLS, real certificates; a dictionary for a ledger.

`FakeCluster` holds what nodes share (orders, reports, blobs, records); each `FakeNode` serves it at a port of its own
and can be killed, silenced and brought back.  All servers run on one event loop in a thread.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc.aio

from iceprod_p2p.base.errors import NotAllowed, NotFound, Unavailable
from iceprod_p2p.model.identity import IdentityKind, identity_uri, node_server_name
from iceprod_p2p.model.software import parse_platform
from iceprod_p2p.security import ca, certificates
from iceprod_p2p.security.identity import peer_identity
from iceprod_p2p.site.handed_credentials import handed_credentials
from iceprod_p2p.wire.channel import TlsMaterial, add_secure_port, new_server
from iceprod_p2p.wire.interceptors import ErrorInterceptor
from iceprod_p2p.wire.pb import common_pb2, enrol_pb2, enrol_pb2_grpc, pilot_pb2, pilot_pb2_grpc

CLUSTER = "testgrid"
SECRET = "the-one-time-secret"
Ref = tuple[int, int, int, int]


def ref_of(message: common_pb2.TaskRef) -> Ref:
    return (message.dataset, message.job, message.task, message.attempt)


@dataclass
class FakeCluster:
    """What the nodes share.  `lifetime_s` is that of pilots' certificates, as pilots are told.

    `accepted` are the reports that end an attempt: one that says that files are being copied comes only where that
    takes a while, and is in `seen` alone.
    """

    lifetime_s: int = 3_600
    poll_ms: int = 200
    waiting: list[pilot_pb2.Order] = field(default_factory=list)
    held: dict[Ref, bytes] = field(default_factory=dict)
    accepted: list[pilot_pb2.Report] = field(default_factory=list)
    seen: list[pilot_pb2.Report] = field(default_factory=list)
    replies: dict[int, pilot_pb2.ExchangeReply] = field(default_factory=dict)
    exchanges: list[tuple[str, pilot_pb2.ExchangeRequest]] = field(default_factory=list)
    stop: list[Ref] = field(default_factory=list)
    void: set[Ref] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    files: dict[tuple[int, str], common_pb2.FileEntry] = field(default_factory=dict)
    software: dict[tuple[str, str], list[common_pb2.SoftwareBuild]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    enrolled: list[str] = field(default_factory=list)
    issued: list[bytes] = field(default_factory=list)  # Pilots' certificates, as PEM.
    issued_at_s: list[float] = field(default_factory=list)
    shown: list[bytes] = field(default_factory=list)  # Those that exchanges came with.
    pilots: set[str] = field(default_factory=set)
    drain: bool = False
    credentials: str = ""  # The file that pilots are handed.

    def __post_init__(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        self.root = ca.found_root(CLUSTER, certificates.new_key(), now_ms=now_ms)
        self.root_pem = certificates.to_pem(self.root.certificate)
        self.nodes: list[FakeNode] = []
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def add_node(self, site: str) -> FakeNode:
        node = FakeNode(self, site, f"{site}-{len(self.nodes)}")
        node.start()
        self.nodes.append(node)
        return node

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()

    def put(self, content: bytes) -> str:
        digest = sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    def record(self, dataset: int, name: str, content: bytes, *, digest: str = "") -> str:
        """Record an input; a `digest` that is not the content's makes it a damaged one."""
        true = self.put(content)
        digest = digest or true
        self.blobs[digest] = content
        self.files[dataset, name] = common_pb2.FileEntry(name=name, size_bytes=len(content), sha256=digest)
        return digest

    def publish(self, name: str, version: str, platform: str, tarball: bytes, **more: Any) -> str:
        """Register a build; return its SHA-256."""
        parts = parse_platform(platform)
        digest = self.put(tarball)
        self.software.setdefault((name, version), []).append(
            common_pb2.SoftwareBuild(
                name=name,
                version=version,
                os=parts.os,
                arch=parts.arch,
                libc=parts.libc,
                python=parts.python,
                platform=parts.text,
                sha256=digest,
                size_bytes=len(tarball),
                **more,
            )
        )
        return digest

    def order(
        self, document: dict[str, Any], *, job: int = 0, task: int = 0, attempt: int = 0, **need: Any
    ) -> Ref:
        """Make an order for a task of `document` wait for a pilot; `need` replaces single requirements."""
        ref = common_pb2.TaskRef(dataset=1, job=job, task=task, attempt=attempt)
        amounts = {"cpus": 1, "memory_mib": 512, "disk_mib": 512, "walltime_s": 600, **need}
        order = pilot_pb2.Order(
            ref=ref,
            passkey=b"PASSKEY-" + str(ref_of(ref)).encode(),
            steering_sha256=self.put(json.dumps(document).encode()),
            task_name=document["tasks"][task]["name"],
            jobs=10,
            seed=4711,
            requirements=common_pb2.Requirements(**amounts),
            system={"site": "home"},
            environment={"SITE_WORD": "from-the-site"},
        )
        self.waiting.append(order)
        return ref_of(ref)

    def reports(self, kind: str) -> list[pilot_pb2.Report]:
        return [report for report in self.accepted if report.WhichOneof("what") == kind]

    def until(self, true: Callable[[], Any], *, seconds: float = 60.0, what: str = "it") -> None:
        """Wait until `true` holds; the test fails when it does not in time."""
        end_s = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end_s, f"{what} did not happen in {seconds} s"
            time.sleep(0.02)

    def exchange(self, request: pilot_pb2.ExchangeRequest) -> pilot_pb2.ExchangeReply:
        """Answer as real nodes do: an exchange that is repeated gets the reply that was lost, with its orders."""
        if request.exchange_id not in self.replies:
            self.replies[request.exchange_id] = self._first_reply(request)
        return self.replies[request.exchange_id]

    def _first_reply(self, request: pilot_pb2.ExchangeRequest) -> pilot_pb2.ExchangeReply:
        reply = pilot_pb2.ExchangeReply(poll_ms=self.poll_ms, drain=self.drain)
        for report in request.reports:
            self.seen.append(report)
            ref = ref_of(report.ref)
            refusal = "" if self.held.get(ref) == report.passkey else "stale_attempt"
            reply.acks.add(report_id=report.report_id, accepted=not refusal, refusal=refusal)
            if not refusal and report.WhichOneof("what") != "copying":
                self.accepted.append(report)
                del self.held[ref]
        for running in request.running:
            if ref_of(running.ref) in self.void:
                reply.stop.append(running.ref)
        while self.waiting and not request.ending and len(reply.orders) < request.free.slots:
            order = self.waiting.pop(0)
            self.held[ref_of(order.ref)] = order.passkey
            reply.orders.append(order)
        reply.nodes.extend(node.address for node in self.nodes)
        return reply


class FakeNode(pilot_pb2_grpc.PilotsServicer, enrol_pb2_grpc.EnrolServicer):
    """One node: serves pilots at one port, enrols at another."""

    def __init__(self, cluster: FakeCluster, site: str, node_id: str) -> None:
        self.cluster, self.site, self.node_id = cluster, site, node_id
        now_ms = time.time_ns() // 1_000_000
        key = certificates.new_key()
        request = certificates.make_request(key, certificates.authority_claim(site, CLUSTER))
        certificate = cluster.root.issue_authority(request, scope=site, now_ms=now_ms)
        self.authority = ca.Authority(CLUSTER, site, certificate, key)
        node_key = certificates.new_key()
        claim = identity_uri(IdentityKind.NODE, node_id, site=site, cluster=CLUSTER)
        own = self.authority.issue(
            certificates.make_request(node_key, claim), kind=IdentityKind.NODE, name=node_id, now_ms=now_ms
        )
        self.tls = TlsMaterial(
            certificates.to_pem(own, certificate), certificates.key_to_pem(node_key), cluster.root_pem
        )
        self.ports = [0, 0]
        self.unsure = False  # Answers, but cannot commit.
        self.unsure_once_it_holds = False  # The same from the first upload on.
        self.enrols = True
        self.turned_away = 0  # How often it did not enrol a pilot.
        self.slow_s = 0.0  # What an exchange takes.
        self.deaf = threading.Event()  # Takes calls and never answers.
        self.lose_replies = 0  # To so many exchanges that bring reports.
        self.holds: set[str] = set()
        self._servers: list[grpc.aio.Server] = []

    @property
    def address(self) -> common_pb2.NodeAddress:
        return common_pb2.NodeAddress(
            node_id=self.node_id,
            site=self.site,
            address=f"127.0.0.1:{self.ports[0]}",
            server_name=node_server_name(self.node_id, site=self.site, cluster=CLUSTER),
            role="voter",
            enrol_address=f"127.0.0.1:{self.ports[1]}",
        )

    def start(self) -> None:
        self.cluster.do(self._start())

    def kill(self) -> None:
        self.cluster.do(self._kill())

    async def _start(self) -> None:
        for index, needs_certificate in enumerate((True, False)):
            server = new_server(interceptors=[ErrorInterceptor()])
            if needs_certificate:
                pilot_pb2_grpc.add_PilotsServicer_to_server(self, server)
            else:
                enrol_pb2_grpc.add_EnrolServicer_to_server(self, server)
            address = f"127.0.0.1:{self.ports[index]}"
            bound = add_secure_port(server, address, self.tls, require_client_certificate=needs_certificate)
            self.ports[index] = bound.port
            await server.start()
            self._servers.append(server)

    async def _kill(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            await server.stop(None)

    def _issue(self, pilot: str, csr_pem: bytes) -> bytes:
        now_ms = time.time_ns() // 1_000_000
        lifetime_ms = (
            max(600, self.cluster.lifetime_s) * 1_000
        )  # A pilot may be late, where a machine is busy.
        certificate = self.authority.issue(
            csr_pem, kind=IdentityKind.PILOT, name=pilot, now_ms=now_ms, lifetime_ms=lifetime_ms
        )
        self.cluster.issued_at_s.append(time.monotonic())
        self.cluster.issued.append(certificates.to_pem(certificate))
        return certificates.to_pem(certificate, self.authority.certificate)

    async def EnrolPilot(self, request: Any, context: Any) -> enrol_pb2.EnrolPilotReply:
        if request.secret != SECRET:
            raise NotAllowed("this secret is not valid for this name")
        if not self.enrols:
            self.turned_away += 1
            raise Unavailable("this node has no quorum")
        self.cluster.enrolled.append(request.pilot)
        return enrol_pb2.EnrolPilotReply(
            chain_pem=self._issue(request.pilot, request.csr_pem),
            root_pem=self.cluster.root_pem,
            cluster=CLUSTER,
            nodes=[node.address for node in self.cluster.nodes],
            lifetime_s=self.cluster.lifetime_s,
        )

    async def Renew(self, request: Any, context: Any) -> pilot_pb2.RenewReply:
        self._admit(context)
        pilot = peer_identity(context).name
        return pilot_pb2.RenewReply(
            chain_pem=self._issue(pilot, request.csr_pem), lifetime_s=self.cluster.lifetime_s
        )

    async def Exchange(self, request: Any, context: Any) -> pilot_pb2.ExchangeReply:
        self._admit(context)
        self.cluster.shown.append(b"".join(context.auth_context()["x509_pem_cert"]))
        await asyncio.sleep(self.slow_s)
        while self.deaf.is_set():
            await asyncio.sleep(0.05)
        if self.unsure:
            raise Unavailable("this node has no quorum")
        self.cluster.exchanges.append((self.node_id, request))
        held = [report for report in request.reports if self._holds_files_of(report)]
        if request.reports and not held:
            raise Unavailable("no report could be taken now")
        del request.reports[:]
        request.reports.extend(held)
        reply = self.cluster.exchange(request)
        if self.lose_replies and request.reports:
            self.lose_replies -= 1
            raise Unavailable("the reply was lost on the way")
        return reply

    def _holds_files_of(self, report: pilot_pb2.Report) -> bool:
        files = (*report.finished.files, *report.failed.files)
        return all(entry.sha256 in self.holds for entry in files)

    async def Resolve(self, request: Any, context: Any) -> pilot_pb2.ResolveReply:
        self._admit(context)
        reply = pilot_pb2.ResolveReply()
        for name in request.names:
            entry = self.cluster.files.get((request.dataset, name))
            reply.files.add(name=name, found=entry is not None, file=entry)
        return reply

    async def GetSoftware(self, request: Any, context: Any) -> pilot_pb2.SoftwareReply:
        self._admit(context)
        builds = self.cluster.software.get((request.name, request.version))
        if builds is None:
            raise NotFound(f"there is no software {request.name!r} version {request.version!r}")
        return pilot_pb2.SoftwareReply(builds=builds)

    async def GetCredentials(self, request: Any, context: Any) -> pilot_pb2.CredentialsReply:
        self._admit(context)
        return handed_credentials(self.cluster.credentials)

    async def GetBlob(self, request: Any, context: Any) -> Any:
        self._admit(context)
        content = self.cluster.blobs.get(request.sha256)
        self.cluster.fetched.append(request.sha256)
        if content is None:
            raise NotFound(f"no site has the blob {request.sha256[:12]}")
        for offset in range(request.offset, len(content), 65_536):
            yield common_pb2.Chunk(body=content[offset : offset + 65_536], offset=offset)

    async def PutBlob(self, request_iterator: Any, context: Any) -> common_pb2.BlobReply:
        self._admit(context)
        content = b"".join([part.chunk.body async for part in request_iterator])
        digest = self.cluster.put(content)
        self.holds.add(digest)
        self.unsure = self.unsure or self.unsure_once_it_holds
        return common_pb2.BlobReply(sha256=digest, size_bytes=len(content))

    def _admit(self, context: Any) -> None:
        identity = peer_identity(context)
        assert identity.kind is IdentityKind.PILOT
        self.cluster.pilots.add(identity.name)


def write_config(directory: Path, cluster: FakeCluster, **changes: Any) -> Path:
    """Write a pilot's configuration and secret as a keeper does; return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    secret = directory / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    nodes = [
        {
            "node_id": address.node_id,
            "site": address.site,
            "address": address.address,
            "server_name": address.server_name,
            "enrol_address": address.enrol_address,
        }
        for address in (node.address for node in cluster.nodes)
    ]
    config = {
        "pilot": "p-test",
        "site": "home",
        "cluster": CLUSTER,
        "secret_file": str(secret),
        "root_fingerprint": certificates.fingerprint(cluster.root.certificate),
        "root_pem": cluster.root_pem.decode(),
        "nodes": nodes,
        "resource_class": "default",
        "slots": 2,
        "cpus": 2,
        "gpus": 0,
        "memory_mib": 2_048,
        "disk_mib": 4_096,
        "walltime_s": 600,
        "attributes": ["loopback"],
        "idle_end_s": 30,
        "grace_s": 4,
        "work_dir": str(directory / "work"),
        "state_dir": str(directory / "state"),
        "cache_dir": str(directory / "cache"),
        **changes,
    }
    path = directory / "pilot.json"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


def found(directory: Path, pattern: str) -> list[Path]:
    """Return what lies there; for directories that somebody is removing, where a plain `glob` may fail."""
    while True:
        try:
            return list(directory.glob(pattern))
        except FileNotFoundError:
            continue


def document(cluster: FakeCluster, *tasks: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    """Return a steering document; the text of a module's "script" or "python" becomes a blob that is its source."""
    for task in tasks:
        for tray in task["trays"]:
            for index, module in enumerate(tray["modules"]):
                for kind, ending in (("script", "sh"), ("python", "py")):
                    if kind in module:
                        digest = cluster.put(module.pop(kind).encode())
                        module["src"] = f"iceprod://sha256/{digest}/module{index}.{ending}"
    return {"format": "iceprod-p2p/1", "steering": {"parameters": parameters}, "tasks": list(tasks)}
