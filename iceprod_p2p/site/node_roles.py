"""The roles of one node, with their intervals, and the words between them."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Final, Protocol

import iceprod_p2p
from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.grids.base import Grid
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import RenewNode
from iceprod_p2p.ledger.versions import AUTHORITIES_TOLD
from iceprod_p2p.model.site import Member, SiteCounts
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.security.certificates import fingerprint, to_der
from iceprod_p2p.security.random import Jitter
from iceprod_p2p.site.blob_keeper import BlobKeeper
from iceprod_p2p.site.capacity import Capacity
from iceprod_p2p.site.cluster_view import ClusterView
from iceprod_p2p.site.control_service import ControlService
from iceprod_p2p.site.credential_watch import CredentialWatch
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.site.grid_jobs import GridJobBook
from iceprod_p2p.site.janitor import Janitor
from iceprod_p2p.site.keeper import Keeper
from iceprod_p2p.site.lost_pilots import LostPilots
from iceprod_p2p.site.newcomer import Newcomer
from iceprod_p2p.site.node_keys import NodeKeys
from iceprod_p2p.site.orders import Orders
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.site.people import People
from iceprod_p2p.site.pilot_board import PilotBoard
from iceprod_p2p.site.pilot_files import PilotKit
from iceprod_p2p.site.releases import announce_versions
from iceprod_p2p.site.renewal import KeyRenewal
from iceprod_p2p.site.replicas import Replicas
from iceprod_p2p.site.roles import Role, Roles
from iceprod_p2p.site.scrub import Scrub
from iceprod_p2p.site.spare_memory import SpareMemory
from iceprod_p2p.site.stock import Stock
from iceprod_p2p.site.timekeeper import SiteHeartbeat, Timekeeper
from iceprod_p2p.site.trimmer import Trimmer
from iceprod_p2p.site.volunteer import Volunteer
from iceprod_p2p.store.blobs import BlobStore

STOCK_S: Final = 1.0  # Resets and takeovers shrink the stock; a claim of ours refreshes it at once.
REPLICAS_S: Final = 0.5
LOST_S: Final = 2.0
JANITOR_S: Final = 300.0
NEWCOMER_S: Final = 1.0
SCRUB_S: Final = 2.0
RENEWAL_S: Final = 2.0  # What an administrator asks for is done soon.
PEOPLE_S: Final = 5.0
CREDENTIAL_S: Final = 60.0
MEMORY_S: Final = 2.0
KEEPER_S_LEAST: Final = 2.0  # Claims hurry the keeper at most so often: batch systems dislike being asked.
HUNGRY_S: Final = 0.05  # Pilots that find nothing wake the volunteer at most so often,
CROWD_S: Final = 2e-5  # and so much less often for each pilot, all of which it looks at.
log = get_logger("roles")


class NodeParts(Protocol):
    """What the roles use of a node; all of it is built before they are."""

    config: SiteConfig
    clock: Clock
    grid: Grid
    raft: RaftNode
    cluster: ClusterView
    book: GridJobBook
    board: PilotBoard
    stock: Stock
    capacity: Capacity
    kit: PilotKit
    orders: Orders
    replicas: Replicas
    files: FileService
    blobs: BlobStore
    peers: Peers
    people: People
    control: ControlService
    disk: ThreadPoolExecutor
    grid_thread: ThreadPoolExecutor

    def keys(self) -> NodeKeys:
        """The node's present keys."""
        ...

    def take_keys(self, keys: NodeKeys) -> None:
        """Go on with other keys."""
        ...


class NodeRoles:
    """Builds and runs the roles of a node; used on its event loop."""

    def __init__(self, node: NodeParts) -> None:
        self._node = node
        config = node.config
        name, site = config.node.id, config.node.site
        self.roles = Roles(chance=Jitter().random)
        self.timekeeper = Timekeeper(
            node_id=name, consensus=node.raft, cluster=node.cluster, clock=node.clock
        )
        self.heartbeat = SiteHeartbeat(
            site=site,
            node_id=name,
            consensus=node.raft,
            cluster=node.cluster,
            counts=self._counts,
            vouched=lambda: node.board.vouched(within_s=4 * config.node.heartbeat_s + 30),
        )
        self.trimmer = self._trimmer()
        self.volunteer = Volunteer(
            site=site,
            node_id=name,
            ahead=config.queue.claims_ahead,
            pause_s=config.node.claim_interval_s,
            capacity=node.capacity,
            stock=node.stock,
            consensus=node.raft,
            cluster=node.cluster,
            clock=node.clock,
            has_disk=self._has_disk,
            granted=self._granted,
        )
        self.keeper = Keeper(
            config,
            node.grid,
            node.kit,
            node.book,
            node.capacity,
            node.stock,
            node.raft,
            node.cluster,
            node.grid_thread,
            node.clock,
        )
        self.lost = LostPilots(
            site=site,
            node_id=name,
            book=node.book,
            board=node.board,
            consensus=node.raft,
            cluster=node.cluster,
            clock=node.clock,
        )
        self.janitor = Janitor(
            book=node.book,
            board=node.board,
            orders=node.orders,
            blobs=node.blobs,
            scratch_dir=config.system.scratch_dir,
            cluster=node.cluster,
            consensus=node.raft,
            site=site,
            node_id=name,
            temp_grace_s=lambda: node.config.blobs.temp_grace_s,
            executor=node.disk,
            clock=node.clock,
        )
        self.newcomer = Newcomer(
            node_id=name,
            data_dir=config.node.data_dir,
            consensus=node.raft,
            cluster=node.cluster,
            blobs=node.blobs,
        )
        self.credential = CredentialWatch(config.queue, node.clock)
        self.blob_keeper = BlobKeeper(
            node_id=name,
            files=node.files,
            consensus=node.raft,
            copies=lambda: node.config.blobs.copies + 1,
        )
        self.renewal = self._made_renewal()
        self._add_all()
        self._disk_is_low = False
        self._hungry_at_s = float("-inf")
        self._kept_at_s = float("-inf")

    def _made_renewal(self) -> KeyRenewal:
        node, config = self._node, self._node.config
        return KeyRenewal(
            node,
            data_dir=config.node.data_dir,
            consensus=node.raft,
            nodes=node.cluster.nodes,
            peers=node.peers,
            ask=node.control.status.ask,
            introduce=self._introduce,
            pilot_lifetime_ms=config.node.pilot_certificate_s * 1_000,
            person_lifetime_ms=int(config.people.certificate_h * 3_600_000),
            vouches=config.people.vouch,
            clock=node.clock,
        )

    def _add_all(self) -> None:
        times = self._node.config.node
        self.roles.add(Role("timekeeper", times.tick_ms / 1_000, self.timekeeper.tick))
        self.roles.add(Role("heartbeat", times.heartbeat_s, self.heartbeat.beat))
        self._volunteer = self.roles.add(Role("volunteer", times.claim_interval_s, self.volunteer.step))
        self._keeper = self.roles.add(Role("keeper", self._node.config.queue.interval_s, self.keeper.step))
        self.roles.add(Role("lost pilots", LOST_S, self.lost.step))
        self.roles.add(Role("stock", STOCK_S, self._refresh_stock))
        self.roles.add(Role("replicas", REPLICAS_S, self._node.replicas.step))
        blobs = self._node.config.blobs
        self.roles.add(Role("blobs", blobs.interval_s, self.blob_keeper.step))
        self.roles.add(Role("trimmer", blobs.interval_s, self.trimmer.step))
        self.roles.add(Role("janitor", min(JANITOR_S, max(1.0, blobs.temp_grace_s)), self.janitor.step))
        self.roles.add(Role("renewal", RENEWAL_S, self.renewal.step))
        self.roles.add(Role("people", PEOPLE_S, self._node.people.step))
        self.roles.add(Role("scrub", SCRUB_S, Scrub(self._node.raft).step))
        self.roles.add(Role("newcomer", NEWCOMER_S, self.newcomer.step))
        self.roles.add(Role("credential", CREDENTIAL_S, self.credential.step))
        self.roles.add(Role("memory", MEMORY_S, SpareMemory().step))
        self.roles.add(Role("introduction", 10.0, self._introduce))

    def _trimmer(self) -> Trimmer:
        node = self._node
        return Trimmer(
            site=node.config.node.site,
            node_id=node.config.node.id,
            blobs=node.blobs,
            cluster=node.cluster,
            consensus=node.raft,
            size_mib=lambda: node.config.blobs.trimmed_mib,
            size_max_mib=lambda: node.config.blobs.size_max_mib,
            copies=lambda: node.config.blobs.copies,
            executor=node.disk,
            clock=node.clock,
        )

    def use(self, config: SiteConfig) -> None:
        """Go on with a changed configuration, and look at the batch system at once."""
        self.keeper.use(config)
        self.credential.use(config.queue)
        self.volunteer.use(config.queue.claims_ahead)
        self._keeper.interval_s = config.queue.interval_s
        self._keeper.wake.set()

    def problems(self) -> list[str]:
        """Return what is wrong with this node's work, one sentence each."""
        own = [*self.roles.problems(), *self.keeper.problems(), *self.credential.problems()]
        return [*own, *self.renewal.problems(), *self._node.files.problems(), *self.trimmer.problems()]

    def start(self) -> None:
        """Start all roles."""
        self.roles.start()

    async def stop(self) -> None:
        """End all roles."""
        await self.roles.stop()

    def hungry(self) -> None:
        """Hear that a pilot found no work: the volunteer looks at once, but not for each pilot anew."""
        now_s = self._node.clock.monotonic_s()
        if now_s - self._hungry_at_s >= HUNGRY_S + CROWD_S * len(self._node.board):
            self._hungry_at_s = now_s
            self._volunteer.wake.set()

    def _granted(self) -> None:
        """Hear that tasks were claimed: if no pilot is free for them, the keeper need not wait for its
        interval.
        """
        if self._node.clock.monotonic_s() - self._kept_at_s >= KEEPER_S_LEAST:
            self._kept_at_s = self._node.clock.monotonic_s()
            self._keeper.wake.set()

    async def _refresh_stock(self) -> None:
        self._node.stock.refresh()

    async def _introduce(self) -> None:
        """Tell the ledger this node's certificate and addresses when they are not what it has."""
        node, keys = self._node.config.node, self._node.keys()
        record = self._node.cluster.node_record(node.id)
        if record is None:
            return
        await announce_versions(self._node.raft, record)
        mark = bytes.fromhex(fingerprint(keys.certificate))
        present = (record.fingerprint, record.member.address, record.enrol_address, record.server_name)
        told, signs_with = await asyncio.to_thread(self._authorities, keys)
        if told == signs_with and present == (mark, node.advertise, node.advertise_enrol, keys.server_name):
            return
        member = Member(node.id, node.site, node.advertise, record.member.role)
        command = RenewNode(member, mark, node.advertise_enrol, keys.server_name, *signs_with)
        await self._node.raft.propose(command, actor=f"node:{node.id}")
        log.info("node introduced", node=node.id, address=node.advertise)

    def _authorities(self, keys: NodeKeys) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """Return what the ledger was told of the authorities that this node signs with, and what is so."""
        with self._node.raft.view() as kv:
            if queries.version(kv) < AUTHORITIES_TOLD:
                return (b"", b""), (b"", b"")
            told = queries.node_authorities(kv).get(keys.node_id, (b"", b""))
        site = sha256(to_der(keys.authority.certificate)).digest()
        if keys.people is None:
            return told, (site, told[1])
        return told, (site, sha256(to_der(keys.people.certificate)).digest())

    def _counts(self) -> SiteCounts:
        config = self._node.config
        return self._node.capacity.counts(
            grid=config.queue.plugin,
            attributes=tuple(sorted({word for kind in config.queue.classes for word in kind.attributes})),
            version=iceprod_p2p.__version__,
        )

    def _has_disk(self) -> bool:
        config = self._node.config
        free = shutil.disk_usage(config.node.data_dir).free >> 20
        low = free < config.system.free_disk_mib_least
        if low is not self._disk_is_low:  # Said when it changes: the volunteer asks several times a second.
            self._disk_is_low = low
            if low:
                log.warning("disk nearly full, no work is taken", free_mib=free)
            else:
                log.info("disk has room again", free_mib=free)
        return not low and not self.trimmer.is_over
