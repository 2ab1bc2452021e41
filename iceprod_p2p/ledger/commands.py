"""Every command of the ledger: one frozen record each, with its number for ever.

A command travels as a MessagePack array ``[number, field, ...]``.  A field is only ever added at the end and
with a default; a number is never used again.  The decoder checks the bounds of every field (`model.bounds`).
Commands hold no clock and no secret: time is the ledger's own (`Tick`), and secrets appear as digests.  Who
asks (`actor`) travels beside the command, in the `Proposal`.

Those about the cluster itself are in `commands_cluster`, and named here like the others.

Actors are ``person:NAME``, ``node:ID`` or ``pilot:SITE/ID``.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from iceprod_p2p.ledger import commands_cluster
from iceprod_p2p.ledger.commands_blobs import DropBlobs, ForgetBlobs
from iceprod_p2p.ledger.commands_replacing import ReplaceNode, RestoreCluster
from iceprod_p2p.ledger.commands_software import PublishSoftware, RetireSoftware
from iceprod_p2p.ledger.commands_trust import (
    AddAuthority,
    AskRenewal,
    EndAuthority,
    RemovePerson,
    RetireAuthority,
)
from iceprod_p2p.model.bounds import (
    Actor,
    Amount,
    Digest,
    DigestOrEmpty,
    ExitCode,
    FileName,
    HexDigest,
    Id16,
    JobOrWhole,
    LedgerMs,
    Line,
    Message,
    Name,
    Number16,
    Number32,
    Seed,
    TaskOrAll,
    Word,
)
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.resources import Offer, Usage
from iceprod_p2p.model.site import SiteCounts
from iceprod_p2p.model.states import FailReason

FoundCluster = commands_cluster.FoundCluster
AddNode = commands_cluster.AddNode
Invite = commands_cluster.Invite
PromoteMember = commands_cluster.PromoteMember
RemoveMember = commands_cluster.RemoveMember
RenewNode = commands_cluster.RenewNode
SetPerson = commands_cluster.SetPerson
RevokeCertificate = commands_cluster.RevokeCertificate
Tick = commands_cluster.Tick
SetSettings = commands_cluster.SetSettings
AnnounceVersions = commands_cluster.AnnounceVersions
RaiseVersion = commands_cluster.RaiseVersion


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


class TaskRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One attempt of one task."""

    dataset: Number32
    job: Number32
    task: Number16
    attempt: Number32


class TaskStart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One attempt handed to a pilot: from here its passkey is bound to the holder."""

    ref: TaskRef
    passkey_id: Id16  # 16 bytes
    key_id: Name  # Which node's signing key issued the passkey.
    holder: Digest  # SHA-256 of the pilot's certificate key, 32 bytes
    pilot: Word
    host: Word
    expires_ms: LedgerMs  # Ledger time.


class SubmitDataset(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=20):
    """Create a dataset of `jobs` jobs, each with the DAG `shapes`; one entry however many jobs.

    `priority` is 0..1000 (the paper's 0..1, default .5).  `sites_allowed` empty means every site.
    `attempts_max` is how often a payload may fail before a person must look.
    """

    steering_sha256: HexDigest
    jobs: Number32
    shapes: tuple[TaskShape, ...]
    seed: Seed
    owner: Name
    group: Name = ""
    alias: Name = ""
    description: Line = ""
    category: Word = ""
    priority: Number32 = 500
    sites_allowed: tuple[Name, ...] = ()
    sites_excluded: tuple[Name, ...] = ()
    attempts_max: Number32 = 3
    retry_pause_ms: LedgerMs = 10_000
    closing: tuple[
        TaskShape, ...
    ] = ()  # Tasks that come once, when all jobs are complete: a dataset that follows.
    blobs: tuple[HexDigest, ...] = ()  # What the document names, beside itself: kept while the dataset is.


class AddJobs(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=21):
    """Let a dataset grow by `jobs` jobs."""

    dataset: Number32
    jobs: Number32


class ControlDataset(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=22):
    """Apply a verb to a whole dataset; large ones are carried out in pages by later ticks."""

    dataset: Number32
    verb: Verb


class ControlTasks(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=23):
    """Apply a verb to jobs `first_job`..`last_job` (inclusive), or to one task index of each (`task` >= 0)."""

    dataset: Number32
    verb: Verb
    first_job: Number32
    last_job: Number32
    task: TaskOrAll = -1


class SetDataset(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=24):
    """Change what may change after submission; None leaves a value as it is."""

    dataset: Number32
    priority: Number32 | None = None
    sites_allowed: tuple[Name, ...] | None = None
    sites_excluded: tuple[Name, ...] | None = None
    attempts_max: Number32 | None = None
    alias: Name | None = None
    description: Line | None = None
    owner: Name | None = None
    group: Name | None = None


class ControlSite(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=30):
    """Drain, resume or ban a site; a ban takes back everything it holds, in pages."""

    site: Name
    verb: SiteVerb
    reason: Line = ""


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=31):
    """Renew all leases of `site`; `vouched` renews attempts of other sites whose pilots report to this node."""

    site: Name
    node_id: Name
    counts: SiteCounts
    vouched: tuple[TaskRef, ...] = ()


class Claim(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=40):
    """Ask for up to `limit` ready tasks that fit the offers; the outcome's `grants` says which were given."""

    site: Name
    offers: tuple[Offer, ...]
    limit: Number32


class QueueTasks(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=41):
    """The site's grid accepted pilots for these claims."""

    site: Name
    refs: tuple[TaskRef, ...]


class StartTasks(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=42):
    """Hand claimed attempts of `site` to pilots; each one that no longer fits is named in the outcome's notes.

    The outcome's `grants` lists those that started.  Repeated for the same holder and passkey it is applied
    once.
    """

    site: Name
    starts: tuple[TaskStart, ...]


class CopyTask(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=43):
    """The payload ended well; its outputs are on their way."""

    ref: TaskRef
    holder: Digest


class FinishTask(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=44):
    """An attempt ended well: statistics, files and use count from here, once.

    Twice with equal content is applied once; with other content it is refused as a conflict.
    """

    ref: TaskRef
    holder: Digest
    site: Name  # Where the outputs are held.
    statistics: dict[Word, float] = {}
    files: tuple[FileEntry, ...] = ()
    usage: Usage = Usage()


class FailTask(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=45):
    """An attempt ended badly; `reason` tells whose fault it was, `message` the last lines (at most 4 KiB)."""

    ref: TaskRef
    holder: DigestOrEmpty  # Empty when the node itself reports a claim or pilot that was lost.
    site: Name
    reason: FailReason
    message: Message = ""
    exit_code: ExitCode = 0
    usage: Usage = Usage()
    files: tuple[FileEntry, ...] = ()  # Logs only.


class GiveBack(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=46):
    """The site returns claims that it will not run; nobody is blamed."""

    site: Name
    refs: tuple[TaskRef, ...]
    reason: Line = ""


class ReplicaRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One file record: its dataset, job (or WHOLE_DATASET) and logical name."""

    dataset: Number32
    job: JobOrWhole
    name: FileName


class RecordReplicas(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=60):
    """The site holds (or dropped) copies of these files in its built-in store."""

    site: Name
    added: tuple[ReplicaRef, ...] = ()
    dropped: tuple[ReplicaRef, ...] = ()
    spent: tuple[ReplicaRef, ...] = ()  # To be dropped for having served; those that somebody needs stay.


class RecordVerification(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=61):
    """What re-reading a stored copy at `site` gave: `found_sha256` empty when it was missing.

    With `url` it is the copy at that address, one of the file's own, and `site` is who read it.
    """

    file: ReplicaRef
    site: Name
    found_sha256: Word
    url: Line = ""


class RecordBlob(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=62):
    """These nodes hold the blob (steering documents, modules): where others may fetch it."""

    sha256: HexDigest
    size_bytes: Amount
    node_ids: tuple[Name, ...]


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
    | ReplaceNode
    | RestoreCluster
    | AddAuthority
    | RetireAuthority
    | AskRenewal
    | RemovePerson
    | EndAuthority
    | AnnounceVersions
    | RaiseVersion
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
    | PublishSoftware
    | RetireSoftware
    | DropBlobs
    | ForgetBlobs
)


class Proposal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A command with who asks, the id that makes a retry harmless, and the ledger time it was made at."""

    request_id: Id16  # 16 bytes
    made_at_ms: LedgerMs
    actor: Actor
    command: Command
