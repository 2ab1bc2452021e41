"""Typed tables over the flat key space, kept decoded for one entry and written back at its end.

Writing back once matters: a batch of sixty reports of one dataset changes its counters sixty times and stores
them once.  Index entries (keys without records) are written at once.  `Tables` lives for one entry, or for
one query on a snapshot; it never outlives the transaction it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.dag import Dag, dag_of
from iceprod_p2p.ledger.job import Job, decode_job, encode_job
from iceprod_p2p.ledger.keyvalue import KEY_BYTES_MAX, KeyValue
from iceprod_p2p.ledger.tally import Tally, decode_tallies, encode_tallies
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.resources import Requirements

__all__ = ["KEY_BYTES_MAX", "Dataset", "KeyValue", "Table", "Tables"]

R = TypeVar("R")
S = TypeVar("S", bound=msgspec.Struct)
_encode: Final = msgspec.msgpack.Encoder().encode


class Table(Generic[R]):
    """Records of one kind by key: read through, written back by `flush`."""

    __slots__ = ("_decode", "_dirty", "_encode", "_kv", "_records")

    def __init__(self, kv: KeyValue, decode: Callable[[bytes], R], encode: Callable[[R], bytes]) -> None:
        self._kv = kv
        self._decode = decode
        self._encode = encode
        self._records: dict[bytes, R | None] = {}
        self._dirty: set[bytes] = set()

    def get(self, key: bytes) -> R | None:
        """Return the record, or None. A mutable one may be changed if it is then given to `put`."""
        try:
            return self._records[key]
        except KeyError:
            raw = self._kv.get(key)
            record = None if raw is None else self._decode(raw)
            self._records[key] = record
            return record

    def put(self, key: bytes, record: R) -> None:
        """Set the record of `key`."""
        self._records[key] = record
        self._dirty.add(key)

    def delete(self, key: bytes) -> None:
        """Remove the record of `key`, if there is one."""
        self._records[key] = None
        self._dirty.add(key)

    def flush(self) -> None:
        """Write back what changed."""
        for key in sorted(self._dirty):
            record = self._records[key]
            if record is None:
                self._kv.delete(key)
            else:
                self._kv.put(key, self._encode(record))
        self._dirty.clear()

    @property
    def changed(self) -> bool:
        """Whether something is still to be written back."""
        return bool(self._dirty)

    def page(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, R]]:
        """Return up to `limit` records with ``start <= key < stop``, in order; what changed is written back first."""
        if self._dirty:
            self.flush()
        found: list[tuple[bytes, R]] = []
        for key, raw in self._kv.scan(start, stop):
            if len(found) >= limit:
                break
            known = self._records.get(key)
            found.append((key, known if known is not None else self._decode(raw)))
        return found

    def under(self, prefix: bytes, limit: int) -> list[tuple[bytes, R]]:
        """Return up to `limit` records whose keys have this prefix, in order."""
        return self.page(prefix, keys.prefix_stop(prefix), limit)


class Dataset:
    """One dataset in hand: its record, DAG, counters and cells; `save` marks what changed."""

    __slots__ = ("_cells", "_tables", "counts", "dag", "number", "record")

    def __init__(self, tables: Tables, record: r.DatasetRecord, dag: Dag, counts: r.DatasetCounts) -> None:
        self._tables = tables
        self._cells: dict[int, dict[int, list[int]]] = {}
        self.number = record.number
        self.record = record
        self.dag = dag
        self.counts = counts

    def cells(self, task: int) -> dict[int, list[int]]:
        """Counts of one task of the DAG: requirement class -> how many jobs have it in each state."""
        cells = self._cells.get(task)
        if cells is None:
            cells = self._tables.cells.get(keys.by_dataset_part(keys.CELLS, self.number, task)) or {}
            self._cells[task] = cells
        return cells

    def save_cells(self, task: int) -> None:
        """Note that the cells of `task` changed."""
        self._tables.cells.put(keys.by_dataset_part(keys.CELLS, self.number, task), self._cells[task])

    def save_counts(self) -> None:
        """Note that the counters changed."""
        self._tables.counts.put(keys.by_dataset(keys.COUNTS, self.number), self.counts)

    def replace(self, **changes: object) -> None:
        """Change fields of the record."""
        self.record = msgspec.structs.replace(self.record, **changes)
        self._tables.datasets.put(keys.by_dataset(keys.DATASET, self.number), self.record)


class Tables:
    """Every table of the ledger over one key space.

    `now_ms` is ledger time, `budget` what this entry may touch yet.
    """

    def __init__(self, kv: KeyValue) -> None:
        self.kv = kv
        self.budget = 0
        self.progress: r.Progress = self._single(keys.PROGRESS, r.Progress) or r.Progress()
        self._cluster: r.Cluster | None = None
        self._cluster_dirty = False
        self._dataset_views: dict[int, Dataset | None] = {}
        self._site_names: dict[int, str] = {}
        self.nodes = self._table(r.NodeRecord)
        self.sites = self._table(r.SiteRecord)
        self.site_tallies = self._table(r.SiteTally)
        self.people = self._table(r.PersonRecord)
        self.revoked = self._table(r.RevokedRecord)
        self.invitations = self._table(r.InvitationRecord)
        self.blobs = self._table(r.BlobRecord)
        self.sweeps = self._table(r.SweepRecord)
        self.host_faults = self._table(r.HostFaults)
        self.requirements = self._table(Requirements)
        self.shares = self._table(r.ShareRecord)
        self.datasets = self._table(r.DatasetRecord)
        self.counts = self._table(r.DatasetCounts)
        self.transfers = self._table(r.TransferRecord)
        self.tasks = self._table(r.TaskRecord)
        self.runs = self._table(r.RunRecord)
        self.faults = self._table(r.FaultRecord)
        self.files = self._table(r.FileRecord)
        self.copies = self._table(r.CopiesRecord)
        self.logs = self._table(FileEntry)
        self.numbers: Table[int] = Table(kv, _decode_int, _encode)
        self.cells: Table[dict[int, list[int]]] = Table(kv, _decode_cells, _encode_cells)
        self.statistics: Table[dict[str, float]] = Table(kv, _decode_statistics, _encode)
        self.jobs: Table[Job] = Table(kv, decode_job, encode_job)
        self.tallies: Table[dict[str, Tally]] = Table(kv, decode_tallies, encode_tallies)
        self._all: tuple[Table[object], ...] = tuple(
            table for table in vars(self).values() if isinstance(table, Table)
        )

    def _single(self, key: bytes, kind: type[S]) -> S | None:
        raw = self.kv.get(key)
        return None if raw is None else msgspec.msgpack.decode(raw, type=kind)

    def _table(self, kind: type[S]) -> Table[S]:
        return Table(self.kv, _decoder_of(kind), _encode)

    @property
    def now_ms(self) -> int:
        """Ledger time."""
        return self.progress.time_ms

    @property
    def cluster(self) -> r.Cluster | None:
        """The cluster's record, None before it is founded; `save_cluster` notes a change."""
        if self._cluster is None:
            self._cluster = self._single(keys.CLUSTER, r.Cluster)
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
        found = self.requirements.get(keys.by_number(keys.REQUIREMENTS, number))
        assert found is not None, f"requirement class {number} was never given out"
        return found

    def scan_keys(self, prefix: bytes, limit: int, *, after: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Return up to `limit` index entries with this prefix, in order, beyond `after` if given."""
        start = after + b"\x00" if after else prefix
        return _take(self.kv.scan(start, keys.prefix_stop(prefix)), limit)

    def scan_range(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return up to `limit` stored pairs with ``start <= key < stop``, in order."""
        return _take(self.kv.scan(start, stop), limit)

    def flush_records(self) -> None:
        """Write back every changed record of the tables, so that a scan of keys sees them."""
        for table in self._all:
            if table.changed:
                table.flush()

    def flush(self) -> None:
        """Write back everything that changed."""
        self.flush_records()
        if self._cluster_dirty and self._cluster is not None:
            self.kv.put(keys.CLUSTER, _encode(self._cluster))
            self._cluster_dirty = False
        self.kv.put(keys.PROGRESS, _encode(self.progress))


def _take(pairs: Iterator[tuple[bytes, bytes]], limit: int) -> list[tuple[bytes, bytes]]:
    page: list[tuple[bytes, bytes]] = []
    for pair in pairs:
        if len(page) >= limit:
            break
        page.append(pair)
    return page


_decoders: dict[type, Callable[[bytes], object]] = {}
_decode_int: Final = msgspec.msgpack.Decoder(int).decode
_decode_cells: Final = msgspec.msgpack.Decoder(dict[int, list[int]]).decode
_decode_statistics: Final = msgspec.msgpack.Decoder(dict[str, float]).decode


def _decoder_of(kind: type[S]) -> Callable[[bytes], S]:
    decode = _decoders.get(kind)
    if decode is None:
        decode = _decoders[kind] = msgspec.msgpack.Decoder(kind).decode
    return decode  # type: ignore[return-value]


def _encode_cells(cells: dict[int, list[int]]) -> bytes:
    return _encode(dict(sorted(cells.items())))
