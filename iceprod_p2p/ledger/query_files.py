"""Queries about files: what tasks wrote, where copies are, and who holds some content."""

from __future__ import annotations

from typing import Final

from iceprod_p2p.ledger import keys, rows
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.moves import Place
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.model.files import WHOLE_DATASET

PAGE_MAX: Final = 1_000
HOLDERS_LOOK: Final = 64  # Files with the same content that are asked for their sites.


def files(
    kv: KeyValue,
    number: int,
    job: int | None = None,
    *,
    after: tuple[int, str] | None = None,
    limit: int = 100,
) -> rows.Page[rows.FileRow, tuple[int, str]]:
    """Return file records of a dataset by (job, name): of every job, of one, or of the dataset itself (job -1)."""
    t = Tables(kv)
    ds = t.dataset(number)
    if ds is None:
        return rows.Page((), None)
    limit = min(limit, PAGE_MAX)
    prefix = keys.by_dataset(keys.FILE, number) if job is None else keys.files_of(keys.FILE, number, job)
    start = prefix if after is None else keys.file(keys.FILE, number, *after) + b"\x00"
    page = t.files.page(start, keys.prefix_stop(prefix), limit)
    found = tuple(
        _file_row(t, ds, key, record) for key, record in page if record.attempt >= ds.record.attempt_base
    )
    return rows.Page(found, _job_and_name(page[-1][0]) if len(page) == limit else None)


def _job_and_name(key: bytes) -> tuple[int, str]:
    return keys.number_of(key, 5, 4) - 1, key[9:].decode()


def file(kv: KeyValue, number: int, job: int, name: str) -> rows.FileRow | None:
    """Return one file record by its logical name; job -1 for a file of the dataset itself."""
    t = Tables(kv)
    ds = t.dataset(number)
    if ds is None or not WHOLE_DATASET <= job < 2**32 - 1 or len(name.encode()) > keys.NAME_BYTES_MAX:
        return None
    key = keys.file(keys.FILE, number, job, name)
    record = t.files.get(key)
    return (
        None if record is None or record.attempt < ds.record.attempt_base else _file_row(t, ds, key, record)
    )


def _file_row(t: Tables, ds: Dataset, key: bytes, record: r.FileRecord) -> rows.FileRow:
    job, name = _job_and_name(key)
    noted = t.copies.get(keys.COPIES + key[1:])
    copies = (r.Copy(record.site),) if noted is None else noted.copies
    outside = () if noted is None else noted.urls
    first = sorted(copies, key=lambda copy: copy.site != record.site)
    return rows.FileRow(
        dataset=ds.number,
        job=job,
        name=name,
        size_bytes=record.size_bytes,
        sha256=record.sha256.hex(),
        kind=record.kind,
        task=record.task,
        attempt=record.attempt,
        by_job=record.job,
        sites=tuple(t.site_name(copy.site) for copy in first if copy.good),
        copies=tuple(rows.CopyRow(t.site_name(copy.site), copy.verified_ms, copy.good) for copy in first),
        checksums=record.checksums,
        urls=record.urls,
        url_copies=tuple(
            rows.UrlCopyRow(
                record.urls[copy.url],
                t.site_name(copy.site),
                copy.verified_ms,
                copy.found == record.sha256.hex(),
                copy.found,
            )
            for copy in outside
        ),
        at_ms=record.at_ms,
    )


def files_of_task(t: Tables, place: Place, record: r.TaskRecord) -> tuple[rows.FileRow, ...]:
    """Return what a complete task wrote, by name."""
    ds, job = place.ds, place.number
    mine = [
        _file_row(t, ds, key, entry)
        for key, entry in t.files.under(keys.files_of(keys.FILE, ds.number, job), 1 << 16)
        if entry.task == place.task and entry.attempt >= ds.record.attempt_base
    ]
    for name in record.done.shared if record.done is not None else ():
        key = keys.file(keys.FILE, ds.number, WHOLE_DATASET, name)
        entry_or_none = t.files.get(key)
        if entry_or_none is not None:
            mine.append(_file_row(t, ds, key, entry_or_none))
    return tuple(mine)


def logs_of_task(t: Tables, place: Place) -> tuple[rows.LogRow, ...]:
    """Return the logs of every attempt of a task, oldest attempt first."""
    prefix = keys.by_task(keys.LOG, place.ds.number, place.number, place.task)
    return tuple(
        rows.LogRow(place.task, keys.number_of(key, 11, 4), entry)
        for key, entry in t.logs.under(prefix, PAGE_MAX)
        if keys.number_of(key, 11, 4) >= place.ds.record.attempt_base
    )


def holders(kv: KeyValue, sha256: str) -> rows.BlobHolders:
    """Return who holds some content: nodes that recorded it as a blob, and sites with a file of that content."""
    t = Tables(kv)
    digest = bytes.fromhex(sha256)
    blob = t.blobs.get(keys.BLOB + digest)
    size_bytes = blob.size_bytes if blob is not None else 0
    sites: dict[str, None] = {}  # In order, without repeats.
    for key, _ in t.scan_keys(keys.CONTENT + digest[:16], HOLDERS_LOOK):
        file_key = keys.FILE + key[17:]
        record = t.files.get(file_key)
        ds = t.dataset(keys.number_of(file_key, 1, 4))
        if record is None or ds is None or record.sha256 != digest:
            continue
        size_bytes = record.size_bytes
        sites.update(dict.fromkeys(_file_row(t, ds, file_key, record).sites))
    return rows.BlobHolders(sha256, size_bytes, blob.node_ids if blob is not None else (), tuple(sites))
