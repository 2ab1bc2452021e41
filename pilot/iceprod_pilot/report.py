"""What the pilot owes the cluster: orders it accepted and reports nobody has acknowledged, kept on disk until then.

    state_dir/orders/DATASET.JOB.TASK-ATTEMPT     an order that was accepted and is not settled
    state_dir/reports/NUMBER                      a report, sent again and again until some node acknowledges it

Files are written whole but not synced: a worker node that loses its power loses the work too, and the cluster takes
the task back by itself.  Both hold passkeys, so both directories are 0700.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.security.keyfiles import make_private_directory
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2

_LOG = get_logger("pilot.report")
REPORTS_PER_EXCHANGE_MAX: Final = 256
REPORT_BYTES_PER_EXCHANGE_MAX: Final = (
    1024 * 1024
)  # A quarter of the largest message; one report always goes.
_COUNT_BITS: Final = 40  # Of a report's or exchange's number; the bits above count the pilot's lives.


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


class Journal:
    """Orders and reports.  Thread-safe.

    Numbers grow over restarts too: each life of the pilot counts from a place of its own.
    """

    def __init__(self, state_dir: Path) -> None:
        make_private_directory(state_dir)
        self._orders_dir, self._reports_dir = state_dir / "orders", state_dir / "reports"
        for path in (self._orders_dir, self._reports_dir):
            make_private_directory(path)
        self._lock = threading.Lock()
        self._count = _next_life(state_dir / "lives") << _COUNT_BITS
        self._exchanges = self._count
        self._reports: dict[int, pilot_pb2.Report] = {}
        self._load_reports()
        self._newest = max(self._reports, default=0)

    def next_exchange_id(self) -> int:
        """Return a number larger than any before, also in earlier lives."""
        with self._lock:
            self._exchanges += 1
            return self._exchanges

    def accept(self, order: pilot_pb2.Order) -> None:
        """Keep an order until its task is settled."""
        _write(self._orders_dir / str(Ref.of(order.ref)), order.SerializeToString())

    def unsettled(self) -> list[pilot_pb2.Order]:
        """Return orders of an earlier life for which no report was made."""
        reported = {Ref.of(report.ref) for report in self.pending() if not report.HasField("copying")}
        orders = []
        for path in sorted(self._orders_dir.iterdir()):
            order = pilot_pb2.Order()
            try:
                order.ParseFromString(path.read_bytes())
            except (DecodeError, OSError):
                order.Clear()
            if str(Ref.of(order.ref)) != path.name:
                _LOG.warning("kept order unreadable", path=str(path))
                path.unlink(missing_ok=True)
            elif Ref.of(order.ref) not in reported:
                orders.append(order)
        return orders

    def add(self, report: pilot_pb2.Report) -> None:
        """Number and keep a report."""
        with self._lock:
            self._count += 1
            report.report_id = self._count
            _write(self._reports_dir / str(report.report_id), report.SerializeToString())
            self._reports[report.report_id] = report
            self._newest = report.report_id

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
        settled = []
        with self._lock:
            for number in report_ids:
                report = self._reports.pop(number, None)
                if report is None:
                    continue
                settled.append(report)
                (self._reports_dir / str(number)).unlink(missing_ok=True)
                if not report.HasField("copying"):
                    (self._orders_dir / str(Ref.of(report.ref))).unlink(missing_ok=True)
        return settled

    def drop(self, ref: Ref) -> None:
        """Forget an attempt and everything to be said about it."""
        with self._lock:
            numbers = [number for number, report in self._reports.items() if Ref.of(report.ref) == ref]
            for number in numbers:
                del self._reports[number]
                (self._reports_dir / str(number)).unlink(missing_ok=True)
            (self._orders_dir / str(ref)).unlink(missing_ok=True)

    def _load_reports(self) -> None:
        for path in self._reports_dir.iterdir():
            report = pilot_pb2.Report()
            try:
                report.ParseFromString(path.read_bytes())
            except (DecodeError, OSError):
                report.Clear()
            if path.name.isdigit() and report.report_id == int(path.name):
                self._reports[report.report_id] = report
                continue
            _LOG.warning("kept report unreadable", path=str(path))
            path.unlink(missing_ok=True)


def _next_life(path: Path) -> int:
    try:
        life = int(path.read_text()) + 1
    except (OSError, ValueError):
        life = 1
    _write(path, str(life).encode())
    return life


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
    os.replace(scratch, path)
