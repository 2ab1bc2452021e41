"""Typed tables over the flat key space, kept decoded for one entry and written back at its end.

Writing back once matters: a batch of sixty reports of one dataset changes its counters sixty times and stores
them once.  Index entries (keys without records) are written at once.  `Tables` lives for one entry, or for
one query on a snapshot; it never outlives the transaction it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger import records_trust as rt
from iceprod_p2p.ledger.dag import Dag, dag_of
from iceprod_p2p.ledger.job import Job, decode_job, encode_job
from iceprod_p2p.ledger.keyvalue import KEY_BYTES_MAX, KeyValue
from iceprod_p2p.ledger.limits import CLAIM_DATASETS, REQUIREMENTS_PAGE
from iceprod_p2p.ledger.table import Table
from iceprod_p2p.ledger.tally import Tally, decode_tallies, encode_tallies
from iceprod_p2p.ledger.versions import VERSION_LEAST, row_fields_known
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.resources import Requirements

__all__ = ["KEY_BYTES_MAX", "Dataset", "KeyValue", "Table", "Tables"]

_encode: Final = msgspec.msgpack.Encoder().encode
# How rows are read and written; None: what is written depends on the version.
_Codec = tuple[Callable[[bytes], Any], Callable[[Any], bytes] | None]


class Dataset:
    """One dataset in hand: its record, DAG, counters and cells; `save` marks what changed."""

    __slots__ = (
        "_cell_keys",
        "_cells",
        "_counts_key",
        "_roots",
        "_site_keys",
        "_tables",
        "counts",
        "dag",
        "number",
        "record",
        "share_keys",
    )

    def __init__(self, tables: Tables, record: r.DatasetRecord, dag: Dag, counts: r.DatasetCounts) -> None:
        self._tables = tables
        self._cells: dict[int, dict[int, list[int]]] = {}
        self._cell_keys = [
            keys.by_dataset_part(keys.CELLS, record.number, task) for task in range(len(dag.shapes))
        ]
        self._counts_key = keys.by_dataset(keys.COUNTS, record.number)
        self._roots: dict[int, list[tuple[int, int]]] = {}
        self._site_keys: dict[int, tuple[bytes, bytes]] = {}
        self.number = record.number
        self.record = record
        self.dag = dag
        self.counts = counts
        self.share_keys = _share_keys(record)

    def cells(self, task: int) -> dict[int, list[int]]:
        """Counts of one task of the DAG: requirement class -> how many jobs have it in each state."""
        cells = self._cells.get(task)
        if cells is None:
            cells = self._tables.cells.get(self._cell_keys[task]) or {}
            self._cells[task] = cells
        return cells

    def save_cells(self, task: int) -> None:
        """Note that the cells of `task` changed."""
        self._tables.cells.put(self._cell_keys[task], self._cells[task])

    def save_counts(self) -> None:
        """Note that the counters changed."""
        self._tables.counts.put(self._counts_key, self.counts)

    def site_keys(self, site: int) -> tuple[bytes, bytes]:
        """The keys of a site's tallies: of all datasets, and of this one."""
        found = self._site_keys.get(site)
        if found is None:
            found = (
                keys.by_number(keys.SITE_TALLY, site),
                keys.by_dataset_part(keys.DATASET_SITE, self.number, site),
            )
            self._site_keys[site] = found
        return found

    def roots(self, requirements: int) -> list[tuple[int, int]]:
        """The root tasks of one requirement class, each with its watermark's slot."""
        found = self._roots.get(requirements)
        if found is None:
            classes = self.record.requirements
            found = [(task, slot) for task, slot in self.dag.slots.items() if classes[task] == requirements]
            self._roots[requirements] = found
        return found

    def replace(self, **changes: object) -> None:
        """Change fields of the record."""
        self.record = msgspec.structs.replace(self.record, **changes)
        if "owner" in changes or "group" in changes:
            self.share_keys = _share_keys(self.record)
        self._tables.datasets.put(keys.by_dataset(keys.DATASET, self.number), self.record)


def _share_keys(record: r.DatasetRecord) -> tuple[bytes, bytes]:
    """The shares that a dataset counts for: its group's and its owner's."""
    return keys.by_name(keys.SHARE, "g" + record.group), keys.by_name(keys.SHARE, "o" + record.owner)


class Tables:
    """Every table of the ledger over one key space.

    `now_ms` is ledger time, `budget` what this entry may touch yet.
    """

    nodes: Table[r.NodeRecord]
    sites: Table[r.SiteRecord]
    site_tallies: Table[r.SiteTally]
    people: Table[r.PersonRecord]
    revoked: Table[r.RevokedRecord]
    invitations: Table[r.InvitationRecord]
    roots: Table[rt.RootRecord]
    people_authorities: Table[rt.AuthoritiesRecord]
    shut_out: Table[rt.ShutOutRecord]
    node_authorities: Table[rt.NodeAuthorities]
    blobs: Table[r.BlobRecord]
    software: Table[r.SoftwareRecord]
    sweeps: Table[r.SweepRecord]
    host_faults: Table[r.HostFaults]
    requirements: Table[Requirements]
    shares: Table[r.ShareRecord]
    datasets: Table[r.DatasetRecord]
    counts: Table[r.DatasetCounts]
    transfers: Table[r.TransferRecord]
    tasks: Table[r.TaskRecord]
    runs: Table[r.RunRecord]
    faults: Table[r.FaultRecord]
    files: Table[r.FileRecord]
    copies: Table[r.CopiesRecord]
    logs: Table[FileEntry]
    dataset_blobs: Table[tuple[bytes, ...]]
    numbers: Table[int]
    cells: Table[dict[int, list[int]]]
    statistics: Table[dict[str, float]]
    jobs: Table[Job]
    tallies: Table[dict[str, Tally]]

    def __init__(self, kv: KeyValue) -> None:
        self.kv = kv
        self.budget = 0
        progress = kv.get(keys.PROGRESS)
        self.progress: r.Progress = r.Progress() if progress is None else _decode_progress(progress)
        self._cluster: r.Cluster | None = None
        self._cluster_dirty = False
        self._dataset_views: dict[int, Dataset | None] = {}
        self._site_names: dict[int, str] = {}
        self._classes: dict[int, Requirements] = {}
        self._ready_classes: list[int] | None = None
        self._active: dict[int, list[int]] = {}
        self._made: list[Table[Any]] = []
        self.followed: set[int] = set()  # Datasets that have moved, and that others follow; walked in order.

    def __getattr__(self, name: str) -> Table[Any]:
        """Make a table when it is first asked for: an entry or query needs few of them."""
        made = _TABLES.get(name)
        if made is None:
            raise AttributeError(name)
        decode, encode = made
        table: Table[Any] = Table(self.kv, decode, encode or self._encode_as_known)
        setattr(self, name, table)
        self._made.append(table)
        return table

    @property
    def now_ms(self) -> int:
        """Ledger time."""
        return self.progress.time_ms

    @property
    def version(self) -> int:
        """The ledger's version, of the whole cluster: a rule that changes with a release asks it."""
        return self.progress.version

    @property
    def cluster(self) -> r.Cluster | None:
        """The cluster's record, None before it is founded; `save_cluster` notes a change."""
        if self._cluster is None:
            cluster = self.kv.get(keys.CLUSTER)
            self._cluster = None if cluster is None else _decode_cluster(cluster)
        return self._cluster

    def save_cluster(self, cluster: r.Cluster) -> None:
        """Note that the cluster's record changed."""
        self._cluster = cluster
        self._cluster_dirty = True

    def dataset(self, number: int) -> Dataset | None:
        """Return a dataset in hand; None when there is none, or when it was deleted."""
        try:
            return self._dataset_views[number]
        except KeyError:
            view = self._load_dataset(number)
            self._dataset_views[number] = view
            return view

    def dataset_even_deleted(self, number: int) -> Dataset | None:
        """Return a dataset that may be on its way out: for the sweep that removes it."""
        return self.dataset(number) or self._load_dataset(number, deleted=True)

    def _load_dataset(self, number: int, *, deleted: bool = False) -> Dataset | None:
        record = self.datasets.get(keys.by_dataset(keys.DATASET, number))
        if record is None or record.deleted is not deleted:
            return None
        shapes = self.kv.get(keys.by_dataset(keys.SHAPES, number))
        counts = self.counts.get(keys.by_dataset(keys.COUNTS, number))
        assert shapes is not None and counts is not None
        return Dataset(self, record, dag_of(shapes), counts)

    def hold_dataset(self, record: r.DatasetRecord, shapes: bytes, counts: r.DatasetCounts) -> Dataset:
        """Store a new dataset and return it in hand."""
        self.kv.put(keys.by_dataset(keys.SHAPES, record.number), shapes)
        self.datasets.put(keys.by_dataset(keys.DATASET, record.number), record)
        self.counts.put(keys.by_dataset(keys.COUNTS, record.number), counts)
        view = Dataset(self, record, dag_of(shapes), counts)
        self._dataset_views[record.number] = view
        return view

    def forget_dataset(self, number: int) -> None:
        """Drop the view of a dataset: the next look reads its record again."""
        self._dataset_views.pop(number, None)

    def site(self, name: str) -> r.SiteRecord | None:
        """Return a site by name."""
        return self.sites.get(keys.by_name(keys.SITE, name))

    def site_name(self, number: int) -> str:
        """Return the name of a site's number; empty for 0, which stands for no site."""
        name = self._site_names.get(number)
        if name is None:
            name = (self.kv.get(keys.by_number(keys.SITE_NAME, number)) or b"").decode()
            self._site_names[number] = name
        return name

    def site_tally(self, site: int) -> r.SiteTally:
        """Return what a site holds and did, of all datasets, for reading or changing (then `save_site_tally`)."""
        return self.site_tallies.get(keys.by_number(keys.SITE_TALLY, site)) or r.SiteTally()

    def requirements_of(self, number: int) -> Requirements:
        """Return the requirements of a class."""
        found = self._classes.get(number)
        if found is None:
            found = self.requirements.get(keys.by_number(keys.REQUIREMENTS, number))
            assert found is not None, f"requirement class {number} was never given out"
            self._classes[number] = found
        return found

    def ready_classes(self) -> list[int]:
        """Return the requirement classes with ready tasks, lowest numbers first, at most a page of them."""
        if self._ready_classes is None:
            page = self.numbers.under(keys.REQUIREMENTS_READY, REQUIREMENTS_PAGE)
            self._ready_classes = [keys.number_of(key, 1, 2) for key, _ in page]
        return self._ready_classes

    def active_datasets(self, requirements: int) -> list[int]:
        """Return the datasets with ready tasks of a class, by priority and age, as many as one claim looks at."""
        found = self._active.get(requirements)
        if found is None:
            page = self.scan_keys(keys.by_number(keys.ACTIVE, requirements), CLAIM_DATASETS)
            found = self._active[requirements] = [keys.number_of(key, 5, 4) for key, _ in page]
        return found

    def set_active(self, requirements: int, priority: int, dataset: int, *, active: bool) -> None:
        """Note that a dataset has, or has no more, ready tasks of a class."""
        key = keys.active(requirements, priority, dataset)
        if active:
            self.kv.put(key, b"")
        else:
            self.kv.delete(key)
        self._active.pop(requirements, None)

    def shift_ready_class(self, requirements: int, delta: int) -> None:
        """Note that `delta` more tasks of a class are ready anywhere."""
        key = keys.by_number(keys.REQUIREMENTS_READY, requirements)
        before = self.numbers.get(key) or 0
        after = before + delta
        if after:
            self.numbers.put(key, after)
        else:
            self.numbers.delete(key)
        if not before or not after:
            self._ready_classes = None

    def scan_keys(self, prefix: bytes, limit: int, *, after: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Return up to `limit` index entries with this prefix, in order, beyond `after` if given."""
        start = after + b"\x00" if after else prefix
        return _take(self.kv.scan(start, keys.prefix_stop(prefix)), limit)

    def scan_range(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return up to `limit` stored pairs with ``start <= key < stop``, in order."""
        return _take(self.kv.scan(start, stop), limit)

    def flush_records(self) -> None:
        """Write back every changed record of the tables, so that a scan of keys sees them."""
        for table in self._made:
            if table.changed:
                table.flush()

    def flush(self) -> None:
        """Write back everything that changed."""
        self.flush_records()
        if self._cluster_dirty and self._cluster is not None:
            self.kv.put(keys.CLUSTER, self._encode_as_known(self._cluster))
            self._cluster_dirty = False
        self.kv.put(keys.PROGRESS, _encode(self.progress))

    def _encode_as_known(self, record: Any) -> bytes:
        """Encode a record with the fields that every program of the ledger's version writes."""
        known = row_fields_known(type(record).__name__, self.version)
        return _encode(record if known is None else msgspec.structs.astuple(record)[:known])


def _take(pairs: Iterator[tuple[bytes, bytes]], limit: int) -> list[tuple[bytes, bytes]]:
    page: list[tuple[bytes, bytes]] = []
    for pair in pairs:
        if len(page) >= limit:
            break
        page.append(pair)
    return page


_decode_progress: Final = msgspec.msgpack.Decoder(r.Progress).decode
_decode_cluster: Final = msgspec.msgpack.Decoder(r.Cluster).decode


def _encode_cells(cells: dict[int, list[int]]) -> bytes:
    return _encode(dict(sorted(cells.items())))


def _plain(kind: Any) -> _Codec:
    grown = row_fields_known(kind.__name__, VERSION_LEAST) is not None
    return msgspec.msgpack.Decoder(kind).decode, None if grown else _encode


_TABLES: Final[dict[str, _Codec]] = {
    "nodes": _plain(r.NodeRecord),
    "sites": _plain(r.SiteRecord),
    "site_tallies": _plain(r.SiteTally),
    "people": _plain(r.PersonRecord),
    "revoked": _plain(r.RevokedRecord),
    "invitations": _plain(r.InvitationRecord),
    "roots": _plain(rt.RootRecord),
    "people_authorities": _plain(rt.AuthoritiesRecord),
    "shut_out": _plain(rt.ShutOutRecord),
    "node_authorities": _plain(rt.NodeAuthorities),
    "blobs": _plain(r.BlobRecord),
    "software": _plain(r.SoftwareRecord),
    "sweeps": _plain(r.SweepRecord),
    "host_faults": _plain(r.HostFaults),
    "requirements": _plain(Requirements),
    "shares": _plain(r.ShareRecord),
    "datasets": _plain(r.DatasetRecord),
    "counts": _plain(r.DatasetCounts),
    "transfers": _plain(r.TransferRecord),
    "tasks": _plain(r.TaskRecord),
    "runs": _plain(r.RunRecord),
    "faults": _plain(r.FaultRecord),
    "files": _plain(r.FileRecord),
    "copies": _plain(r.CopiesRecord),
    "logs": _plain(FileEntry),
    "dataset_blobs": _plain(tuple[bytes, ...]),
    "numbers": _plain(int),
    "statistics": _plain(dict[str, float]),
    "cells": (msgspec.msgpack.Decoder(dict[int, list[int]]).decode, _encode_cells),
    "jobs": (decode_job, encode_job),
    "tallies": (decode_tallies, encode_tallies),
}
