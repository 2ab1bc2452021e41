"""What queries return: frozen rows with plain fields, which services turn into messages and views.

All times are ledger time in ms; 0 stands for never. Counts by state name every state, so that they sum to the total.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.resources import Requirements, Usage
from iceprod_p2p.model.site import Member, SiteCounts
from iceprod_p2p.model.software import Build
from iceprod_p2p.model.states import DatasetState, FailReason, JobState, SiteState, TaskState

T = TypeVar("T")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Page(Generic[T, A]):
    """Some rows, and where to go on: `after` for the next call, None at the end. A page may be empty before the end."""

    rows: tuple[T, ...]
    next_after: A | None


@dataclass(frozen=True, slots=True)
class Settings:
    """The cluster's name and settings."""

    cluster: str
    site_grace_ms: int
    datasets: int
    sites: int
    nodes: int
    epoch: int = 1  # One more after each restore from a backup.


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node of the cluster, with what others need to call and to trust it."""

    member: Member
    fingerprint: bytes  # SHA-256 of its certificate.
    passkey_key_id: str
    passkey_public_key: bytes
    enrol_address: str
    server_name: str
    joined_ms: int
    version_least: int  # The versions of the ledger that its program reads, as it announced.
    version_most: int


class RootRow(NamedTuple):
    """A root that stands, and its key's certificate by the root before (empty for the founding one); DER."""

    certificate: bytes
    above: bytes


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A person, as the ledger knows one."""

    name: str
    role: Role
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Invitation:
    """A one-time invitation that has not expired; `node_id` is who used it."""

    site: str
    expires_ms: int
    node_id: str


@dataclass(frozen=True, slots=True)
class SiteTaskCounts:
    """What a site holds and did for one dataset."""

    site: str
    held: int
    complete: int
    failures: int  # Attempts that failed there by the payload's fault.
    losses: int  # Attempts that the site lost.


@dataclass(frozen=True, slots=True)
class TransferRow:
    """Copies of a dataset's files that one site fetched from another."""

    from_site: str
    to_site: str
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset in a list. `tasks` sums to jobs x task names, `job_states` to jobs."""

    dataset: int
    alias: str
    owner: str
    group: str
    description: str
    category: str
    state: DatasetState
    priority: int
    jobs: int
    tasks: Mapping[TaskState, int]
    job_states: Mapping[JobState, int]
    submitted_ms: int
    finished_ms: int
    steering_sha256: str
    seed: int
    follows: int = 0
    closing: int = 0


@dataclass(frozen=True, slots=True)
class TaskNameCounts:
    """Where the tasks of one name stand."""

    task: int
    name: str
    counts: Mapping[TaskState, int]


@dataclass(frozen=True, slots=True)
class DatasetDetail:
    """Everything of a dataset that is not per job."""

    row: DatasetRow
    shapes: tuple[TaskShape, ...]
    task_names: tuple[TaskNameCounts, ...]
    sites: tuple[SiteTaskCounts, ...]
    transfers: tuple[TransferRow, ...]
    sites_allowed: tuple[str, ...]
    sites_excluded: tuple[str, ...]
    attempts_max: int
    retry_pause_ms: int


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job and where its tasks stand."""

    dataset: int
    job: int
    state: JobState
    tasks: Mapping[TaskState, int]


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in a list. `site` holds it or completed it; the fault fields speak of its last failure."""

    dataset: int
    job: int
    task: int
    name: str
    state: TaskState
    attempt: int
    failures: int
    losses: int
    site: str
    pilot: str
    host: str
    changed_ms: int
    started_ms: int
    due_ms: int  # When the ledger takes it back, or tries it again.
    requirements: Requirements
    usage: Usage
    reason: FailReason | None
    message: str
    exit_code: int

    @property
    def ref(self) -> TaskRef:
        """Its present attempt."""
        return TaskRef(self.dataset, self.job, self.task, self.attempt)


@dataclass(frozen=True, slots=True)
class LogRow:
    """A log file of one attempt."""

    task: int
    attempt: int
    file: FileEntry


@dataclass(frozen=True, slots=True)
class CopyRow:
    """A site's copy of a file: good unless it was found missing or different at `verified_ms`."""

    site: str
    verified_ms: int
    good: bool


@dataclass(frozen=True, slots=True)
class UrlCopyRow:
    """A copy outside the built-in stores: what `site` found there at `verified_ms`, empty when nothing."""

    url: str
    site: str
    verified_ms: int
    good: bool
    found_sha256: str


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file record. `sites` have good copies (the one that wrote it first); `job` is -1 for the dataset's own."""

    dataset: int
    job: int
    name: str
    size_bytes: int
    sha256: str
    kind: str
    task: int
    attempt: int
    by_job: int  # Who wrote it, also when it belongs to the dataset.
    sites: tuple[str, ...]
    copies: tuple[CopyRow, ...]
    checksums: Mapping[str, str]
    urls: tuple[str, ...]
    url_copies: tuple[UrlCopyRow, ...]  # Of those that were read again since.
    at_ms: int


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """Everything of one task."""

    row: TaskRow
    statistics: Mapping[str, float]
    files: tuple[FileRow, ...]
    logs: tuple[LogRow, ...]
    explanation: str
    remedy: str


@dataclass(frozen=True, slots=True)
class HeldTask:
    """A task that a site holds."""

    ref: TaskRef
    state: TaskState
    name: str
    requirements: Requirements
    changed_ms: int
    due_ms: int
    pilot: str
    host: str


@dataclass(frozen=True, slots=True)
class StartRecord:
    """The passkey record of an attempt that a pilot has."""

    ref: TaskRef
    state: TaskState
    site: str
    passkey_id: bytes
    key_id: str
    holder: bytes
    pilot: str
    host: str
    expires_ms: int
    started_ms: int


@dataclass(frozen=True, slots=True)
class Tally:
    """One statistic over all complete tasks of a name, rounded once from exact sums."""

    count: int
    sum: float
    average: float
    standard_deviation: float  # Of the values themselves (divided by count).
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A site, what it says of itself, and what it holds and did."""

    site: str
    state: SiteState
    reason: str
    counts: SiteCounts  # Summed over its nodes.
    heartbeat_age_ms: int
    alive: bool  # Whether its leases stand.
    claimed: int
    queued: int
    processing: int
    copying: int
    complete: int
    failures: int
    losses: int
    nodes: tuple[str, ...]

    @property
    def held(self) -> int:
        """How many tasks it holds."""
        return self.claimed + self.queued + self.processing + self.copying


@dataclass(frozen=True, slots=True)
class BlobHolders:
    """Who says that it holds some content: nodes (recorded blobs) and sites (files)."""

    sha256: str
    size_bytes: int
    node_ids: tuple[str, ...]
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BlobRow:
    """A recorded blob: who holds it, whether anything needs it, whether it is too young to be forgotten."""

    sha256: str
    size_bytes: int
    node_ids: tuple[str, ...]
    needed: bool
    old: bool


@dataclass(frozen=True, slots=True)
class FileUse:
    """One file record that names some content; `spent`: nothing can read it any more."""

    dataset: int
    job: int
    name: str
    kind: str
    spent: bool


@dataclass(frozen=True, slots=True)
class ContentUses:
    """Who needs some content; `kept`: it is a recorded blob, or has more uses than were looked at."""

    sha256: str
    kept: bool
    files: tuple[FileUse, ...]


@dataclass(frozen=True, slots=True)
class SoftwareRow:
    """A published build: new datasets may use it unless it is retired."""

    name: str
    version: str
    build: Build
    owner: str
    description: str
    published_ms: int
    retired: bool


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Who asked for what, when, and how it ended."""

    index: int
    at_ms: int
    actor: str
    what: str
    outcome: str


@dataclass(frozen=True, slots=True)
class ReadyCount:
    """How many tasks with the same requirements are ready in the whole cluster."""

    requirements: Requirements
    ready: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task does not run, or failed, in one sentence; and what to type next, if there is something."""

    sentence: str
    remedy: str
