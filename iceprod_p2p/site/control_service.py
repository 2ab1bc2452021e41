"""What people ask of a node: reads, writes, files, the cluster's state.

Reads are linearizable by a barrier through Raft unless the caller says `stale`; lists are read on a thread,
one snapshot each, in pages.  The policy table has let the caller in; whose dataset it is, the ledger decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import NodeConfig
from iceprod_p2p.base.config_blobs import BlobsConfig
from iceprod_p2p.base.config_external import ExternalConfig
from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.ledger.invariants import check
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.model.identity import Identity, IdentityKind
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.security.identity import peer_identity
from iceprod_p2p.site import control_reads as reads
from iceprod_p2p.site.authorities import list_authorities
from iceprod_p2p.site.backups import Backups
from iceprod_p2p.site.cluster_status import ClusterStatus, add_versions, leader_of
from iceprod_p2p.site.cluster_view import ClusterView
from iceprod_p2p.site.control_writes import ControlWrites, checked_request_id
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.site.grid_desk import GridDesk
from iceprod_p2p.site.membership import Membership
from iceprod_p2p.site.node_keys import NodeKeys
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.site.people import People
from iceprod_p2p.site.software import SoftwareDesk, list_software
from iceprod_p2p.site.submission import Submission
from iceprod_p2p.site.url_copies import UrlCopies
from iceprod_p2p.site.verification import Verification
from iceprod_p2p.wire.channel import CHUNK_BYTES
from iceprod_p2p.wire.pb import common_pb2, control_pb2, control_pb2_grpc

Reply = TypeVar("Reply")


class ControlService(control_pb2_grpc.ControlServicer):  # type: ignore[misc]
    """Serves the control calls of one node, on its event loop."""

    def __init__(
        self,
        *,
        config: NodeConfig,
        raft: RaftNode,
        cluster: ClusterView,
        files: FileService,
        peers: Peers,
        people: People,
        keys: Callable[[], NodeKeys],
        backups: Backups,
        urls: UrlCopies,
        problems: Callable[[], Sequence[str]],
        copies: BlobsConfig,
        progress: Callable[[TaskRef], tuple[float, str] | None],
        grids: GridDesk,
        clock: Clock,
        external: ExternalConfig = ExternalConfig(),
    ) -> None:
        """`progress` tells how far running attempts are whose pilots call this node."""
        self._raft = raft
        self._progress = progress
        self._grids = grids
        self._backups = backups
        self._cluster = cluster
        self._files = files
        self._people = people
        self._keys = keys
        self.status = ClusterStatus(
            raft=raft,
            peers=peers,
            cluster=cluster,
            keys=keys,
            data_dir=config.data_dir,
            problems=problems,
            clock=clock,
        )
        self._clock = clock
        self._writes = ControlWrites(
            consensus=raft,
            cluster=cluster,
            membership=Membership(
                node_id=config.id,
                consensus=raft,
                raft=raft,
                cluster=cluster,
                ask=self.status.ask,
                clock=clock,
            ),
            keys=keys,
        )
        self._submission = Submission(
            node_id=config.id,
            files=files,
            consensus=raft,
            cluster=cluster,
            copies=copies,
            external=external,
        )
        self.software = SoftwareDesk(files=files, consensus=raft, spread=self._submission.spread)
        self.verification = Verification(
            site=config.site,
            node_id=config.id,
            raft=raft,
            files=files,
            peers=peers,
            cluster=cluster,
            urls=urls,
        )

    # Who and files.

    async def WhoAmI(self, request: control_pb2.WhoAmIRequest, context: Any) -> control_pb2.WhoAmIReply:
        """Say who the caller is here."""
        identity, keys = peer_identity(context), self._keys()
        role = self._cluster.role_of(identity.name) if identity.kind is IdentityKind.PERSON else None
        return control_pb2.WhoAmIReply(
            name=identity.name,
            kind=str(identity.kind),
            role=str(role or ""),
            cluster=keys.cluster,
            node_id=keys.node_id,
            site=keys.site,
        )

    async def PutBlob(
        self, request_iterator: AsyncIterator[common_pb2.PutBlobPart], context: Any
    ) -> common_pb2.BlobReply:
        """Store what a submission will name."""
        return await self._files.receive(request_iterator)

    async def GetBlob(self, request: common_pb2.BlobRequest, context: Any) -> AsyncIterator[common_pb2.Chunk]:
        """Stream a blob, fetched from another site when it is not here."""
        async for chunk in self._files.send(request, fetch=True):
            yield chunk

    async def Backup(self, request: Any, context: Any) -> AsyncIterator[common_pb2.Chunk]:
        """Stream everything that the cluster knows, as of now."""
        offset = 0
        async for piece in self._backups.stream():
            for start in range(0, len(piece), CHUNK_BYTES):
                body = piece[start : start + CHUNK_BYTES]
                yield common_pb2.Chunk(body=body, offset=offset)
                offset += len(body)

    # Writes.

    async def Submit(self, request: control_pb2.SubmitRequest, context: Any) -> control_pb2.SubmitReply:
        """Take a dataset in."""
        return await self._submission.submit(
            request, _person(context), checked_request_id(request.request_id)
        )

    async def ControlDataset(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Suspend, resume, reset, truncate, abort or delete a dataset."""
        return await self._writes.control_dataset(request, _person(context))

    async def ControlTasks(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Suspend, resume, reset or abort jobs and tasks."""
        return await self._writes.control_tasks(request, _person(context))

    async def SetDataset(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Change a dataset's priority, sites, retries or names."""
        return await self._writes.set_dataset(request, _person(context))

    async def ControlSite(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Drain, resume or ban a site."""
        return await self._writes.control_site(request, _person(context))

    async def Invite(self, request: Any, context: Any) -> control_pb2.InviteReply:
        """Invite a site."""
        return await self._writes.invite(request, _person(context))

    async def ControlMember(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Promote or remove a node, or hand leadership over."""
        return await self._writes.control_member(request, _person(context))

    async def Rotate(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Let certificates be made anew."""
        return await self._writes.rotate(request, _person(context))

    async def ListAuthorities(self, request: Any, context: Any) -> control_pb2.ListAuthoritiesReply:
        """List whom the cluster lets vouch for nodes, pilots and people."""
        now_ms = self._clock.wall_ms()
        return await self._read(request.read, lambda kv: list_authorities(kv, request, now_ms=now_ms))

    async def EndAuthority(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """List an authority no more that nobody signs with."""
        issuer = peer_identity(context).issuer
        return await self._writes.end_authority(request, _person(context), issuer=issuer)

    async def RaiseVersion(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Let the cluster use what a later version of the ledger brings."""
        return await self._writes.raise_version(request, _person(context))

    async def SetPerson(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Give a person a role."""
        return await self._people.set_person(request, _person(context))

    async def RevokePerson(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Shut a person out."""
        return await self._people.revoke(request, _person(context))

    async def PublishSoftware(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Register a build of some software."""
        return await self.software.publish(request, _person(context), checked_request_id(request.request_id))

    async def RetireSoftware(self, request: Any, context: Any) -> control_pb2.ControlReply:
        """Let no new dataset use a version."""
        return await self.software.retire(request, _person(context), checked_request_id(request.request_id))

    # Reads.

    async def ListDatasets(self, request: Any, context: Any) -> control_pb2.ListDatasetsReply:
        """List datasets, the newest after `after` first to come."""
        return await self._read(request.read, lambda kv: reads.list_datasets(kv, request))

    async def GetDataset(self, request: Any, context: Any) -> control_pb2.DatasetDetail:
        """Show one dataset."""
        return await self._read_dataset(request, lambda kv, number: reads.get_dataset(kv, number))

    async def GetStatistics(self, request: Any, context: Any) -> control_pb2.StatisticsReply:
        """Show what a dataset's tasks reported, summed."""
        return await self._read_dataset(request, lambda kv, number: reads.get_statistics(kv, number))

    async def ListJobs(self, request: Any, context: Any) -> control_pb2.ListJobsReply:
        """List jobs of a dataset."""
        return await self._read_dataset(request, lambda kv, number: reads.list_jobs(kv, number, request))

    async def ListTasks(self, request: Any, context: Any) -> control_pb2.ListTasksReply:
        """List tasks of a dataset."""
        return await self._read_dataset(request, lambda kv, number: reads.list_tasks(kv, number, request))

    async def GetTask(self, request: Any, context: Any) -> control_pb2.TaskRow:
        """Show one task, with its files and why it stands where it does."""
        row = await self._read_dataset(request, lambda kv, number: reads.get_task(kv, number, request))
        said = self._progress(TaskRef(row.dataset, row.job, row.task, row.attempt))
        if said is not None:
            row.progress, row.progress_note = said
        return row

    async def ListFiles(self, request: Any, context: Any) -> control_pb2.ListFilesReply:
        """List recorded files."""
        return await self._read_dataset(request, lambda kv, number: reads.list_files(kv, number, request))

    async def ListSites(self, request: Any, context: Any) -> control_pb2.ListSitesReply:
        """List sites."""
        return await self._read(
            request.read, lambda kv: control_pb2.ListSitesReply(sites=reads.site_rows(kv))
        )

    async def ListGridJobs(self, request: Any, context: Any) -> control_pb2.ListGridJobsReply:
        """List what sites have in their batch systems."""
        return await self._grids.grid_jobs(request)

    async def ListPilots(self, request: Any, context: Any) -> control_pb2.ListPilotsReply:
        """List the pilots of a site."""
        return await self._grids.pilots(request)

    async def TestSite(
        self, request: control_pb2.TestSiteRequest, context: Any
    ) -> AsyncIterator[control_pb2.TestStep]:
        """Send a probe through a site's batch system."""
        async with aclosing(self._grids.test(request, who=_person(context))) as steps:
            async for step in steps:
                yield step

    async def ListAudit(self, request: Any, context: Any) -> control_pb2.ListAuditReply:
        """List who did what."""
        return await self._read(request.read, lambda kv: reads.list_audit(kv, request))

    async def ListPeople(self, request: Any, context: Any) -> control_pb2.ListPeopleReply:
        """List people and their roles."""
        return await self._read(request.read, lambda kv: reads.list_people(kv, request))

    async def ListSoftware(self, request: Any, context: Any) -> control_pb2.ListSoftwareReply:
        """List builds of software."""
        return await self._read(request.read, lambda kv: list_software(kv, request))

    async def VerifyFiles(
        self, request: control_pb2.VerifyFilesRequest, context: Any
    ) -> AsyncIterator[control_pb2.VerifyFilesReply]:
        """Read every copy of a dataset's files again, at every site."""
        await self._raft.barrier()
        number = self._cluster.dataset_number(request.dataset)
        async for reply in self.verification.run(number, request.job, here_only=False):
            yield reply

    async def ClusterStatus(self, request: Any, context: Any) -> control_pb2.ClusterStatusReply:
        """Show every member, health and sites."""
        if not request.read.stale:
            await self._raft.barrier()
        rows, digests_equal = await self.status.members()
        raft = self._raft.status()
        health, problems = self.status.health(rows, raft, digests_equal=digests_equal)
        return await self._read(
            control_pb2.Read(stale=True),
            lambda kv: control_pb2.ClusterStatusReply(
                cluster=self._keys().cluster,
                term=raft.term,
                leader=leader_of(rows, raft),
                health=health,
                members=rows,
                digests_equal=digests_equal,
                sites=reads.site_rows(kv),
                problems=problems,
                ledger_version=queries.version(kv),
                ledger_version_possible=add_versions(rows, queries.nodes(kv)),
                epoch=found.epoch if (found := queries.settings(kv)) is not None else 0,
            ),
        )

    async def CheckCluster(self, request: Any, context: Any) -> control_pb2.CheckClusterReply:
        """Check every invariant of the ledger on this node's tables: reads everything."""
        return await self._read(
            control_pb2.Read(), lambda kv: control_pb2.CheckClusterReply(violations=check(kv))
        )

    async def _read_dataset(self, request: Any, read: Callable[[KeyValue, int], Reply]) -> Reply:
        if not request.read.stale:
            await self._raft.barrier()
        number = self._cluster.dataset_number(request.dataset)
        return await self._read(control_pb2.Read(stale=True), lambda kv: read(kv, number))

    async def _read(self, how: control_pb2.Read, read: Callable[[KeyValue], Reply]) -> Reply:
        """Return what `read` makes of one snapshot, with what the snapshot was."""
        if not how.stale:
            await self._raft.barrier()

        def on_thread() -> Reply:
            with self._raft.view() as kv:
                reply = read(kv)
                info: control_pb2.ReadInfo = reply.info  # type: ignore[attr-defined]  # Every reply has one.
                info.applied_index = queries.applied_index(kv)
                info.ledger_time_ms = queries.ledger_time_ms(kv)
            info.node_id = self._keys().node_id
            return reply

        return await asyncio.to_thread(on_thread)


def _person(context: Any) -> str:
    identity: Identity = peer_identity(context)
    if identity.kind is not IdentityKind.PERSON:
        raise BadInput(f"a {identity.kind} cannot do this: people do")
    return identity.name
