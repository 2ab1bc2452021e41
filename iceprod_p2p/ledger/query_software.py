"""Queries about software: which builds of a version there are, and which blobs they are."""

from __future__ import annotations

from typing import Final

from iceprod_p2p.ledger import keys, limits, rows
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.software import is_software_name

PAGE_MAX: Final = 1_000


def software(
    kv: KeyValue, name: str = "", *, after: tuple[str, str, str] | None = None, limit: int = 100
) -> rows.Page[rows.SoftwareRow, tuple[str, str, str]]:
    """Return builds by name, version and platform: of every name, or of one."""
    t = Tables(kv)
    limit = min(limit, PAGE_MAX)
    prefix = keys.software(name) if name else keys.SOFTWARE
    start = prefix if after is None else keys.software(*after) + b"\x00"
    page = t.software.page(start, keys.prefix_stop(prefix), limit)
    found = tuple(_row(key, record) for key, record in page)
    last = found[-1] if len(found) == limit else None
    return rows.Page(found, (last.name, last.version, last.build.platform.text) if last else None)


def software_builds(kv: KeyValue, name: str, version: str) -> tuple[rows.SoftwareRow, ...]:
    """Return every build of one version, retired ones too; none when there is no such software."""
    if not is_software_name(name) or not is_software_name(version):
        return ()
    prefix = keys.software(name, version)
    found = Tables(kv).software.under(prefix, limits.SOFTWARE_PLATFORMS_MAX)
    return tuple(_row(key, record) for key, record in found)


def software_blobs(kv: KeyValue) -> frozenset[str]:
    """Return the SHA-256 of every build that has a record: blobs that must be kept."""
    found = Tables(kv).software.under(keys.SOFTWARE, limits.SOFTWARE_MAX)
    return frozenset(record.build.sha256 for _, record in found)


def _row(key: bytes, record: r.SoftwareRecord) -> rows.SoftwareRow:
    name, version, _ = key[1:].decode().split("\x00")
    return rows.SoftwareRow(
        name, version, record.build, record.owner, record.description, record.published_ms, record.retired
    )
