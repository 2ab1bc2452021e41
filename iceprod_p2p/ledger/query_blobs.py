"""Queries about blobs: who holds them, who needs them, and which copies of files have served."""

from __future__ import annotations

from typing import Final

from iceprod_p2p.ledger import keys, rows
from iceprod_p2p.ledger.commands import ReplicaRef
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.limits import BLOB_GRACE_MS
from iceprod_p2p.ledger.rules.blobs import is_needed
from iceprod_p2p.ledger.rules.files import copies_of
from iceprod_p2p.ledger.spent import is_spent
from iceprod_p2p.ledger.tables import Tables

PAGE_MAX: Final = 1_000
USES_LOOK: Final = 256  # Files of the same content that are looked at: with more, the content is in use.


def blobs(kv: KeyValue, *, after: str = "", limit: int = PAGE_MAX) -> rows.Page[rows.BlobRow, str]:
    """Return recorded blobs in the order of their SHA-256, each with its holders and whether anything needs it."""
    t = Tables(kv)
    limit = min(limit, PAGE_MAX)
    start = keys.BLOB + bytes.fromhex(after) + b"\x00" if after else keys.BLOB
    page = t.blobs.page(start, keys.prefix_stop(keys.BLOB), limit)
    found = tuple(
        rows.BlobRow(
            key[1:].hex(),
            record.size_bytes,
            record.node_ids,
            is_needed(t, key[1:]),
            record.recorded_ms + BLOB_GRACE_MS <= t.now_ms,
        )
        for key, record in page
    )
    return rows.Page(found, found[-1].sha256 if len(page) == limit else None)


def lent(kv: KeyValue, sha256: str, site: str) -> tuple[ReplicaRef, ...]:
    """Return the file records of some content that `site` need not keep, none if there is any reason to keep it.

    All of them were written by other sites, which are alive and have good copies by the record, and nothing keeps it as
    a blob.
    """
    t = Tables(kv)
    digest = bytes.fromhex(sha256)
    page = t.scan_keys(keys.CONTENT + digest[:16], USES_LOOK + 1)
    mine = t.site(site)
    if mine is None or len(page) > USES_LOOK:
        return ()
    if t.blobs.get(keys.BLOB + digest) is not None or t.scan_keys(keys.BLOB_USE + digest, 1):
        return ()
    found = []
    for key, _ in page:
        file_key = keys.FILE + key[17:]
        record = t.files.get(file_key)
        if record is None or record.sha256 != digest:
            continue
        copies = copies_of(t, file_key, record)
        writer = t.site(t.site_name(record.site))
        if writer is None or record.site == mine.number or writer.alive_until_ms <= t.now_ms:
            return ()
        if not any(copy.site == record.site and copy.good for copy in copies):
            return ()
        number, job = keys.number_of(file_key, 1, 4), keys.number_of(file_key, 5, 4) - 1
        found.append(ReplicaRef(number, job, file_key[9:].decode()))
    return tuple(found)


def spare_holders(kv: KeyValue, sha256: str) -> tuple[str, ...]:
    """Return the nodes that hold a blob and whose sites are alive; none if a file has the same content."""
    t = Tables(kv)
    digest = bytes.fromhex(sha256)
    record = t.blobs.get(keys.BLOB + digest)
    if record is None or t.scan_keys(keys.CONTENT + digest[:16], 1):
        return ()
    nodes = ((node, t.nodes.get(keys.by_name(keys.NODE, node))) for node in record.node_ids)
    sites = ((node, t.site(known.member.site)) for node, known in nodes if known is not None)
    return tuple(node for node, site in sites if site is not None and site.alive_until_ms > t.now_ms)


def uses(kv: KeyValue, sha256: str) -> rows.ContentUses:
    """Return who needs some content: whether it is kept as a blob, and each file record that names it."""
    t = Tables(kv)
    digest = bytes.fromhex(sha256)
    kept = t.blobs.get(keys.BLOB + digest) is not None or bool(t.scan_keys(keys.BLOB_USE + digest, 1))
    page = t.scan_keys(keys.CONTENT + digest[:16], USES_LOOK + 1)
    found = []
    for key, _ in page:
        file_key = keys.FILE + key[17:]
        record = t.files.get(file_key)
        number, job = keys.number_of(file_key, 1, 4), keys.number_of(file_key, 5, 4) - 1
        ds = t.dataset(number)
        if record is None or record.sha256 != digest or ds is None:
            continue
        if record.attempt < ds.record.attempt_base:
            continue  # Void since a reset of its dataset.
        found.append(
            rows.FileUse(number, job, file_key[9:].decode(), record.kind, is_spent(t, ds, job, record))
        )
    return rows.ContentUses(sha256, kept or len(page) > USES_LOOK, tuple(found))
