"""The node's side of its pilots: reports in, orders out, files both ways, certificates anew.

One exchange does everything at once: its reports and its new starts are proposed together and share a log
entry with those of other pilots.  Nothing is acknowledged before the ledger's outcome is known here, and no
order is told before its start is.  An idle pilot's call waits up to a second for work, so that it neither
spins nor sleeps through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed, NotFound, Unavailable
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.ledger.outcome import Applied, Outcome
from iceprod_p2p.model.identity import Identity, IdentityKind
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import expires_ms
from iceprod_p2p.security.identity import peer_identity
from iceprod_p2p.security.passkeys import PasskeyRefused
from iceprod_p2p.site.consensus import Consensus
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.site.handed_credentials import handed_credentials
from iceprod_p2p.site.orders import Orders
from iceprod_p2p.site.pilot_board import PilotBoard, PilotNote
from iceprod_p2p.site.plans.orders import Room
from iceprod_p2p.site.reports import Edge, Proposed, read_report, ref_of, ref_to
from iceprod_p2p.site.site_calls import SiteCalls
from iceprod_p2p.site.software import software_builds
from iceprod_p2p.site.stock import Stock
from iceprod_p2p.wire import translate
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2, pilot_pb2_grpc

REPORTS_MAX: Final = 1_024  # In one exchange.
RUNNING_MAX: Final = 8_192
NAMES_MAX: Final = 1_024
PROPOSE_S: Final = 6.0  # Shorter than a pilot waits for its exchange.
BUSY_POLL_S: Final = 0.05  # A pilot that runs something must be able to report soon.
log = get_logger("pilots")


class Standing(StrEnum):
    """What the ledger says of an attempt that a pilot names."""

    MINE = "mine"
    OVER = "over"  # Another attempt, another holder, or an end: it must stop.
    UNKNOWN = "unknown"  # This node may lag behind the one that gave it.


class PilotView(Protocol):
    """What is read of the ledger."""

    def edge(self) -> Edge:
        """What passkeys are checked against."""
        ...

    def standing(self, refs: Sequence[TaskRef], holder: bytes) -> dict[TaskRef, tuple[Standing, str]]:
        """How each attempt stands, and the site that holds it."""
        ...

    def draining(self, site: str) -> bool:
        """Whether a site takes no new work."""
        ...

    def leases_ended(self, site: str) -> bool:
        """Whether a site was silent for so long that it lost what it held."""
        ...

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node that can be called."""
        ...

    def find_files(self, request: pilot_pb2.FindFilesRequest) -> pilot_pb2.FindFilesReply:
        """A page of files by a pattern of their names."""
        ...

    def resolve(self, dataset: int, job: int, names: Sequence[str]) -> list[pilot_pb2.ResolvedFile]:
        """What was recorded of logical names."""
        ...


@dataclass(frozen=True, slots=True)
class PilotTimes:
    """How often pilots are asked to call."""

    poll_s: float
    certificate_ms: int
    long_poll_s: float = 1.0  # How long a call of an idle pilot waits for work.


class PilotService(pilot_pb2_grpc.PilotsServicer):  # type: ignore[misc]
    """Serves any pilot of the cluster whose certificate stands; used on the event loop only."""

    def __init__(
        self,
        *,
        site: str,
        board: PilotBoard,
        stock: Stock,
        orders: Orders,
        files: FileService,
        consensus: Consensus,
        cluster: PilotView,
        authority: Callable[[], Authority],
        root_pem: Callable[[], bytes],
        times: PilotTimes,
        clock: Clock,
        only_gpu_tasks: Callable[[str], bool],
        calls: SiteCalls,
        resolved: Callable[[Sequence[tuple[str, int, int, str]]], None],
        hungry: Callable[[], None],
        credentials: str = "",
    ) -> None:
        """`credentials` is the file that pilots of this site get, empty where they get none.  `resolved` hears
        (sha256, dataset, job, name) of what pilots will fetch, for the records of replicas; `hungry` hears that
        a pilot had room and found no task.
        """
        self._site = site
        self._board = board
        self._stock = stock
        self._orders = orders
        self._files = files
        self._consensus = consensus
        self._cluster = cluster
        self._authority = authority
        self._root_pem = root_pem
        self._times = times
        self._clock = clock
        self._only_gpu_tasks = only_gpu_tasks
        self._calls = calls
        self._resolved = resolved
        self._hungry = hungry
        self._credentials = credentials
        self.stopping = False  # The node goes down: no more orders, no more waiting.

    async def Exchange(self, request: pilot_pb2.ExchangeRequest, context: Any) -> pilot_pb2.ExchangeReply:
        """Take reports, give orders, name what must stop."""
        identity = peer_identity(context)
        if len(request.reports) > REPORTS_MAX or len(request.running) > RUNNING_MAX:
            raise BadInput(
                f"one exchange holds at most {REPORTS_MAX} reports and {RUNNING_MAX} running tasks"
            )
        note = self._note(identity, request)
        stop = self._standing(identity, request)
        acks, orders = await asyncio.gather(
            self._reports(identity, request), self._give(identity, note, request), return_exceptions=True
        )
        if isinstance(acks, BaseException):
            raise acks
        if isinstance(orders, BaseException):
            # Reports that were taken are acknowledged; the orders come with the pilot's next exchange.
            if not isinstance(orders, IceProdError):
                raise orders
            log.warning("no orders given", pilot=identity.name, error=str(orders))
            if not acks:
                raise orders
            orders = []
        if not (acks or orders or stop):
            orders = await self._wait_for_work(identity, note, request)
        self._board.gave(note, (ref_of(order.ref) for order in orders))
        return pilot_pb2.ExchangeReply(
            acks=acks,
            orders=orders,
            stop=[ref_to(ref) for ref in stop],
            nodes=self._cluster.nodes(),
            drain=self._cluster.draining(self._site) and identity.site == self._site,
            poll_ms=self._poll_ms(request),
        )

    async def Resolve(self, request: pilot_pb2.ResolveRequest, context: Any) -> pilot_pb2.ResolveReply:
        """Say what was recorded of logical names; read after everything that was acknowledged before."""
        if len(request.names) > NAMES_MAX:
            raise BadInput(f"at most {NAMES_MAX} names are resolved at once")
        files = self._cluster.resolve(request.dataset, request.job, list(request.names))
        if not all(entry.found for entry in files):
            await self._consensus.barrier()  # This node may lag behind the one that recorded them.
            files = self._cluster.resolve(request.dataset, request.job, list(request.names))
        for file in files:
            if file.file.kind == "site_temp" and self._site not in file.sites:
                file.found = False  # Such files stay where they were made.
        self._resolved([(f.file.sha256, request.dataset, request.job, f.name) for f in files if f.found])
        return pilot_pb2.ResolveReply(files=files)

    async def GetSoftware(self, request: pilot_pb2.SoftwareRequest, context: Any) -> pilot_pb2.SoftwareReply:
        """Name the builds of some software, also retired ones: a dataset that began with them goes on."""
        return await software_builds(self._consensus, request.name, request.version)

    async def FindFiles(self, request: pilot_pb2.FindFilesRequest, context: Any) -> pilot_pb2.FindFilesReply:
        """Find files by a pattern of their names; read after everything that was acknowledged before."""
        if not request.more:
            await self._consensus.barrier()
        reply = self._cluster.find_files(request)
        self._resolved([(f.file.sha256, f.dataset, f.job, f.file.name) for f in reply.files])
        return reply

    async def CallSite(self, request: pilot_pb2.SiteCall, context: Any) -> pilot_pb2.SiteAnswer:
        """Answer a running module."""
        identity = peer_identity(context)

        def is_mine(ref: TaskRef) -> bool:
            return self._cluster.standing([ref], identity.key_digest)[ref][0] is Standing.MINE

        return await self._calls.answer(request, identity, is_mine)

    async def GetBlob(self, request: common_pb2.BlobRequest, context: Any) -> AsyncIterator[common_pb2.Chunk]:
        """Stream a blob, fetched first when this node does not hold it."""
        async for chunk in self._files.send(request, fetch=True):
            yield chunk

    async def PutBlob(
        self, request_iterator: AsyncIterator[common_pb2.PutBlobPart], context: Any
    ) -> common_pb2.BlobReply:
        """Store an output; it becomes visible by the accepted report alone."""
        return await self._files.receive(request_iterator)

    async def GetUpload(self, request: common_pb2.BlobRequest, context: Any) -> common_pb2.UploadState:
        """Say what is kept of an upload that was cut short."""
        return await self._files.upload_state(request.sha256)

    async def Renew(self, request: pilot_pb2.RenewRequest, context: Any) -> pilot_pb2.RenewReply:
        """Give a pilot whose certificate still stands a new one for the same name, issued by this site."""
        identity = peer_identity(context)
        if self._credentials and identity.site != self._site:  # It would be given them.
            raise Unavailable(f"{self._site} makes none of {identity.site} one of its own pilots")
        authority = self._authority()
        now_ms = self._clock.wall_ms()
        certificate = authority.issue(
            request.csr_pem,
            kind=IdentityKind.PILOT,
            name=identity.name,
            now_ms=now_ms,
            lifetime_ms=self._times.certificate_ms,
            home=identity.home_site,
        )
        log.info("pilot certificate renewed", pilot=identity.name, was_of=identity.site)
        return pilot_pb2.RenewReply(
            chain_pem=authority.chain(certificate),
            root_pem=self._root_pem(),
            lifetime_s=max(1, (expires_ms(certificate) - now_ms) // 1_000),
        )

    async def GetCredentials(
        self, request: pilot_pb2.CredentialsRequest, context: Any
    ) -> pilot_pb2.CredentialsReply:
        """Hand out what the site's storages ask for, to its own pilots."""
        identity = peer_identity(context)
        if identity.site != self._site or not self._credentials:
            raise NotAllowed("credentials go to pilots of the same site, where it hands them out")
        reply = await asyncio.to_thread(handed_credentials, self._credentials)
        log.info("credentials for storages handed out", pilot=identity.name, servers=len(reply.servers))
        return reply

    def _note(self, identity: Identity, request: pilot_pb2.ExchangeRequest) -> PilotNote:
        note = self._board.note(pilot=identity.name, holder=identity.key_digest, site=identity.site)
        note.host = translate.text(request.host, "the host", 255)
        note.resource_class = translate.text(request.resource_class, "the resource class", 63)
        note.ending = request.ending
        # An attempt that is being reported on is still the pilot's, though it runs no more.
        named = [ref_of(entry.ref) for entry in request.running] + [
            ref_of(entry.ref) for entry in request.reports
        ]
        free = request.free
        room = Room(
            slots=free.slots,
            cpus=free.cpus,
            gpus=free.gpus,
            memory_mib=free.memory_mib,
            disk_mib=free.disk_mib,
            walltime_s=free.walltime_s,
            attributes=frozenset(translate.attributes_from(free.attributes)),
            gpu_tasks_only=self._only_gpu_tasks(request.resource_class),
        )
        self._board.said(note, running=named, room=room)
        note.progress = {
            ref_of(entry.ref): (min(1.0, entry.progress), entry.note[:200])
            for entry in request.running
            if entry.note or entry.progress > 0
        }
        return note

    def _standing(self, identity: Identity, request: pilot_pb2.ExchangeRequest) -> list[TaskRef]:
        """Return what must stop; note attempts of other sites that this node vouches for."""
        if not request.running:
            return []
        standing = self._cluster.standing(
            [ref_of(entry.ref) for entry in request.running], identity.key_digest
        )
        self._board.vouch(
            ref for ref, (state, site) in standing.items() if state is Standing.MINE and site != self._site
        )
        return [ref for ref, (state, _) in standing.items() if state is Standing.OVER]

    async def _reports(self, identity: Identity, request: pilot_pb2.ExchangeRequest) -> list[pilot_pb2.Ack]:
        if not request.reports:
            return []
        edge = replace(self._cluster.edge(), signed_here=self._orders.signed)
        acks: list[pilot_pb2.Ack] = []
        proposed: list[Proposed] = []
        for report in request.reports:
            try:
                proposed.append(read_report(report, identity, edge, here=self._site))
            except PasskeyRefused as refusal:
                fault = str(refusal.fault)
                log.warning("passkey refused", pilot=identity.name, fault=fault, why=refusal.message)
                acks.append(_refused(report.report_id, fault, refusal.message))
            except BadInput as wrong:
                acks.append(_refused(report.report_id, "malformed", wrong.message))
        acks += await self._proposed(proposed, identity)
        if not acks:
            raise Unavailable("no report could be taken now", remedy="send them again", retry_after_s=1.0)
        return acks

    async def _proposed(self, reports: Sequence[Proposed], identity: Identity) -> list[pilot_pb2.Ack]:
        """Return the answers to reports that may be proposed; those without one must be sent again."""
        with_files = [report for report in reports if report.files]
        held = await asyncio.gather(*(self._holds(report, identity) for report in with_files))
        missing = {report.report_id for report, here in zip(with_files, held, strict=True) if not here}
        ready = [report for report in reports if report.report_id not in missing]
        if not ready:
            return []
        try:
            passing("pilot.report.before")
            outcomes = await self._consensus.propose_all(
                [report.command for report in ready],
                actor=identity.actor,
                request_ids=[report.request_id for report in ready],
                timeout_s=PROPOSE_S,
            )
        except Unavailable as failure:
            log.info("reports not taken yet", pilot=identity.name, count=len(ready), why=failure.message)
            return []
        passing("pilot.report.after")
        return [_answer(report.report_id, outcome) for report, outcome in zip(ready, outcomes, strict=True)]

    async def _holds(self, proposed: Proposed, identity: Identity) -> bool:
        """Return whether this node holds every file of a report, after a look at other nodes for missing
        ones.

        A pilot whose node died after the upload reports here: its files come from there, once that node is
        back.
        """
        missing = {entry.sha256 for entry in proposed.files if not self._files.has(entry.sha256)}
        for sha256 in missing:
            try:
                async with asyncio.timeout(PROPOSE_S / 2):
                    await self._files.ensure(sha256)
            except (Unavailable, NotFound, TimeoutError):
                log.warning("output of a report is not here", pilot=identity.name, blob=sha256)
                return False
        return True

    async def _give(
        self, identity: Identity, note: PilotNote, request: pilot_pb2.ExchangeRequest
    ) -> list[pilot_pb2.Order]:
        if request.ending or not note.room.slots or not self._may_give(identity):
            return []
        orders = await self._orders.give(identity, note.host, note.room, request.exchange_id)
        if len(orders) < note.room.slots:
            self._hungry()
        return orders

    def _may_give(self, identity: Identity) -> bool:
        """Whether this pilot gets work here: our own do, others once their site's leases have run out."""
        if self.stopping or self._cluster.draining(self._site):
            return False
        return identity.site == self._site or self._cluster.leases_ended(identity.site)

    async def _wait_for_work(
        self, identity: Identity, note: PilotNote, request: pilot_pb2.ExchangeRequest
    ) -> list[pilot_pb2.Order]:
        if request.ending or not note.room.slots or not self._may_give(identity):
            return []
        await self._stock.wait(BUSY_POLL_S if request.running else self._times.long_poll_s)
        return await self._give(identity, note, request)

    def _poll_ms(self, request: pilot_pb2.ExchangeRequest) -> int:
        """How long a pilot may be silent: longer the more pilots there are, so that polls never crowd out
        reports.
        """
        crowd_s = len(self._board) / 500
        if request.free.slots and not request.ending:
            return int(1_000 * max(min(0.2, self._times.poll_s), crowd_s))
        return int(1_000 * max(self._times.poll_s, crowd_s))


def _answer(report_id: int, outcome: Outcome) -> pilot_pb2.Ack:
    if isinstance(outcome, Applied):
        return pilot_pb2.Ack(report_id=report_id, accepted=True)
    return _refused(report_id, str(outcome.code), outcome.detail)


def _refused(report_id: int, refusal: str, detail: str) -> pilot_pb2.Ack:
    return pilot_pb2.Ack(report_id=report_id, accepted=False, refusal=refusal, detail=detail[:1_000])
