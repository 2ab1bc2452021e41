"""Where each record lives: one table number, then big-endian numbers, so that byte order is counting order.

Key builders are plain functions; `span` and `prefix_stop` give the bounds of a scan.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

# Singletons.
PROGRESS: Final = b"\x01p"  # Applied index, digest, time: written with every entry.
CLUSTER: Final = b"\x01c"  # Name, settings, counters that number things.

# Cluster.
NODE: Final = b"\x02"  # node id -> NodeRecord
SITE: Final = b"\x03"  # name -> SiteRecord
SITE_NAME: Final = b"\x04"  # number -> name
SITE_TALLY: Final = b"\x05"  # number -> SiteTally
PERSON: Final = b"\x06"  # name -> PersonRecord
REVOKED: Final = b"\x07"  # certificate fingerprint -> RevokedRecord
INVITATION: Final = b"\x08"  # token digest -> InvitationRecord
REMOVED: Final = b"\x09"  # node id -> when
BLOB: Final = b"\x0a"  # sha256 -> BlobRecord
AUDIT: Final = b"\x0b"  # running number -> AuditRecord
REQUEST: Final = b"\x0c"  # request id -> outcome
REQUEST_PAGE: Final = b"\x0d"  # entry index -> RequestPage
TIMER: Final = b"\x0e"  # due, kind, what -> empty
SWEEP: Final = b"\x0f"  # number -> SweepRecord
HOST: Final = b"\x10"  # name -> number
HOST_NAME: Final = b"\x11"  # number -> name
HOST_FAULTS: Final = b"\x12"  # site, host -> HostFaults
REQUIREMENTS: Final = b"\x13"  # number -> Requirements
REQUIREMENTS_NUMBER: Final = b"\x14"  # digest of requirements -> number
REQUIREMENTS_READY: Final = b"\x15"  # number -> how many tasks of this class are ready
SHARE: Final = b"\x16"  # kind, name -> ShareRecord
SOFTWARE: Final = b"\x17"  # name, version, platform -> SoftwareRecord
BLOB_USE: Final = b"\x18"  # sha256, who needs it -> empty
ROOT: Final = b"\x19"  # SHA-256 of the certificate -> RootRecord, of every root after the founding one
PEOPLE_AUTHORITY: Final = b"\x1a"  # node id -> AuthoritiesRecord
ASKED: Final = b"\x1b"  # what, and which node -> when it was asked to be made anew
SHUT_OUT: Final = b"\x1c"  # person -> ShutOutRecord
NODE_AUTHORITIES: Final = b"\x1d"  # node id -> NodeAuthorities, once the node has told
UNUSED_AUTHORITY: Final = (
    b"\x1e"  # SHA-256 of a site's authority that has signed nothing yet -> when it was listed
)
RETIRED_ROOT: Final = b"\x1f"  # SHA-256 of a root's certificate -> when it was retired

# Datasets.
DATASET: Final = b"\x20"
SHAPES: Final = b"\x21"
COUNTS: Final = b"\x22"
CELLS: Final = b"\x23"  # dataset, task -> counts by requirement class and state
ALIAS: Final = b"\x24"
TALLY: Final = b"\x25"  # dataset, task -> statistics tallies
DATASET_SITE: Final = b"\x26"  # dataset, site -> SiteTally
TRANSFER: Final = b"\x27"  # dataset, from site, to site -> TransferRecord
DATASET_BLOBS: Final = b"\x28"  # dataset -> digests of what its document names, itself first

# Jobs and tasks.
JOB: Final = b"\x30"
TASK: Final = b"\x31"
RUN: Final = b"\x32"  # the passkey record of a task that a pilot has
FAULT: Final = b"\x33"  # the last failure of a task
STATISTICS: Final = b"\x34"
READY: Final = b"\x35"  # dataset, class, job, task -> locality
ACTIVE: Final = b"\x36"  # class, priority, dataset -> empty: which datasets have ready tasks of a class
HELD: Final = b"\x37"  # site, stage, dataset, job, task -> empty

# Files.
FILE: Final = b"\x40"  # dataset, job + 1 (0: the dataset's own), name -> FileRecord
COPIES: Final = b"\x41"  # the same key -> which sites hold it, when not the writer alone
CONTENT: Final = b"\x42"  # first 16 bytes of sha256, dataset, job + 1, name -> empty
LOG: Final = b"\x43"  # dataset, job, task, attempt, name -> FileEntry

NAME_BYTES_MAX: Final = 255  # Of a name inside a key, in UTF-8: every key stays below LMDB's 511 bytes.

TASK_TIMER: Final = 1
SITE_TIMER: Final = 2
INVITATION_TIMER: Final = 3

_I = Struct(">cI")
_II = Struct(">cII")
_IH = Struct(">cIH")
_IHH = Struct(">cIHH")
_IIH = Struct(">cIIH")
_H = Struct(">cH")
_Q = Struct(">cQ")
_READY = Struct(">cIHIH")
_ACTIVE = Struct(">cHHI")
_HELD = Struct(">cHBIIH")
_HELD_HEAD = Struct(">cHB")
_TIMER = Struct(">cQB")
_TASK_TIMER = Struct(">cQBIIH")
_TAIL = Struct(">IIH")
_LOG = Struct(">cIIHI")


def by_name(table: bytes, name: str) -> bytes:
    """The key of something named."""
    return table + name.encode()


def software(name: str, version: str = "", platform: str = "") -> bytes:
    """The key of a build; without `platform` or `version` the prefix of all that are under it."""
    parts = [part for part in (name, version, platform) if part]
    end = b"" if platform else b"\x00"
    return SOFTWARE + "\x00".join(parts).encode() + end


def by_number(table: bytes, number: int) -> bytes:
    """The key of something with a two-byte number: sites, requirement classes."""
    return _H.pack(table, number)


def by_index(table: bytes, index: int) -> bytes:
    """The key of something with an eight-byte number: audit records, pages of requests, sweeps."""
    return _Q.pack(table, index)


def by_dataset(table: bytes, dataset: int) -> bytes:
    """The key of a dataset's own record, and the prefix of all that is under it."""
    return _I.pack(table, dataset)


def by_dataset_part(table: bytes, dataset: int, part: int) -> bytes:
    """The key of a dataset's task name or site."""
    return _IH.pack(table, dataset, part)


def by_job(table: bytes, dataset: int, job: int) -> bytes:
    """The key of a job, and the prefix of all that is under it."""
    return _II.pack(table, dataset, job)


def by_task(table: bytes, dataset: int, job: int, task: int) -> bytes:
    """The key of a task."""
    return _IIH.pack(table, dataset, job, task)


def ready(dataset: int, requirements: int, job: int, task: int) -> bytes:
    """The key of a task in the ready index."""
    return _READY.pack(READY, dataset, requirements, job, task)


def active(requirements: int, priority: int, dataset: int) -> bytes:
    """The key that says: this dataset has ready tasks of this class; higher priority sorts first."""
    return _ACTIVE.pack(ACTIVE, requirements, 1_000 - priority, dataset)


def held(site: int, stage: int, dataset: int, job: int, task: int) -> bytes:
    """The key of a task that a site holds; stage 0 has not started, stage 1 has."""
    return _HELD.pack(HELD, site, stage, dataset, job, task)


def tail(dataset: int, job: int, task: int) -> bytes:
    """What every key made by `by_task`, `held` and `task_timer` ends with."""
    return _TAIL.pack(dataset, job, task)


def held_head(site: int, stage: int) -> bytes:
    """What comes before the tail in a key made by `held`."""
    return _HELD_HEAD.pack(HELD, site, stage)


def task_timer_head(due_ms: int) -> bytes:
    """What comes before the tail in a key made by `task_timer`."""
    return _TIMER.pack(TIMER, due_ms, TASK_TIMER)


def task_timer(due_ms: int, dataset: int, job: int, task: int) -> bytes:
    """The key of a task's timer."""
    return _TASK_TIMER.pack(TIMER, due_ms, TASK_TIMER, dataset, job, task)


def other_timer(due_ms: int, kind: int, what: bytes) -> bytes:
    """The key of a site's or an invitation's timer."""
    return _TIMER.pack(TIMER, due_ms, kind) + what


def transfer(dataset: int, from_site: int, to_site: int) -> bytes:
    """The key of what one site sent to another for a dataset."""
    return _IHH.pack(TRANSFER, dataset, from_site, to_site)


def file(table: bytes, dataset: int, job: int, name: str) -> bytes:
    """The key of a file record; `job` may be WHOLE_DATASET."""
    return _II.pack(table, dataset, job + 1) + name.encode()


def files_of(table: bytes, dataset: int, job: int) -> bytes:
    """The prefix of the file records of a job, or of the dataset itself."""
    return _II.pack(table, dataset, job + 1)


def log(dataset: int, job: int, task: int, attempt: int, name: str) -> bytes:
    """The key of one log file of one attempt."""
    return _LOG.pack(LOG, dataset, job, task, attempt) + name.encode()


def task_of(key: bytes) -> tuple[int, int, int]:
    """Read dataset, job and task from a key made by `by_task`."""
    _, dataset, job, task = _IIH.unpack(key)
    return dataset, job, task


def task_of_tail(key: bytes) -> tuple[int, int, int]:
    """Read dataset, job and task from the last ten bytes of a key made by `held` or `task_timer`."""
    _, dataset, job, task = _IIH.unpack(b"\x00" + key[-10:])
    return dataset, job, task


def job_and_task_of_ready(key: bytes) -> tuple[int, int]:
    """Read job and task from a key made by `ready`."""
    _, _, _, job, task = _READY.unpack(key)
    return job, task


def number_of(key: bytes, start: int, length: int) -> int:
    """Read the big-endian number at `start` of a key."""
    return int.from_bytes(key[start : start + length], "big")


def prefix_stop(prefix: bytes) -> bytes:
    """Return the smallest key beyond every key with this prefix (which is not all 0xff)."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,))
