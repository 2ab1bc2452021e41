"""What the ledger stores, one MessagePack array per record.

States and names of sites, hosts and requirement classes are stored as small numbers: a finished task must fit
in 150 bytes on disk.  Frozen records are replaced; the few mutable ones (counters) are written back once per
entry.  A field is only ever added at the end and with a default.
"""

from __future__ import annotations

from typing import Final

import msgspec

from iceprod_p2p.ledger.commands import TaskRef, Verb
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.resources import Offer, Usage
from iceprod_p2p.model.site import Member, SiteCounts
from iceprod_p2p.model.software import Build
from iceprod_p2p.model.states import FailReason, SiteState, TaskState

# The stored number of each task state, for ever.
STATES: Final = (
    TaskState.WAITING,
    TaskState.READY,
    TaskState.CLAIMED,
    TaskState.QUEUED,
    TaskState.PROCESSING,
    TaskState.COPYING,
    TaskState.COMPLETE,
    TaskState.ERROR,
    TaskState.FAILED,
    TaskState.SUSPENDED,
    TaskState.ABORTED,
)
WAITING, READY, CLAIMED, QUEUED, PROCESSING, COPYING, COMPLETE, ERROR, FAILED, SUSPENDED, ABORTED = range(11)
SUSPENDED_WAITING: Final = (
    11  # Counted apart: suspended while a parent is unfinished. Never stored in a task.
)
CELL_STATES: Final = 12
CODES: Final = {state: code for code, state in enumerate(STATES)}


class Progress(msgspec.Struct, array_like=True, gc=False):
    """How far this replica is; `digest` chains every entry and its outcomes."""

    applied_index: int = 0
    applied_term: int = 0
    digest: bytes = bytes(32)
    time_ms: int = 0
    forgotten_ms: int = -1  # A request made at or before this time can no longer be told from a new one.
    request_bytes: int = 0
    audit_next: int = 1
    audit_first: int = 1
    version: int = 1  # The ledger's, of the whole cluster (`versions`).


class Cluster(msgspec.Struct, array_like=True, gc=False):
    """The cluster's name and settings, and the numbers given out so far."""

    name: str
    root_certificate: bytes
    site_grace_ms: int
    datasets: int = 0
    sites: int = 0
    nodes: int = 0
    hosts: int = 0
    requirements: int = 0
    sweeps: int = 0
    people: int = 0
    invitations: int = 0
    members_changed_ms: int = -1  # When the set of voters last changed.
    software: int = 0  # Builds that have a record.
    epoch: int = 1  # One more after each restore from a backup.
    epoch_id: bytes = b""  # Tells two restores of one backup apart.
    datasets_unnamed: int = 0  # Datasets up to this number were made before datasets named their blobs.
    administrators: int = 0  # People with this role, counted from version 3 on.
    shut_out: int = 0  # People who were ever shut out, counted from version 3 on.
    refusals: int = (
        0  # One more whenever a node, person or certificate is refused from then on, or let in again.
    )


class NodeRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member of the cluster, as admitted."""

    member: Member
    fingerprint: bytes
    passkey_key_id: str
    passkey_public_key: bytes
    enrol_address: str
    server_name: str
    token_digest: bytes
    joined_ms: int
    replaces: str = ""  # The node of its site whose place it took.
    votes_next: bool = False  # It is to be a voter once it has caught up: the one before it was.
    earlier_keys: tuple[tuple[str, bytes], ...] = ()  # Signing keys of those before it: their passkeys hold.
    version_least: int = 1  # The versions of the ledger that its program reads.
    version_most: int = 1


class SiteRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A site: `alive_until_ms` is when its leases end unless it is heard of again."""

    number: int
    state: SiteState = SiteState.ACTIVE
    issuing_certificates: tuple[bytes, ...] = ()
    alive_until_ms: int = 0
    timer_ms: int = 0
    heard_ms: int = 0
    counts: dict[str, SiteCounts] = {}  # By node.
    reason: str = ""  # Why it drains or is banned.
    offers: dict[str, Offer] = {}  # By resource class, as last offered, with 0 slots: what it can run at all.


class SiteTally(msgspec.Struct, array_like=True, gc=False):
    """Tasks that a site holds now, by state, and what became of others: of one dataset, or of all."""

    claimed: int = 0
    queued: int = 0
    processing: int = 0
    copying: int = 0
    complete: int = 0
    failures: int = 0  # Attempts that ended by the payload's fault.
    losses: int = 0  # Attempts that ended by the site's fault.

    @property
    def held(self) -> int:
        """How many tasks the site holds now."""
        return self.claimed + self.queued + self.processing + self.copying


class PersonRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A person's role and groups."""

    role: Role
    groups: tuple[str, ...]


class RevokedRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A certificate that is refused since `at_ms`."""

    reason: str
    at_ms: int


class InvitationRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A one-time invitation; `node_id` is who used it."""

    site: str
    expires_ms: int
    node_id: str = ""


class BlobRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which nodes said that they hold a blob, and when one of them last did."""

    size_bytes: int
    node_ids: tuple[str, ...]
    recorded_ms: int = 0


class SoftwareRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A build of a named version, who published it, and whether new datasets may use it."""

    build: Build
    owner: str
    description: str
    published_ms: int
    retired: bool = False


class AuditRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who asked for what, when (ledger time), and how it ended."""

    index: int
    at_ms: int
    actor: str
    what: str
    outcome: str


class RequestPage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The requests that one entry made the ledger remember."""

    applied_ms: int
    size_bytes: int
    request_ids: bytes  # 16 bytes each.


class SweepRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A mass change under way: `cursor` is the last key done, `until` bounds a range of jobs."""

    kind: int
    target: int
    cursor: bytes = b""
    verb: Verb | None = None
    first_job: int = 0
    last_job: int = 0
    task: int = -1
    epoch: int = 0


class HostFaults(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Faults of one host since its last success, halved with each period."""

    faults: int
    period: int


class ShareRecord(msgspec.Struct, array_like=True, gc=False):
    """What a group or owner holds now (cpus) and used lately (cpu seconds, halved with each period)."""

    held_cpus: int = 0
    used_cpu_s: int = 0
    period: int = 0


class MassEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A verb that changed every task of a dataset at once; records older than `epoch` still have to follow."""

    epoch: int
    verb: Verb


class DatasetRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a dataset was asked to be; counters and shapes are beside it.

    `untouched` is the state of a root task that has no record (READY, SUSPENDED or ABORTED; others follow
    from it).  In a truncated dataset, jobs from `truncated_at` on that have no record are aborted.
    """

    number: int
    steering_sha256: str
    seed: int
    owner: str
    group: str
    alias: str
    description: str
    category: str
    priority: int
    sites_allowed: tuple[str, ...]
    sites_excluded: tuple[str, ...]
    attempts_max: int
    retry_pause_ms: int
    submitted_ms: int
    jobs: int
    requirements: tuple[int, ...]  # The class number of each task's shape.
    untouched: int = READY
    truncated_at: int = -1
    epoch: int = 0
    reset_epoch: int = 0  # Records older than this are void.
    attempt_base: int = 0
    events: tuple[MassEvent, ...] = ()
    deleted: bool = False
    closing: int = 0  # The dataset that follows this one, once it is complete; 0: none does.
    follows: int = 0  # The dataset that this one follows; 0: none.
    gated: bool = False  # It waits until that one is complete: its tasks are suspended.
    futile: bool = (
        False  # That one ended without being complete: as it stands, these tasks, aborted, never run.
    )


class DatasetCounts(msgspec.Struct, array_like=True, gc=False):
    """Counters of a dataset; `watermarks` has one per root task: jobs from there on are untouched by it."""

    job_kinds: list[int]  # How many jobs have tasks of each combination of JOB_* bits.
    watermarks: list[int]
    touched: int = 0  # Jobs of which some task has, or had, a record.
    attempt_max: int = 0
    held_cpus: int = 0
    finished_ms: int = 0
    ready: dict[int, int] = {}  # Requirement class -> ready tasks: the sum of its cells.


class Done(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a complete task was completed."""

    digest: bytes  # 16 bytes over what was reported.
    started_ms: int
    host: int
    usage: Usage
    shared: tuple[str, ...] = ()  # Names of files it wrote for the whole dataset.


class TaskRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task that something happened to; `epoch` tells which mass events it has followed."""

    code: int
    attempt: int
    epoch: int
    requirements: int
    failures: int = 0  # Attempts used up by the payload.
    losses: int = 0  # Attempts lost by sites.
    site: int = 0  # The holder, or who completed it.
    changed_ms: int = 0
    timer_ms: int = 0  # When the ledger takes it back or tries it again; 0: never.
    flags: int = 0
    done: Done | None = None
    home: int = 0  # The site where its inputs lie, while it is kept for that site.
    home_until_ms: int = 0

    @property
    def state(self) -> TaskState:
        """The task's state."""
        return STATES[self.code]


NEVER: Final = -1  # The `changed_ms` of a task without a record.
TAKEN_OVER: Final = 1  # Flag: an idle site took this claim once.


class RunRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The passkey record: bound when an attempt is handed to a pilot, gone when that attempt ends."""

    attempt: int
    passkey_id: bytes
    key_id: str
    holder: bytes
    pilot: str
    host: str
    expires_ms: int
    started_ms: int
    vouched_until_ms: int = 0


class FaultRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last failure of a task, until it is complete."""

    ref: TaskRef
    digest: bytes
    reason: FailReason
    message: str
    exit_code: int
    site: str
    pilot: str
    host: str
    at_ms: int
    usage: Usage


class FileRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One output of a complete task; never changed."""

    task: int
    attempt: int
    size_bytes: int
    sha256: bytes
    kind: str
    site: int  # Where it was written.
    at_ms: int
    checksums: dict[str, str] = {}
    urls: tuple[str, ...] = ()
    job: int = 0  # Who wrote it, when it belongs to the whole dataset.


class Copy(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A site's copy of a file: when it was last verified, and whether it was right then."""

    site: int
    verified_ms: int = 0
    good: bool = True


class UrlCopy(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A copy outside the built-in stores: the number of its URL in the file's record, who read it, what it gave."""

    url: int
    site: int
    verified_ms: int
    found: str  # A SHA-256 in hexadecimal digits, or nothing.


class CopiesRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Every site that has, or was found to have lost, a copy; and the copies outside that were read again."""

    copies: tuple[Copy, ...]
    urls: tuple[UrlCopy, ...] = ()


class TransferRecord(msgspec.Struct, array_like=True, gc=False):
    """What one site fetched from another for a dataset."""

    files: int = 0
    size_bytes: int = 0
