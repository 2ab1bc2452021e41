"""What one node reads of the ledger for its pilots and roles: short snapshots, never held across an await."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import NotAllowed, NotFound
from iceprod_p2p.ledger import keys, queries
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import ReplicaRef, TaskRef
from iceprod_p2p.ledger.limits import REQUIREMENTS_MAX
from iceprod_p2p.ledger.moves import HELD, STARTED, Place
from iceprod_p2p.ledger.reading import see_place, see_task
from iceprod_p2p.ledger.rows import ContentUses
from iceprod_p2p.ledger.rules.asked import role_of
from iceprod_p2p.ledger.rules.faults import host_is_shut_out
from iceprod_p2p.ledger.rules.files import copies_of
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.files import WHOLE_DATASET, FileEntry
from iceprod_p2p.model.identity import Identity
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.resources import Offer, Requirements
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.security.trust import Trust
from iceprod_p2p.site.cluster_facts import ClusterFacts
from iceprod_p2p.site.found_files import find_files
from iceprod_p2p.site.held_tasks import HELD_PAGE, STARTED_STAGE, UNSTARTED, HeldCounts, held_tasks
from iceprod_p2p.site.lost_pilots import RunningTask
from iceprod_p2p.site.orders import DatasetFacts
from iceprod_p2p.site.pilot_service import Standing
from iceprod_p2p.site.plans.orders import Candidate
from iceprod_p2p.site.reports import Edge
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2
from iceprod_p2p.wire.translate import file_to

CLAIMED_PAGE: Final = 4_096  # A site's stock; a larger one is read as it shrinks.
HOSTS_PAGE: Final = 1_000  # Hosts of a site with a fault since their last success.
Result = TypeVar("Result")


class ClusterView:
    """Used on the event loop, but for `running`.  Facts are at most 0.25 s old, tasks as now."""

    def __init__(self, raft: RaftNode, facts: ClusterFacts, *, cluster: str, clock: Clock) -> None:
        self._raft = raft
        self._facts = facts
        self._cluster = cluster
        self._clock = clock
        self._held: dict[str, HeldCounts] = {}

    # Members and trust.

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node of the cluster, the oldest first."""
        return self._facts.now().nodes

    def nodes_now(self) -> tuple[common_pb2.NodeAddress, ...]:
        """The same, as this node's tables are now."""
        return self._facts.fresh().nodes

    def node_record(self, node_id: str) -> r.NodeRecord | None:
        """A node as the ledger has it."""
        return self._facts.now().node_records.get(node_id)

    def knows(self, node_id: str) -> bool:
        """Whether the ledger lists a node."""
        return node_id in self._facts.now().node_records

    def issuing_certificate_of(self, node_id: str) -> bytes | None:
        """The certificate of the authority that a node's site was admitted with last."""
        facts = self._facts.fresh()
        record = facts.node_records.get(node_id)
        site = facts.sites.get(record.member.site) if record is not None else None
        return site.issuing_certificates[-1] if site is not None and site.issuing_certificates else None

    def trust(self) -> Trust:
        """Whom the cluster believes."""
        return self._facts.now().trust

    def admit_link(self, identity: Identity, *, now_ms: int) -> None:
        """Raise NotAllowed unless a node may hold a consensus link: it was not removed, and its certificate is
        not revoked and in date.
        """
        trust = self.trust()
        record = self._facts.now().node_records.get(identity.name)
        if record is None or record.member.role is not MemberRole.VOTER:
            self.admit_node(
                identity
            )  # A vote ends when the node is removed: a ban alone must cost no quorum.
        if identity.fingerprint in trust.revoked:
            raise NotAllowed(f"the certificate of {identity.actor} was revoked")
        if identity.expires_ms < now_ms:
            raise NotAllowed(f"the certificate of {identity.actor} has expired")

    def admit_node(self, identity: Identity) -> None:
        """Raise NotAllowed for a node that was removed, and for every node of a site that is banned."""
        facts = self._facts.now()
        if identity.name in facts.removed:
            raise NotAllowed(
                f"node {identity.name} was removed from the cluster", remedy="come back: iceprod-node rejoin"
            )
        if facts.banned(identity.site):
            raise NotAllowed(f"site {identity.site} is banned", remedy="ask an administrator")

    def role_of(self, person: str) -> Role | None:
        """A person's role."""
        return self.person(person)[0]

    def person(self, name: str) -> tuple[Role | None, tuple[str, ...]]:
        """A person's role and groups."""
        return self._read(lambda t: role_of(t, name))

    def sites(self) -> tuple[str, ...]:
        """The names of all sites."""
        return tuple(sorted(self._facts.now().sites))

    def draining(self, site: str) -> bool:
        """Whether a site takes no new work."""
        return self._facts.now().draining(site)

    def leases_ended(self, site: str) -> bool:
        """Whether a site was silent for so long that it lost what it held."""
        return self._facts.now().leases_ended(site)

    def hosts_shut_out(self, site: str) -> tuple[str, ...]:
        """Hosts of a site that lost so many tasks in a row that the ledger gives them none."""

        def read(t: Tables) -> tuple[str, ...]:
            record = t.site(site)
            if record is None:
                return ()
            prefix = keys.by_number(keys.HOST_FAULTS, record.number)
            hosts = (
                key[len(prefix) :].decode("utf-8", "replace") for key, _ in t.scan_keys(prefix, HOSTS_PAGE)
            )
            return tuple(host for host in hosts if host_is_shut_out(t, record.number, host))

        return self._read(read)

    # Time.

    def time_ms(self) -> int:
        """Ledger time."""
        return self._read(lambda t: t.now_ms)

    def term(self) -> int:
        """The term of the last applied entry's leader, or a newer one."""
        return self._raft.status().term

    def edge(self) -> Edge:
        """What passkeys are checked against."""
        facts = self._facts.now()
        return Edge(self._cluster, facts.time_ms, facts.passkey_keys)

    # What the site holds.

    def claimed(self, site: str) -> list[Candidate]:
        """The attempts that a site holds and no pilot has, in the order of datasets and jobs."""

        def read(t: Tables) -> list[Candidate]:
            found = []
            for place, record in held_tasks(t, site, UNSTARTED, CLAIMED_PAGE):
                if record.code in HELD and record.code not in STARTED:
                    need = t.requirements_of(record.requirements)
                    found.append(Candidate(_ref(place, record), need, record.code == r.QUEUED))
            return found

        return self._read(read)

    def running(self, site: str) -> list[RunningTask]:
        """The attempts of a site that pilots have; from any thread."""

        def read(t: Tables) -> list[RunningTask]:
            found = []
            for place, record in held_tasks(t, site, STARTED_STAGE, HELD_PAGE):
                run = t.runs.get(keys.by_task(keys.RUN, place.ds.number, place.number, place.task))
                if record.code in STARTED and run is not None:
                    copying = record.code == r.COPYING
                    found.append(RunningTask(_ref(place, record), run.pilot, run.holder, copying))
            return found

        return self._read(read)

    def held(self, site: str) -> Counter[Requirements]:
        """How many tasks a site holds, by what they need."""
        counts = self._held.setdefault(site, HeldCounts(self._clock))
        return self._read(lambda t: counts.counts(t, site))

    def standing(self, refs: Sequence[TaskRef], holder: bytes) -> dict[TaskRef, tuple[Standing, str]]:
        """How each attempt that a pilot names stands, and the site that holds it."""
        return self._read(lambda t: {ref: _standing(t, ref, holder) for ref in refs})

    # What may be claimed.

    def ready_mark(self, offers: Sequence[Offer]) -> int:
        """0 when nothing ready fits the offers, else a number that changes when what is ready changes."""

        def read(t: Tables) -> int:
            mark = 0
            for key, count in t.numbers.under(keys.REQUIREMENTS_READY, REQUIREMENTS_MAX):
                number = keys.number_of(key, 1, 2)
                need = t.requirements_of(number)
                if count and any(offer.fits(need) for offer in offers):
                    mark = (mark * 1_000_003 + number * 65_537 + count) & 0xFFFF_FFFF_FFFF | 1
            return mark

        return self._read(read)

    def idle_claims_elsewhere(self, site: str) -> bool:
        """Whether other sites hold tasks that they have not started."""

        def read(t: Tables) -> bool:
            for name, record in self._facts.now().sites.items():
                tally = t.site_tally(record.number)
                if name != site and tally.claimed + tally.queued > 0:
                    return True
            return False

        return self._read(read)

    # Datasets and files.

    def dataset_number(self, name: str) -> int:
        """The number of a dataset given by number or alias; NotFound for an unknown one."""
        with self._raft.view() as kv:
            number = queries.dataset_number(kv, name[:80])
        if number is None:
            raise NotFound(
                f"there is no dataset {name[:80]!r}", remedy="`iceprod dataset list` shows those there are"
            )
        return number

    def dataset_facts(self, dataset: int) -> DatasetFacts | None:
        """What an order says of its dataset."""

        def read(t: Tables) -> DatasetFacts | None:
            ds = t.dataset(dataset)
            if ds is None:
                return None
            names = tuple(shape.name for shape in ds.dag.shapes)
            ahead = t.dataset(ds.record.follows) or ds
            return DatasetFacts(
                ds.record.steering_sha256, names, ahead.record.jobs, ds.record.seed, ds.record.follows
            )

        return self._read(read)

    def resolve(self, dataset: int, job: int, names: Sequence[str]) -> list[pilot_pb2.ResolvedFile]:
        """What was recorded of logical names: of the job, or else of the whole dataset."""
        return self._read(lambda t: [_resolved(t, dataset, job, name) for name in names])

    def find_files(self, request: pilot_pb2.FindFilesRequest) -> pilot_pb2.FindFilesReply:
        """A page of the files whose names match a pattern: of a job, or of all jobs of a dataset that is followed."""
        with self._raft.view() as kv:
            return find_files(kv, request)

    def holders(self, sha256: str, *, but: str) -> list[common_pb2.NodeAddress]:
        """The nodes that should have a blob, those of sites with a file of that content first."""
        with self._raft.view() as kv:
            found = queries.holders(kv, sha256)
        nodes = [node for node in self.nodes() if node.node_id != but]
        at_sites = [node for site in found.sites for node in nodes if node.site == site]
        return at_sites + [node for node in nodes if node.node_id in found.node_ids and node not in at_sites]

    def size_of(self, sha256: str) -> int:
        """Return the size in bytes that is recorded for some content; 0 when none is."""
        with self._raft.view() as kv:
            return queries.holders(kv, sha256).size_bytes

    def is_recorded(self, sha256: str) -> bool:
        """Whether a record names a blob: a dataset's document or module, or an output."""
        with self._raft.view() as kv:
            found = queries.holders(kv, sha256)
        return bool(found.node_ids or found.sites or found.size_bytes)

    def uses(self, sha256: str) -> ContentUses:
        """Who needs some content."""
        with self._raft.view() as kv:
            return queries.uses(kv, sha256)

    def lent(self, sha256: str, site: str) -> tuple[ReplicaRef, ...]:
        """The file records of some content that a site need not keep; none if there is any reason to keep it."""
        with self._raft.view() as kv:
            return queries.lent(kv, sha256, site)

    def spare(self, sha256: str, node_id: str, keep: int) -> bool:
        """Whether a blob is nothing but a blob, and `keep` other nodes hold it that come before this one."""
        with self._raft.view() as kv:
            holders = queries.spare_holders(kv, sha256)
        return node_id not in holders[:keep] and len(holders) >= keep

    def holds(self, site: str, sha256: str) -> bool:
        """Whether a file of this content is recorded at a site."""
        with self._raft.view() as kv:
            return site in queries.holders(kv, sha256).sites

    def _read(self, read: Callable[[Tables], Result]) -> Result:
        with self._raft.view() as kv:
            return read(Tables(kv))


def _standing(t: Tables, ref: TaskRef, holder: bytes) -> tuple[Standing, str]:
    ds = t.dataset(ref.dataset)
    if ds is None or ref.job >= ds.record.jobs or ref.task >= len(ds.dag.shapes):
        return Standing.UNKNOWN if ds is None and ref.dataset > _datasets(t) else Standing.OVER, ""
    place = see_place(t, ds, ref.job, ref.task)
    record = see_task(t, place)
    site = t.site_name(record.site)
    if record.attempt != ref.attempt:
        return Standing.OVER if record.attempt > ref.attempt else Standing.UNKNOWN, site
    if record.code in STARTED:
        run = t.runs.get(keys.by_task(keys.RUN, ref.dataset, ref.job, ref.task))
        mine = run is not None and run.holder == holder
        return Standing.MINE if mine else Standing.OVER, site
    unstarted = record.code in (r.WAITING, r.READY, r.CLAIMED, r.QUEUED, r.ERROR)
    return Standing.UNKNOWN if unstarted else Standing.OVER, site


def _datasets(t: Tables) -> int:
    return t.cluster.datasets if t.cluster is not None else 0


def _resolved(t: Tables, dataset: int, job: int, name: str) -> pilot_pb2.ResolvedFile:
    ds = t.dataset(dataset)
    if ds is None or len(name.encode("utf-8", "replace")) > keys.NAME_BYTES_MAX:
        return pilot_pb2.ResolvedFile(name=name, found=False)
    for number, owner in ((dataset, job), (dataset, WHOLE_DATASET), (ds.record.follows, WHOLE_DATASET)):
        key = keys.file(keys.FILE, number, owner, name)
        record = t.files.get(key)
        of = t.dataset(number)
        if record is None or of is None or record.attempt < of.record.attempt_base:
            continue
        sites = [t.site_name(copy.site) for copy in copies_of(t, key, record) if copy.good]
        return pilot_pb2.ResolvedFile(
            name=name, found=True, file=file_to(entry_of(name, record)), sites=sites
        )
    return pilot_pb2.ResolvedFile(name=name, found=False)


def entry_of(name: str, record: r.FileRecord) -> FileEntry:
    """Return a file record as the entry that was reported."""
    return FileEntry(
        name, record.size_bytes, record.sha256.hex(), record.kind, dict(record.checksums), record.urls
    )


def _ref(place: Place, record: r.TaskRecord) -> TaskRef:
    return TaskRef(place.ds.number, place.number, place.task, record.attempt)
