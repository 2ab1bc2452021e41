"""File records: written once by the accepted result of a task, and never changed.

A name belongs to one task of its job; files of the kind dataset_temp belong to the whole dataset, and the
same content may be reported by several jobs.  Logs are kept by attempt, apart from outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import RecordReplicas, RecordVerification, ReplicaRef
from iceprod_p2p.ledger.limits import FILES_MAX
from iceprod_p2p.ledger.moves import Place
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, find_site
from iceprod_p2p.ledger.spent import is_spent
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.files import WHOLE_DATASET, FileEntry

KINDS: Final = frozenset({"permanent", "job_temp", "dataset_temp", "site_temp", "log"})
COPIES_MAX: Final = 64  # Sites noted per file.


def check_files(t: Tables, place: Place, files: Sequence[FileEntry]) -> Refused | None:
    """Refuse files that cannot be recorded: too many, malformed, or in conflict with what is recorded."""
    if len(files) > FILES_MAX:
        return Refused(Refusal.LIMIT, f"{len(files)} files: at most {FILES_MAX} may be reported by one task")
    seen: set[tuple[bool, str]] = set()
    for entry in files:
        if len(entry.name.encode()) > keys.NAME_BYTES_MAX:
            return Refused(Refusal.MALFORMED, f"a file name has more than {keys.NAME_BYTES_MAX} bytes")
        if entry.kind not in KINDS:
            return Refused(Refusal.MALFORMED, f"file {entry.name!r} is of unknown kind {entry.kind!r}")
        name = (entry.kind == "log", entry.name)
        if name in seen:
            return Refused(Refusal.MALFORMED, f"file {entry.name!r} is reported twice")
        seen.add(name)
        if entry.kind == "log":
            continue
        known = t.files.get(_key(place, entry))
        if known is not None and not _may_write(place, entry, known):
            return Refused(Refusal.CONFLICT, _conflict(entry, known))
    return None


def _key(place: Place, entry: FileEntry) -> bytes:
    job = WHOLE_DATASET if entry.kind == "dataset_temp" else place.number
    return keys.file(keys.FILE, place.ds.number, job, entry.name)


def _may_write(place: Place, entry: FileEntry, known: r.FileRecord) -> bool:
    if known.attempt < place.ds.record.attempt_base:
        return True  # From before the dataset was reset: its sweep has not come by yet.
    return entry.kind == "dataset_temp" and known.sha256.hex() == entry.sha256


def _conflict(entry: FileEntry, known: r.FileRecord) -> str:
    by = f"task {known.task} at attempt {known.attempt}"
    if known.sha256.hex() == entry.sha256:
        return f"file {entry.name!r} was already written by {by}"
    return f"file {entry.name!r} was already written by {by}, with another checksum"


def record_outputs(
    t: Tables, place: Place, attempt: int, files: Sequence[FileEntry], site: int
) -> tuple[str, ...]:
    """Record what a task wrote, after `check_files`; return the names that belong to the whole dataset."""
    shared: list[str] = []
    for entry in files:
        if entry.kind == "log":
            continue
        key = _key(place, entry)
        known = t.files.get(key)
        if known is not None:
            if known.attempt >= place.ds.record.attempt_base:
                continue  # The same content, reported by another job before.
            remove_void(t, key, known)
        record = r.FileRecord(
            place.task,
            attempt,
            entry.size_bytes,
            bytes.fromhex(entry.sha256),
            entry.kind,
            site,
            t.now_ms,
            entry.checksums,
            entry.urls,
            place.number,
        )
        t.files.put(key, record)
        t.kv.put(keys.CONTENT + record.sha256[:16] + key[1:], b"")
        if entry.kind == "dataset_temp":
            shared.append(entry.name)
    record_logs(t, place, attempt, files)
    return tuple(shared)


def remove_void(t: Tables, key: bytes, known: r.FileRecord) -> None:
    """Remove a record from before a reset of its dataset."""
    t.copies.delete(keys.COPIES + key[1:])
    t.kv.delete(keys.CONTENT + known.sha256[:16] + key[1:])


def record_logs(t: Tables, place: Place, attempt: int, files: Sequence[FileEntry]) -> None:
    """Record the logs of an attempt, whether it ended well or not."""
    for entry in files:
        if entry.kind == "log":
            t.logs.put(keys.log(place.ds.number, place.number, place.task, attempt, entry.name), entry)


def record_replicas(t: Tables, command: RecordReplicas, asked: Asked) -> Outcome:
    """Note which copies a site got or dropped; files that are not recorded are named in the notes."""
    site = find_site(t, command.site)
    if isinstance(site, Refused):
        return site
    notes: list[str] = []
    for ref in (*command.added, *command.dropped, *command.spent):
        if _file_of(t, ref) is None:
            notes.append(f"no file {ref.name!r} of {ref.dataset}.{ref.job} is recorded")
    for ref, found in _found(t, command.added):
        _add_copy(t, ref, *found, site.number)
    for _, found in _found(t, command.dropped):
        _drop_copy(t, *found, site.number)
    for ref, found in _found(t, command.spent):
        ds = t.dataset(ref.dataset)
        if ds is not None and is_spent(t, ds, ref.job, found[1]):
            _drop_copy(t, *found, site.number)
        else:
            notes.append(f"file {ref.name!r} of {ref.dataset}.{ref.job} is needed")
    return Applied(tuple(notes))


def _found(t: Tables, refs: Sequence[ReplicaRef]) -> list[tuple[ReplicaRef, tuple[bytes, r.FileRecord]]]:
    found = ((ref, _file_of(t, ref)) for ref in refs)
    return [(ref, file) for ref, file in found if file is not None]


def _file_of(t: Tables, ref: ReplicaRef) -> tuple[bytes, r.FileRecord] | None:
    ds = t.dataset(ref.dataset)
    if ds is None or len(ref.name.encode()) > keys.NAME_BYTES_MAX:
        return None
    key = keys.file(keys.FILE, ref.dataset, ref.job, ref.name)
    record = t.files.get(key)
    if record is None or record.attempt < ds.record.attempt_base:
        return None
    return key, record


def copies_of(t: Tables, key: bytes, record: r.FileRecord) -> tuple[r.Copy, ...]:
    """Return every copy of a file: the writer's alone, unless noted otherwise."""
    found = t.copies.get(keys.COPIES + key[1:])
    return (r.Copy(record.site),) if found is None else found.copies


def _add_copy(t: Tables, ref: ReplicaRef, key: bytes, record: r.FileRecord, site: int) -> None:
    copies = copies_of(t, key, record)
    if any(copy.site == site and copy.good for copy in copies) or len(copies) >= COPIES_MAX:
        return
    others = tuple(copy for copy in copies if copy.site != site)
    _put_copies(t, key, (*others, r.Copy(site)))
    if site != record.site:
        transfer_key = keys.transfer(ref.dataset, record.site, site)
        transfer = t.transfers.get(transfer_key) or r.TransferRecord()
        transfer.files += 1
        transfer.size_bytes += record.size_bytes
        t.transfers.put(transfer_key, transfer)


def _drop_copy(t: Tables, key: bytes, record: r.FileRecord, site: int) -> None:
    copies = copies_of(t, key, record)
    kept = tuple(copy for copy in copies if copy.site != site)
    if kept != copies:
        _put_copies(t, key, kept)


def record_verification(t: Tables, command: RecordVerification, asked: Asked) -> Outcome:
    """Note what re-reading a copy gave; a copy that is missing or differs is no copy any more."""
    site = find_site(t, command.site)
    if isinstance(site, Refused):
        return site
    found = _file_of(t, command.file)
    if found is None:
        return Refused(Refusal.NOT_FOUND, f"no file {command.file.name!r} is recorded")
    key, record = found
    good = command.found_sha256 == record.sha256.hex()
    if command.url:
        return _record_url(t, command, site.number, key, record)
    others = tuple(copy for copy in copies_of(t, key, record) if copy.site != site.number)
    if len(others) >= COPIES_MAX:
        return Refused(Refusal.LIMIT, f"{COPIES_MAX} copies of file {command.file.name!r} are noted already")
    copy = r.Copy(site.number, t.now_ms, good)
    _put_copies(t, key, (*others, copy))
    return Applied() if good else _bad_copy(command, command.site)


def _bad_copy(command: RecordVerification, where: str) -> Applied:
    what = "is missing" if not command.found_sha256 else "differs"
    return Applied((f"the copy of {command.file.name!r} at {where} {what}",))


def _put_copies(t: Tables, key: bytes, copies: tuple[r.Copy, ...]) -> None:
    noted = t.copies.get(keys.COPIES + key[1:])
    t.copies.put(keys.COPIES + key[1:], r.CopiesRecord(copies, noted.urls if noted is not None else ()))


def _record_url(
    t: Tables, command: RecordVerification, site: int, key: bytes, record: r.FileRecord
) -> Outcome:
    """Note what re-reading the copy at an address of its own gave."""
    if command.url not in record.urls:
        return Refused(Refusal.NOT_FOUND, f"file {command.file.name!r} has no copy at {command.url[:200]!r}")
    number = record.urls.index(command.url)
    noted = t.copies.get(keys.COPIES + key[1:])
    others = tuple(copy for copy in noted.urls if copy.url != number) if noted is not None else ()
    urls = tuple(
        sorted((*others, r.UrlCopy(number, site, t.now_ms, command.found_sha256)), key=lambda copy: copy.url)
    )
    t.copies.put(keys.COPIES + key[1:], r.CopiesRecord(copies_of(t, key, record), urls))
    good = command.found_sha256 == record.sha256.hex()
    return Applied() if good else _bad_copy(command, command.url)
