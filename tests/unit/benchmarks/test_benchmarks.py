"""The benchmarks run, at sizes that measure nothing: their numbers are never looked at here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import bare, catchup, etcd, failover, fill, grids, ledger, numbers, pilots, report, scale
from benchmarks.children import Child
from benchmarks.ledger import Load


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert numbers.percentile(values, 50) == 50
    assert numbers.percentile(values, 99) == 99
    assert numbers.percentile([7.0], 99) == 7
    assert math.isnan(numbers.percentile([], 50))


def test_thinning_keeps_the_percentiles() -> None:
    values = list(range(100_000))
    kept = numbers.thinned(values, 1_000)
    assert len(kept) == 1_000 and kept[0] == 0 and kept[-1] == 99_999
    assert numbers.percentile(kept, 99) == pytest.approx(99_000, rel=0.01)


def test_numbers_are_written_with_three_digits() -> None:
    assert [numbers.rate(value) for value in (0.4, 987.0, 12_345.0)] == ["0", "987", "12,300"]
    assert [numbers.milliseconds(us) for us in (1_234.0, 45_678.0, 2e6)] == ["1.23", "45.7", "2,000"]


def test_a_table_replaces_only_what_stands_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin a -->\nold\n<!-- end a -->\nafter\n")
    report.put("a", ["new"], page=page)
    report.put("a", ["newer"], page=page)
    assert page.read_text() == "before\n<!-- begin a -->\n\nnewer\n\n<!-- end a -->\nafter\n"
    with pytest.raises(ValueError, match="must hold"):
        report.put("b", ["new"], page=page)


def test_the_page_has_a_place_for_every_part() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    for part in ("ledger", "reports", "scale", "failover", "catchup", "grids", "pilots"):
        assert text.index(f"<!-- begin {part} -->") < text.index(f"<!-- end {part} -->")


def test_requests_to_the_peer_are_its_messages_byte_by_byte() -> None:
    put = etcd.put_request(b"k", b"v" * 200)
    assert put == b"\x0a\x01k\x12\xc8\x01" + b"v" * 200
    # Txn.success (2) holds RequestOp, whose request_put (2) holds the put.
    assert etcd.transaction_request([etcd.put_request(b"k", b"v")]) == b"\x12\x08\x12\x06\x0a\x01k\x12\x01v"


def test_the_bare_loop_replicates(tmp_path: Path) -> None:
    assert bare.measure(tmp_path, batch=16, warm_s=0, seconds=0.1) > 0


def test_a_child_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    child = Child("benchmarks.no_such_module", log=tmp_path / "log")
    with pytest.raises(RuntimeError, match="no_such_module"):
        child.answer()
    child.stop()


@pytest.mark.slow
def test_three_nodes_are_driven_and_reported(tmp_path: Path) -> None:
    lines = ledger.measure(tmp_path, rounds=1, seconds=0.2, loads=(Load(1, 1), Load(4, 4)), with_peer=False)
    rows = [line for line in lines if line.startswith(("| 1 x 1", "| 4 x 4"))]
    assert len(rows) == 2
    for row in rows:
        light, moves = (row.split("|")[column].strip() for column in (2, 4))
        assert float(light.replace(",", "")) > 0 and float(moves.replace(",", "")) > 0


@pytest.mark.slow
def test_growth_is_reported(tmp_path: Path) -> None:
    text = "\n".join(scale.measure(tmp_path, done=1_000, ready=(1_000,)))
    assert "10,000,000 jobs of 3 tasks: one entry" in text
    assert "| 1,000 | 0 |" in text
    assert "With 1,000 tasks done" in text and "anonymous memory" in text


@pytest.mark.slow
def test_a_store_is_filled_in_several_sittings_beyond_one_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (fill, scale):
        monkeypatch.setattr(part, "JOBS", 8_000)
    monkeypatch.setattr(fill, "DONE_MOST", 2_000)
    monkeypatch.setattr(fill, "STRETCH_TASKS", 500)
    first = fill.fill(tmp_path, 3_000, say=lambda line: None)
    assert (first.done, first.datasets, first.ready) == (3_000, 2, 12_000)
    second = fill.fill(tmp_path, 5_000, say=lambda line: None)
    assert (second.done, second.datasets, second.ready) == (5_000, 3, 18_000)
    assert fill.filled(tmp_path) == second
    assert "With 5,000 tasks done:" in scale.measure_filled(tmp_path, say=lambda line: None)


def test_a_killed_leader_is_replaced_and_reported(tmp_path: Path) -> None:
    near, far = failover.measure(tmp_path, kills=1)
    assert near.startswith("- loopback: 1 leaders killed")
    assert far.startswith("- 80 ms one way between the nodes: 1 leaders killed")


@pytest.mark.slow
def test_a_node_that_is_far_behind_catches_up_in_little_memory_while_the_cluster_works_on(
    tmp_path: Path,
) -> None:
    outcome = catchup.run(tmp_path, entries=12_000, state_mib=64, slice_s=1.0)
    assert all(one["commands"] > 0 for slices in outcome.load.values() for one in slices)
    for who, first_bytes in outcome.first_bytes.items():  # Pages of 128 KiB, not tables of 64 MiB.
        assert outcome.most_bytes[who] - first_bytes < 32 << 20, who
    text = "\n".join(outcome.lines(entries=12_000, state_mib=64, slice_s=1.0))
    assert "12,000 entries behind, 64 MiB of tables: caught up in" in text


@pytest.mark.slow
def test_pilots_connect_wait_and_work_off_a_dataset(tmp_path: Path) -> None:
    text = "\n".join(pilots.measure(tmp_path, pilots=4, idle_s=1.0, say=print))
    assert "- 4 pilots connected" in text and "- then 64 tasks, taken and reported by" in text


def test_the_floor_counts_processes_that_ended() -> None:
    lives = grids.spawn_floor(10, threads=2)
    assert lives.tasks == 10 and lives.per_s == pytest.approx(10 / lives.seconds)
