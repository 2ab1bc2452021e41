"""What the pilot owes the cluster: orders it accepted and reports nobody has acknowledged, kept on disk until then.

state_dir/journal holds records one after the other: an order accepted, a report made, a report or an attempt settled.

One file that only grows costs a microsecond a record; a restart, and now and then its size, make it anew from what is
still owed.  Records are not synced: a worker node that loses its power loses the work too, and the cluster takes the
task back by itself.  The journal holds passkeys, so it is for its owner alone.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.security.keyfiles import make_private_directory
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2

_LOG = get_logger("pilot.report")
REPORTS_PER_EXCHANGE_MAX: Final = 256
REPORT_BYTES_PER_EXCHANGE_MAX: Final = (
    1024 * 1024
)  # A quarter of the largest message; one report always goes.
JOURNAL_BYTES_MAX: Final = 8 * 1024 * 1024  # Then it is made anew.
_RECORD_BYTES_MAX: Final = 16 * 1024 * 1024  # More than any message may have.
_COUNT_BITS: Final = 40  # Of a report's or exchange's number; the bits above count the pilot's lives.
_HEAD: Final = struct.Struct(">BII")  # Kind, length, CRC-32 of what follows.


class Ref(NamedTuple):
    """One attempt of one task."""

    dataset: int
    job: int
    task: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.dataset}.{self.job}.{self.task}-{self.attempt}"

    @classmethod
    def of(cls, message: common_pb2.TaskRef) -> Ref:
        """Return the attempt that a message names."""
        return cls(message.dataset, message.job, message.task, message.attempt)

    def message(self) -> common_pb2.TaskRef:
        """Return it as a message."""
        return common_pb2.TaskRef(dataset=self.dataset, job=self.job, task=self.task, attempt=self.attempt)


class _Kind(IntEnum):
    LIFE = 1  # The pilot's life in which what follows was written.
    ORDER = 2
    REPORT = 3
    SETTLED = 4  # A report, by its number.
    DROPPED = 5  # An attempt with everything said about it.


class Owed(NamedTuple):
    """What a journal says is still owed."""

    life: int
    orders: dict[Ref, pilot_pb2.Order]
    reports: dict[int, pilot_pb2.Report]


class Journal:
    """Orders and reports.  Thread-safe; OSError when the journal cannot be made, later only a warning.

    Numbers grow over restarts too: each life of the pilot counts from a place of its own.
    """

    def __init__(self, state_dir: Path) -> None:
        make_private_directory(state_dir)
        self._path = state_dir / "journal"
        self._lock = threading.Lock()
        life, self._orders, self._reports = read_journal(self._path)
        self._life = life + 1
        self._count = self._exchanges = self._life << _COUNT_BITS
        self._newest = max(self._reports, default=0)
        self._size = 0
        self._torn = False  # The file's end may hold half a record: it must be made anew.
        self._file = self._made_anew()

    def next_exchange_id(self) -> int:
        """Return a number larger than any before, also in earlier lives."""
        with self._lock:
            self._exchanges += 1
            return self._exchanges

    def accept(self, orders: Iterable[pilot_pb2.Order]) -> None:
        """Keep orders until their tasks are settled."""
        with self._lock:
            records = []
            for order in orders:
                self._orders[Ref.of(order.ref)] = order
                records.append(_record(_Kind.ORDER, order.SerializeToString()))
            self._write(*records)

    def unsettled(self) -> list[pilot_pb2.Order]:
        """Return orders for which no report was made that ends them."""
        with self._lock:
            ended = {
                Ref.of(report.ref) for report in self._reports.values() if not report.HasField("copying")
            }
            return [order for ref, order in self._orders.items() if ref not in ended]

    def add(self, report: pilot_pb2.Report) -> None:
        """Number and keep a report."""
        with self._lock:
            self._count += 1
            report.report_id = self._count
            self._reports[report.report_id] = report
            self._newest = report.report_id
            self._write(_record(_Kind.REPORT, report.SerializeToString()))

    def pending(self) -> list[pilot_pb2.Report]:
        """Return every report without acknowledgement, oldest first."""
        with self._lock:
            return [self._reports[number] for number in sorted(self._reports)]

    @property
    def pending_count(self) -> int:
        """How many reports nobody has acknowledged."""
        return len(self._reports)

    @property
    def newest(self) -> int:
        """The number of the newest report, whether it is still pending or not; 0 when there was none."""
        return self._newest

    def batch(self) -> tuple[list[pilot_pb2.Report], int]:
        """Return the oldest reports that fit one exchange, and the number up to which none is left out."""
        newest = self._newest
        chosen: list[pilot_pb2.Report] = []
        size = 0
        for report in self.pending():
            size += report.ByteSize()
            if chosen and (size > REPORT_BYTES_PER_EXCHANGE_MAX or len(chosen) >= REPORTS_PER_EXCHANGE_MAX):
                return chosen, chosen[-1].report_id
            chosen.append(report)
        return chosen, newest

    def settle(self, report_ids: Iterable[int]) -> list[pilot_pb2.Report]:
        """Forget acknowledged reports, and the order of each unless it was a mere progress report; return them."""
        settled, records = [], []
        with self._lock:
            for number in report_ids:
                report = self._reports.get(number)
                if report is not None:
                    settled.append(report)
                    _settle(self._orders, self._reports, number)
                    records.append(_record(_Kind.SETTLED, number.to_bytes(8, "big")))
            self._write(*records)
        return settled

    def drop(self, ref: Ref) -> None:
        """Forget an attempt and everything to be said about it."""
        with self._lock:
            _drop(self._orders, self._reports, ref)
            self._write(_record(_Kind.DROPPED, ref.message().SerializeToString()))

    def _write(self, *records: bytes) -> None:
        """Append records by one call: what is cut short is left out when the journal is read."""
        content = b"".join(records)
        if not content:
            return
        try:
            written = 0 if self._torn else os.write(self._file, content)
            self._torn = written < len(content)
            self._size += written
            if self._torn or self._size > JOURNAL_BYTES_MAX:
                # It holds what is owed now, these records included.
                whole = self._made_anew()
                os.close(self._file)
                self._file, self._torn = whole, False
        except OSError as fault:
            # A full disk must not end the pilot: what is owed stays in memory, and a restart alone would miss it.
            self._torn = True
            _LOG.warning("journal not written", fault=fault.strerror)

    def _made_anew(self) -> int:
        """Write a journal of what is owed now in place of the old one; return it opened."""
        scratch = self._path.with_name(".journal.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(scratch, flags, 0o600)
        records = [_record(_Kind.LIFE, self._life.to_bytes(8, "big"))]
        records += [_record(_Kind.ORDER, order.SerializeToString()) for order in self._orders.values()]
        records += [_record(_Kind.REPORT, report.SerializeToString()) for report in self._reports.values()]
        try:
            for record in records:
                if os.write(descriptor, record) < len(record):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.replace(scratch, self._path)
        except OSError:
            os.close(descriptor)
            raise
        # Half of the bound at least must go by before the next time, however much is owed.
        self._size = min(sum(map(len, records)), JOURNAL_BYTES_MAX // 2)
        return descriptor


def read_journal(path: Path) -> Owed:
    """Return what a journal says is owed; records after a damaged one are left out, which the log says."""
    owed = Owed(0, {}, {})
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return owed
    life = 0
    for kind, content in _records(data):
        match kind:
            case _Kind.LIFE:
                life = int.from_bytes(content, "big")
            case _Kind.ORDER:
                order = pilot_pb2.Order.FromString(content)
                owed.orders[Ref.of(order.ref)] = order
            case _Kind.REPORT:
                report = pilot_pb2.Report.FromString(content)
                owed.reports[report.report_id] = report
            case _Kind.SETTLED:
                _settle(owed.orders, owed.reports, int.from_bytes(content, "big"))
            case _Kind.DROPPED:
                _drop(owed.orders, owed.reports, Ref.of(common_pb2.TaskRef.FromString(content)))
    return owed._replace(life=life)


def _records(data: bytes) -> Iterator[tuple[_Kind, bytes]]:
    """Yield whole records whose checksum is right, up to the first that is not."""
    offset = 0
    while offset < len(data):
        end = offset + _HEAD.size
        try:
            number, size, checksum = _HEAD.unpack_from(data, offset)
            content = data[end : end + size]
            if size > _RECORD_BYTES_MAX or len(content) < size or zlib.crc32(content) != checksum:
                raise ValueError("a record is cut short or altered")
            kind = _Kind(number)
        except (struct.error, ValueError) as damage:
            _LOG.warning("journal damaged", offset=offset, left_out_bytes=len(data) - offset, why=str(damage))
            return
        yield kind, content
        offset = end + size


def _record(kind: _Kind, content: bytes) -> bytes:
    return _HEAD.pack(kind, len(content), zlib.crc32(content)) + content


def _settle(orders: dict[Ref, pilot_pb2.Order], reports: dict[int, pilot_pb2.Report], number: int) -> None:
    report = reports.pop(number, None)
    if report is not None and not report.HasField("copying"):
        orders.pop(Ref.of(report.ref), None)


def _drop(orders: dict[Ref, pilot_pb2.Order], reports: dict[int, pilot_pb2.Report], ref: Ref) -> None:
    orders.pop(ref, None)
    for number in [number for number, report in reports.items() if Ref.of(report.ref) == ref]:
        del reports[number]
