"""Every command of the ledger: one frozen record each, with its number for ever.

A command travels as a MessagePack array ``[number, field, ...]``.  A field is only ever added at the end and with a
default; a number is never used again.  Commands hold no clock and no secret: time is the ledger's own (`Tick`), and
secrets appear as digests.  Who asks (`actor`) travels beside the command, in the `Proposal`.

Actors are ``person:NAME``, ``node:ID`` or ``pilot:SITE/ID``.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.resources import Offer, Usage
from iceprod_p2p.model.site import Member, SiteCounts
from iceprod_p2p.model.states import FailReason


class Verb(StrEnum):
    """What a person asks of datasets, jobs and tasks."""

    SUSPEND = "suspend"
    RESUME = "resume"
    RESET = "reset"  # Everything starts anew.
    RESET_FAILED = "reset_failed"  # Only what failed starts anew.
    ABORT = "abort"
    TRUNCATE = "truncate"  # Datasets: jobs that have not started never will.
    DELETE = "delete"  # Datasets: forget a finished or aborted one.


class SiteVerb(StrEnum):
    """What an operator asks of a site."""

    DRAIN = "drain"
    RESUME = "resume"
    BAN = "ban"


class TaskRef(msgspec.Struct, frozen=True, array_like=True):
    """One attempt of one task."""

    dataset: int
    job: int
    task: int
    attempt: int


class TaskStart(msgspec.Struct, frozen=True, array_like=True):
    """One attempt handed to a pilot: from here its passkey is bound to the holder."""

    ref: TaskRef
    passkey_id: bytes  # 16 bytes
    key_id: str  # Which node's signing key issued the passkey.
    holder: bytes  # SHA-256 of the pilot's certificate key, 32 bytes
    pilot: str
    host: str
    expires_ms: int  # Ledger time.


class FoundCluster(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Entry 1 of every ledger: names the cluster and its first member; refused anywhere else."""

    cluster: str
    root_certificate: bytes  # DER
    site_grace_ms: int = 600_000


class AddNode(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Admit a node, its site (if new) and its keys; it becomes a member with the role given.

    `token_digest` is the SHA-256 of a one-time invitation, empty only for the founder's own node.  The same token and
    the same node id give the first outcome again, so a lost reply locks nobody out.
    """

    member: Member
    issuing_certificate: bytes  # DER of the site's authority
    certificate_fingerprint: bytes  # SHA-256 of the node's certificate
    passkey_key_id: str
    passkey_public_key: bytes  # Ed25519, 32 bytes
    token_digest: bytes = b""
    enrol_address: str = ""
    server_name: str = ""  # The unique DNS name in the node's certificate.


class Invite(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Record the digest of a one-time invitation for `site`."""

    token_digest: bytes
    site: str
    lifetime_ms: int = 900_000


class PromoteMember(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Make an observer a voter."""

    node_id: str


class RemoveMember(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Remove a node from the cluster for ever; its id never returns."""

    node_id: str


class RenewNode(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Note a node's new certificate, address or signing key."""

    member: Member
    certificate_fingerprint: bytes
    enrol_address: str = ""
    server_name: str = ""


class SetPerson(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Give a person a role and groups."""

    name: str
    role: Role
    groups: tuple[str, ...] = ()


class RevokeCertificate(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Refuse a certificate from now on, by its SHA-256 fingerprint."""

    fingerprint: bytes
    reason: str = ""


class Tick(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Advance the ledger's time; only the leader of `term` may, and time never goes back."""

    term: int
    now_ms: int


class SetSettings(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Change cluster settings; zero leaves a value as it is."""

    site_grace_ms: int = 0


class SubmitDataset(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Create a dataset of `jobs` jobs, each with the DAG `shapes`; one entry however many jobs.

    `priority` is 0..1000 (the paper's 0..1, default .5).  `sites_allowed` empty means every site.  `attempts_max` is
    how often a payload may fail before a person must look.
    """

    steering_sha256: str
    jobs: int
    shapes: tuple[TaskShape, ...]
    seed: int
    owner: str
    group: str = ""
    alias: str = ""
    description: str = ""
    category: str = ""
    priority: int = 500
    sites_allowed: tuple[str, ...] = ()
    sites_excluded: tuple[str, ...] = ()
    attempts_max: int = 3
    retry_pause_ms: int = 10_000


class AddJobs(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Let a dataset grow by `jobs` jobs."""

    dataset: int
    jobs: int


class ControlDataset(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Apply a verb to a whole dataset; large ones are carried out in pages by later ticks."""

    dataset: int
    verb: Verb


class ControlTasks(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """Apply a verb to jobs `first_job`..`last_job` (inclusive), or to one task index of each (`task` >= 0)."""

    dataset: int
    verb: Verb
    first_job: int
    last_job: int
    task: int = -1


class SetDataset(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Change what may change after submission; None leaves a value as it is."""

    dataset: int
    priority: int | None = None
    sites_allowed: tuple[str, ...] | None = None
    sites_excluded: tuple[str, ...] | None = None
    attempts_max: int | None = None
    alias: str | None = None
    description: str | None = None


class ControlSite(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """Drain, resume or ban a site; a ban takes back everything it holds, in pages."""

    site: str
    verb: SiteVerb
    reason: str = ""


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """Renew all leases of `site`; `vouched` renews attempts of other sites whose pilots report to this node."""

    site: str
    node_id: str
    counts: SiteCounts
    vouched: tuple[TaskRef, ...] = ()


class Claim(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """Ask for up to `limit` ready tasks that fit the offers; the outcome's `grants` says which were given."""

    site: str
    offers: tuple[Offer, ...]
    limit: int


class QueueTasks(msgspec.Struct, frozen=True, array_like=True, tag=41):
    """The site's grid accepted pilots for these claims."""

    site: str
    refs: tuple[TaskRef, ...]


class StartTasks(msgspec.Struct, frozen=True, array_like=True, tag=42):
    """Hand claimed attempts of `site` to pilots; each one that no longer fits is named in the outcome's notes.

    The outcome's `grants` lists those that started.  Repeated for the same holder and passkey it is applied once.
    """

    site: str
    starts: tuple[TaskStart, ...]


class CopyTask(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """The payload ended well; its outputs are on their way."""

    ref: TaskRef
    holder: bytes


class FinishTask(msgspec.Struct, frozen=True, array_like=True, tag=44):
    """An attempt ended well: statistics, files and use count from here, once.

    Twice with equal content is applied once; with other content it is refused as a conflict.
    """

    ref: TaskRef
    holder: bytes
    site: str  # Where the outputs are held.
    statistics: dict[str, float] = {}
    files: tuple[FileEntry, ...] = ()
    usage: Usage = Usage()


class FailTask(msgspec.Struct, frozen=True, array_like=True, tag=45):
    """An attempt ended badly; `reason` tells whose fault it was, `message` the last lines (at most 4 KiB)."""

    ref: TaskRef
    holder: bytes  # Empty when the node itself reports a claim or pilot that was lost.
    site: str
    reason: FailReason
    message: str = ""
    exit_code: int = 0
    usage: Usage = Usage()
    files: tuple[FileEntry, ...] = ()  # Logs only.


class GiveBack(msgspec.Struct, frozen=True, array_like=True, tag=46):
    """The site returns claims that it will not run; nobody is blamed."""

    site: str
    refs: tuple[TaskRef, ...]
    reason: str = ""


class ReplicaRef(msgspec.Struct, frozen=True, array_like=True):
    """One file record: its dataset, job (or WHOLE_DATASET) and logical name."""

    dataset: int
    job: int
    name: str


class RecordReplicas(msgspec.Struct, frozen=True, array_like=True, tag=60):
    """The site holds (or dropped) copies of these files in its built-in store."""

    site: str
    added: tuple[ReplicaRef, ...] = ()
    dropped: tuple[ReplicaRef, ...] = ()


class RecordVerification(msgspec.Struct, frozen=True, array_like=True, tag=61):
    """What re-reading a stored copy at `site` gave: `found_sha256` empty when it was missing."""

    file: ReplicaRef
    site: str
    found_sha256: str


class RecordBlob(msgspec.Struct, frozen=True, array_like=True, tag=62):
    """These nodes hold the blob (steering documents, modules): where others may fetch it."""

    sha256: str
    size_bytes: int
    node_ids: tuple[str, ...]


Command = (
    FoundCluster
    | AddNode
    | Invite
    | PromoteMember
    | RemoveMember
    | RenewNode
    | SetPerson
    | RevokeCertificate
    | Tick
    | SetSettings
    | SubmitDataset
    | AddJobs
    | ControlDataset
    | ControlTasks
    | SetDataset
    | ControlSite
    | Heartbeat
    | Claim
    | QueueTasks
    | StartTasks
    | CopyTask
    | FinishTask
    | FailTask
    | GiveBack
    | RecordReplicas
    | RecordVerification
    | RecordBlob
)


class Proposal(msgspec.Struct, frozen=True, array_like=True):
    """A command with who asks, the id that makes a retry harmless, and the ledger time it was made at."""

    request_id: bytes  # 16 bytes
    made_at_ms: int
    actor: str
    command: Command
