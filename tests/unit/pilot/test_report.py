"""What a pilot owes is kept until it is acknowledged, over restarts too."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from iceprod_pilot import report as module
from iceprod_pilot.report import Journal, Ref, read_journal

from iceprod_p2p.wire.pb import common_pb2, pilot_pb2


def order(job: int) -> pilot_pb2.Order:
    return pilot_pb2.Order(ref=Ref(1, job, 0, 0).message(), passkey=b"key", task_name="t")


def finished(job: int, *, padding: int = 0) -> pilot_pb2.Report:
    report = pilot_pb2.Report(ref=Ref(1, job, 0, 0).message(), passkey=b"key")
    report.finished.statistics["x"] = job
    if padding:
        report.finished.files.append(common_pb2.FileEntry(name="x" * padding))
    return report


def test_reports_come_back_after_a_restart_and_numbers_never_repeat(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    for job in range(3):
        journal.accept([order(job)])
        journal.add(finished(job))
    numbers = [report.report_id for report in journal.pending()]
    journal.settle(numbers[:1])
    exchange = journal.next_exchange_id()

    again = Journal(tmp_path / "state")
    assert [report.ref.job for report in again.pending()] == [1, 2]
    again.add(finished(7))
    assert again.newest > max(numbers)
    assert again.next_exchange_id() > exchange


def test_an_order_without_a_report_is_unsettled_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    for job in range(3):
        journal.accept([order(job)])
    journal.add(finished(0))
    copying = pilot_pb2.Report(ref=Ref(1, 1, 0, 0).message())
    copying.copying.SetInParent()
    journal.add(copying)
    journal.drop(Ref(1, 2, 0, 0))
    assert [order.ref.job for order in Journal(tmp_path / "state").unsettled()] == [1]


def test_settling_copying_keeps_the_order_and_settling_the_end_drops_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    journal.accept([order(1)])
    copying = pilot_pb2.Report(ref=Ref(1, 1, 0, 0).message())
    copying.copying.SetInParent()
    journal.add(copying)
    journal.settle([copying.report_id])
    assert len(journal.unsettled()) == 1
    end = finished(1)
    journal.add(end)
    journal.settle([end.report_id, 12345])
    assert not journal.unsettled() and not journal.pending()
    owed = read_journal(tmp_path / "state" / "journal")
    assert not owed.orders and not owed.reports


def test_a_batch_is_bounded_and_says_up_to_where_nothing_is_missing(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "state")
    for job in range(5):
        journal.add(finished(job, padding=module.REPORT_BYTES_PER_EXCHANGE_MAX // 2))
    chosen, complete_to = journal.batch()
    assert [report.ref.job for report in chosen] == [0]
    assert complete_to == chosen[0].report_id < journal.newest
    journal.settle([report.report_id for report in chosen])
    assert [report.ref.job for report in journal.batch()[0]] == [1]


def test_a_torn_journal_keeps_what_stands_before_the_tear(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    for job in range(3):
        journal.accept([order(job)])
        journal.add(finished(job))
    path = tmp_path / "state" / "journal"
    path.write_bytes(path.read_bytes()[:-5])
    again = Journal(tmp_path / "state")
    assert [report.ref.job for report in again.pending()] == [0, 1]
    assert [order.ref.job for order in again.unsettled()] == [2]


def test_orders_that_came_together_are_kept_up_to_the_tear(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    journal.accept(order(job) for job in range(3))
    path = tmp_path / "state" / "journal"
    path.write_bytes(path.read_bytes()[:-5])
    assert [order.ref.job for order in Journal(tmp_path / "state").unsettled()] == [0, 1]


@pytest.mark.parametrize("place", [0, 1, 5, 9, 40])
def test_an_altered_journal_is_read_without_an_error(tmp_path: Path, place: int) -> None:
    journal = Journal(tmp_path / "state")
    journal.accept([order(1)])
    journal.add(finished(1))
    path = tmp_path / "state" / "journal"
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    Journal(tmp_path / "state").add(finished(2))
    assert 2 in {report.ref.job for report in read_journal(path).reports.values()}


def test_the_journal_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOURNAL_BYTES_MAX", 20_000)
    journal = Journal(tmp_path / "state")
    journal.accept([order(999)])
    for job in range(500):
        journal.accept([order(job)])
        report = finished(job)
        journal.add(report)
        journal.settle([report.report_id])
    path = tmp_path / "state" / "journal"
    assert path.stat().st_size <= 20_000
    assert list(read_journal(path).orders) == [Ref(1, 999, 0, 0)]


def test_a_full_disk_costs_no_report_and_the_journal_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "state")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    for job in range(2):
        journal.accept([order(job)])
        journal.add(finished(job))
    monkeypatch.undo()
    assert len(journal.pending()) == 2
    journal.add(finished(5))
    assert len(read_journal(tmp_path / "state" / "journal").reports) == 3


def test_passkeys_on_disk_are_for_the_owner_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    journal.accept([order(1)])
    journal.add(finished(1))
    for path in (tmp_path / "state").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
