"""One site's node: every object built once, started and stopped in order.

    store -> Raft -> cluster view -> files -> pilots, people, enrolment -> ports -> roles

The ports open when Raft runs, and close before it ends, so nobody is served by half a node.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc.aio

from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError, IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.base.toml_lines import key_lines, line_of
from iceprod_p2p.grids import registry
from iceprod_p2p.grids.base import Grid
from iceprod_p2p.model.identity import Identity
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.raft.transport import PeerTransport
from iceprod_p2p.security.certificates import chain_from_pem
from iceprod_p2p.security.directory import DirectoryServer
from iceprod_p2p.security.keyfiles import make_private_directory
from iceprod_p2p.security.tokens import TokenIssuer
from iceprod_p2p.site.backups import Backups
from iceprod_p2p.site.capacity import Capacity
from iceprod_p2p.site.cluster_facts import ClusterFacts
from iceprod_p2p.site.cluster_view import ClusterView
from iceprod_p2p.site.control_service import ControlService
from iceprod_p2p.site.enrol_service import EnrolService
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.site.founding import RAFT_DIRECTORY
from iceprod_p2p.site.grid_desk import GridDesk
from iceprod_p2p.site.grid_jobs import GridJobBook
from iceprod_p2p.site.grid_probe import GridProbe
from iceprod_p2p.site.interceptors import AccessInterceptor
from iceprod_p2p.site.issuing import RootDesk
from iceprod_p2p.site.keeper import PILOTS_DIRECTORY
from iceprod_p2p.site.node_keys import NodeKeys, load_keys, save_certificate
from iceprod_p2p.site.node_roles import NodeRoles
from iceprod_p2p.site.orders import Orders
from iceprod_p2p.site.peer_service import PeerService
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.site.people import People
from iceprod_p2p.site.pilot_board import PilotBoard
from iceprod_p2p.site.pilot_files import PilotKit
from iceprod_p2p.site.pilot_service import PilotService, PilotTimes
from iceprod_p2p.site.raft_timing import raft_settings
from iceprod_p2p.site.readmission import Readmission
from iceprod_p2p.site.replicas import Replicas
from iceprod_p2p.site.room import room_of
from iceprod_p2p.site.site_calls import SiteCalls
from iceprod_p2p.site.stock import Stock
from iceprod_p2p.site.url_copies import UrlCopies
from iceprod_p2p.store.blobs import BlobStore
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.wire.channel import TlsMaterial, add_secure_port, new_server
from iceprod_p2p.wire.interceptors import ErrorInterceptor
from iceprod_p2p.wire.pb import control_pb2_grpc, enrol_pb2_grpc, peer_pb2_grpc, pilot_pb2_grpc

ENROL_CALLS_MAX: Final = 64
ENROL_STREAMS: Final = {"grpc.max_concurrent_streams": 2}  # Newcomers ask one thing after the other.
STOP_GRACE_S: Final = 3.0
log = get_logger("node")


class SiteNode:
    """A node that can be started once and stopped once, on one event loop.

    The constructor opens the store and checks keys, grid and directories; it raises before anything runs.
    """

    def __init__(self, config: SiteConfig, *, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        node = config.node
        self._keys = load_keys(node.data_dir, cluster=node.cluster, site=node.site, node_id=node.id)
        self._renew_certificate()
        self.grid = make_grid(config)
        if config.queue.shared_directory:  # Otherwise they are the worker nodes'.
            for directory in (config.system.scratch_dir, config.system.cache_dir):
                make_private_directory(directory)
        self.book = GridJobBook(node.data_dir / PILOTS_DIRECTORY)
        self.blobs = BlobStore(node.data_dir / "blobs")
        self.environment = Environment(node.data_dir / RAFT_DIRECTORY)
        self.disk = ThreadPoolExecutor(4, thread_name_prefix="disk")
        self.grid_thread = ThreadPoolExecutor(1, thread_name_prefix="grid")  # One call at a time.
        self._build_consensus()
        self._build_services()
        self._servers: list[grpc.aio.Server] = []
        self.roles = NodeRoles(self)

    # Building.

    def _build_consensus(self) -> None:
        node = self.config.node
        self.transport = PeerTransport(node.id, node.cluster, tls=self.tls, admit=self._admit_link)
        self.raft = RaftNode(
            node.id,
            environment=self.environment,
            links=self.transport,
            settings=raft_settings(self.config),
            clock=self.clock,
            on_failed=lambda reason: log.error("raft ended", node=node.id, reason=reason),
        )
        self._roots = chain_from_pem(self._keys.root_pem)
        self.facts = ClusterFacts(
            self.raft, cluster=node.cluster, roots=lambda: self._roots, clock=self.clock
        )
        self.cluster = ClusterView(self.raft, self.facts, cluster=node.cluster, clock=self.clock)
        self.peers = Peers(node_id=node.id, tls=self.tls, known=self.cluster.nodes)

    def _build_services(self) -> None:
        config, node = self.config, self.config.node
        self.replicas = Replicas(site=node.site, node_id=node.id, consensus=self.raft)
        self.files = FileService(
            *(self.blobs, self.peers, self.disk),
            holders=lambda sha256: self.cluster.holders(sha256, but=node.id),
            fetched=self.replicas.fetched,
            sizes=self.cluster.size_of,
            room=room_of(lambda: self.config),
        )
        self.board = PilotBoard(self.clock)
        self.stock = Stock(lambda: self.cluster.claimed(node.site))
        self.capacity = Capacity(config.queue, self.book, self.board)
        self.orders = Orders(
            site=node.site,
            stock=self.stock,
            consensus=self.raft,
            cluster=self.cluster,
            signer=lambda: self._keys.signer,
            lifetime_ms=node.passkey_lifetime_s * 1_000,
            system=config.system.parameters,
            environment=config.environment,
            clock=self.clock,
        )
        self.kit = PilotKit(config, self._keys.root_pem)
        calls = SiteCalls(
            site=node.site, node_id=node.id, cluster=self.cluster, executor=self.disk, clock=self.clock
        )
        self.pilots = PilotService(
            site=node.site,
            calls=calls,
            board=self.board,
            stock=self.stock,
            orders=self.orders,
            files=self.files,
            consensus=self.raft,
            cluster=self.cluster,
            authority=lambda: self._keys.authority,
            root_pem=lambda: self._keys.root_pem,
            times=PilotTimes(node.pilot_poll_s, node.pilot_certificate_s * 1_000),
            clock=self.clock,
            only_gpu_tasks=self._only_gpu_tasks,
            resolved=self.replicas.resolved,
            hungry=lambda: self.roles.hungry(),
            credentials=config.transfers.handed_out,
        )
        self._build_ways_in()
        self.control = ControlService(
            config=node,
            raft=self.raft,
            cluster=self.cluster,
            files=self.files,
            peers=self.peers,
            people=self.people,
            keys=self.keys,
            backups=Backups(
                raft=self.raft, environment=self.environment, node_id=lambda: node.id, clock=self.clock
            ),
            urls=UrlCopies(config.transfers.credentials, private=node.data_dir),
            problems=lambda: self.roles.problems(),
            copies=config.blobs,
            progress=self.board.progress,
            grids=self._build_grid_desk(),
            clock=self.clock,
            external=config.external,
        )

    def _build_ways_in(self) -> None:
        config, node = self.config, self.config.node
        self.people = People(
            keys=self.keys,
            data_dir=node.data_dir,
            lifetime_ms=int(config.people.certificate_h * 3_600_000),
            consensus=self.raft,
            cluster=self.cluster,
            clock=self.clock,
            directory=DirectoryServer(config.directory) if config.directory.url else None,
            tokens=TokenIssuer(config.tokens, self.clock) if config.tokens.issuer else None,
        )
        readmission = Readmission(
            keys=self.keys,
            consensus=self.raft,
            cluster=self.cluster,
            answers=self._answers,
            clock=self.clock,
        )
        self.enrol = EnrolService(
            keys=self.keys,
            readmission=readmission,
            people=self.people,
            book=self.book,
            consensus=self.raft,
            cluster=self.cluster,
            pilot_lifetime_ms=node.pilot_certificate_s * 1_000,
            clock=self.clock,
        )

    def _build_grid_desk(self) -> GridDesk:
        probe = GridProbe(
            config=lambda: self.config,
            grid=self.grid,
            kit=self.kit,
            directory=self.config.node.data_dir / PILOTS_DIRECTORY,
            cluster=self.cluster,
            executor=self.grid_thread,
            clock=self.clock,
        )
        self.grids = GridDesk(
            config=lambda: self.config,
            book=self.book,
            board=self.board,
            cluster=self.cluster,
            peers=self.peers,
            probe=probe,
            problems=lambda: self.roles.problems(),
            clock=self.clock,
        )
        return self.grids

    # Life.

    async def start(self) -> None:
        """Start everything; when something cannot start, what did is stopped again and the error raised."""
        try:
            await self.raft.start()
            await self._open_ports()
        except BaseException:
            await self.stop()
            raise
        self.roles.start()
        log.info("node started", node=self.config.node.id, site=self.config.node.site, address=self.address)

    async def stop(self) -> None:
        """Stop in order: no new orders, roles, ports, Raft (which hands leadership over), store.  Pilots run
        on.
        """
        self.pilots.stopping = True
        await self.roles.stop()
        await asyncio.gather(*(server.stop(STOP_GRACE_S) for server in self._servers))
        await self.peers.close()
        await self.raft.stop()
        self.people.close()
        self.disk.shutdown(wait=True, cancel_futures=True)
        self.grid_thread.shutdown(wait=True, cancel_futures=True)
        self.environment.close()
        log.info("node stopped", node=self.config.node.id)

    async def _open_ports(self) -> None:
        node = self.config.node
        admission = AccessInterceptor(self.cluster, self.clock)
        main = new_server(interceptors=[ErrorInterceptor(), admission], concurrent_calls_max=node.calls_max)
        peer = PeerService(
            files=self.files,
            transport=self.transport,
            status=self.control.status,
            verification=self.control.verification,
            dataset_number=self.cluster.dataset_number,
            grids=self.grids,
            root_desk=RootDesk(keys=self.keys, cluster=self.cluster, clock=self.clock),
        )
        peer_pb2_grpc.add_PeerServicer_to_server(peer, main)
        pilot_pb2_grpc.add_PilotsServicer_to_server(self.pilots, main)
        control_pb2_grpc.add_ControlServicer_to_server(self.control, main)
        anonymous = AccessInterceptor(self.cluster, self.clock, anonymous=True)
        enrol = new_server(
            interceptors=[ErrorInterceptor(), anonymous],
            concurrent_calls_max=ENROL_CALLS_MAX,
            options=ENROL_STREAMS,
        )
        enrol_pb2_grpc.add_EnrolServicer_to_server(self.enrol, enrol)
        self.address = str(add_secure_port(main, node.listen, self.tls, require_client_certificate=True))
        self.enrol_address = str(
            add_secure_port(enrol, node.enrol_listen, self.tls, require_client_certificate=False)
        )
        for server in (main, enrol):
            await server.start()
            self._servers.append(server)

    def reload(self, config: SiteConfig) -> None:
        """Go on with another [queue], [system], [environment] and [log].

        ConfigError names what cannot change while the node runs; then nothing has changed.
        """
        fixed = _fixed_parts(self.config, config)
        if fixed:
            raise ConfigError(
                f"{', '.join(fixed)} cannot change while the node runs",
                remedy="restart the node: pilots run on",
            )
        self.config = self.kit.config = config
        self.capacity.use(config.queue)
        self.orders.use(config.system.parameters, config.environment)
        self.roles.use(config)

    # What the parts ask of each other.

    def keys(self) -> NodeKeys:
        """The node's present keys and certificates."""
        return self._keys

    def tls(self) -> TlsMaterial:
        """What the node shows and trusts now; quick, from any thread."""
        return self._keys.tls

    def take_keys(self, keys: NodeKeys) -> None:
        """Go on with other keys and roots: every connection from now on uses them."""
        self._keys = keys
        self._roots = chain_from_pem(keys.root_pem)
        self.kit.root_pem = keys.root_pem

    def _renew_certificate(self) -> None:
        renewed = self._keys.renewed(now_ms=self.clock.wall_ms())
        if renewed is not self._keys:
            save_certificate(self.config.node.data_dir, renewed)
            self._keys = renewed
            log.info("certificate renewed", node=renewed.node_id)

    def _admit_link(self, identity: Identity) -> None:
        self.cluster.admit_link(identity, now_ms=self.clock.wall_ms())

    async def _answers(self, node_id: str) -> bool:
        known = next((node for node in self.cluster.nodes() if node.node_id == node_id), None)
        return known is not None and await self.control.status.takes_part(known)

    def _only_gpu_tasks(self, resource_class: str) -> bool:
        kind = self.config.queue.resource_class(resource_class)
        return kind is not None and kind.gpus > 0 and kind.gpu_tasks_only


def _fixed_parts(old: SiteConfig, new: SiteConfig) -> list[str]:
    """Return the settings that differ and that a running node was built with."""
    changed = [
        f"{section} {name}"
        for section, before, after in (("[node]", old.node, new.node), ("[people]", old.people, new.people))
        for name in before.__dataclass_fields__
        if getattr(before, name) != getattr(after, name)
    ]
    if (old.queue.plugin, old.queue.options) != (new.queue.plugin, new.queue.options):
        changed.append("the grid plugin and its options")
    for name in ("scratch_dir", "cache_dir"):
        if getattr(old.system, name) != getattr(new.system, name):
            changed.append(f"[system] {name}")
    return changed


def make_grid(config: SiteConfig) -> Grid:
    """Make the grid plugin that the configuration names; ConfigError names every wrong option."""
    options: dict[str, Any] = dict(config.queue.options)
    try:
        lines = key_lines(config.path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        lines = {}  # Read long ago; the fault is told without its line.
    try:
        plugin = registry.load(config.queue.plugin)
    except ConfigError as fault:
        where = f"{config.path}: line {line_of(lines, ('queue', 'plugin'))}: queue.plugin"
        raise ConfigError(f"{where}: {fault.message}", remedy=fault.remedy) from fault
    if any((setting.name, setting.kind) == ("spool", "path") for setting in plugin.OPTIONS):
        options.setdefault("spool", str(config.node.data_dir / "grid"))
    if config.queue.credential:
        _give_credential(options, plugin, config.queue.credential)
    try:
        return registry.create(config.queue.plugin, options, lines=lines)
    except ConfigError as fault:
        raise ConfigError(f"{config.path}: {fault.message}", remedy=fault.remedy) from fault
    except OSError as fault:
        raise IceProdError(f"grid plugin {config.queue.plugin} cannot be used: {fault}") from fault


def _give_credential(options: dict[str, Any], plugin: type[Grid], path: str) -> None:
    """Tell the plugin where the site's credential is, or its commands, by the variables that all of them know."""
    names = {setting.name for setting in plugin.OPTIONS}
    path = str(Path(path).expanduser())
    if "credential" in names:
        options.setdefault("credential", path)
    elif "environment" in names and isinstance(options.get("environment", {}), dict):
        known = {"X509_USER_PROXY": path, "BEARER_TOKEN_FILE": path}
        options["environment"] = {**known, **options.get("environment", {})}
