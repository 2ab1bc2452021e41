"""The one door to LMDB: one transaction a tick, named errors, generations that are swapped whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.store.environment import Environment
from iceprod_p2p.store.errors import (
    StoreBroken,
    StoreCopied,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnwritable,
    store_error,
)
from iceprod_p2p.store.transactions import SEAL_BYTES

NODE_BYTES = 10  # What LMDB's pages take for a row, beside its key and value.


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    made = Environment(tmp_path / "data")
    yield made
    made.close()


def put(environment: Environment, *keys: bytes) -> None:
    transaction = environment.write()
    for key in keys:
        transaction.ledger.put(key, key)
    transaction.commit()


def keys(environment: Environment) -> list[bytes]:
    with environment.read() as snapshot:
        return [key for key, _ in snapshot.ledger.scan(b"\x00", b"\xff")]


def test_what_was_committed_is_there_after_a_restart_and_what_was_aborted_is_not(tmp_path: Path) -> None:
    first = Environment(tmp_path)
    put(first, b"kept")
    transaction = first.write()
    transaction.ledger.put(b"dropped", b"")
    transaction.abort()
    first.close()
    second = Environment(tmp_path)
    assert keys(second) == [b"kept"]
    second.close()


def test_scans_walk_in_byte_order_both_ways_and_leave_out_the_stop(environment: Environment) -> None:
    put(environment, b"a", b"b", b"b\x00", b"c", b"\xff\xff")
    with environment.read() as snapshot:
        table = snapshot.ledger
        assert [k for k, _ in table.scan(b"a", b"c")] == [b"a", b"b", b"b\x00"]
        assert [k for k, _ in table.scan(b"a", b"c", reverse=True)] == [b"b\x00", b"b", b"a"]
        assert [k for k, _ in table.scan(b"b", b"z" * 9, reverse=True)] == [b"c", b"b\x00", b"b"]
        assert next(k for k, _ in table.scan(b"\x00", b"\xff" * 3, reverse=True)) == b"\xff\xff"
        assert list(table.scan(b"x", b"y")) == []
        assert list(table.scan(b"c", b"a", reverse=True)) == []


def test_the_three_databases_are_apart(environment: Environment) -> None:
    transaction = environment.write()
    transaction.ledger.put(b"k", b"ledger")
    transaction.log.put(b"k", b"log")
    transaction.meta.put(b"k", b"meta")
    transaction.commit()
    with environment.read() as snapshot:
        assert (snapshot.ledger.get(b"k"), snapshot.log.get(b"k"), snapshot.meta.get(b"k")) == (
            b"ledger",
            b"log",
            b"meta",
        )


def test_a_reader_sees_one_point_while_the_writer_goes_on(environment: Environment) -> None:
    put(environment, b"a")
    with environment.read() as snapshot:
        put(environment, b"b")
        assert snapshot.ledger.get(b"b") is None
    assert keys(environment) == [b"a", b"b"]


def test_a_second_opener_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    holder = Environment(tmp_path)
    with pytest.raises(StoreLocked, match=f"pid {os.getpid()}"):
        Environment(tmp_path)
    code = (
        "import sys; from iceprod_p2p.store.environment import Environment; from iceprod_p2p.store.errors import *\n"
        "try: Environment(sys.argv[1])\nexcept StoreLocked: sys.exit(7)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120, check=False).returncode == 7
    )
    holder.close()
    Environment(tmp_path).close()


def test_a_full_map_is_named(tmp_path: Path) -> None:
    environment = Environment(tmp_path, map_size_bytes=1 << 20)
    transaction = environment.write()
    for number in range(2_000):
        transaction.ledger.put(b"%d" % number, bytes(1_000))
    transaction.commit()
    with pytest.raises(StoreFull, match=r"map of .* is full"):
        environment.checkpoint()
    with pytest.raises(StoreFull, match=r"map of .* is full"):
        environment.write()
    environment.close()
    again = Environment(tmp_path)
    assert len(keys(again)) == 2_000
    again.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        environment = Environment(tmp_path / "data")
        transaction = environment.write()
        for number in range(3_000):
            transaction.ledger.put(b"%d" % number, bytes(1_000))
        with pytest.raises(StoreFull, match="no space left"):
            transaction.commit()
        environment.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot open the store"):
        Environment(tmp_path / "file" / "data")


@pytest.mark.parametrize(
    ("number", "kind"),
    [(28, StoreFull), (122, StoreFull), (13, StoreUnwritable), (30, StoreUnwritable), (5, StoreBroken)],
)
def test_what_the_system_said_becomes_a_name_with_a_remedy(number: int, kind: type, tmp_path: Path) -> None:
    error = store_error("commit", tmp_path, OSError(number, "as the system says"))
    assert type(error) is kind
    assert error.remedy


def test_a_copy_holds_the_last_commit_whatever_comes_after(environment: Environment) -> None:
    put(environment, b"a")
    copy = environment.copy()
    put(environment, b"b")
    with copy.read() as snapshot:
        assert [key for key, _ in snapshot.ledger.scan(b"\x00", b"\xff")] == [b"a"]
    copy.close()
    assert list((environment.path / "scratch").iterdir()) == []


def test_a_checkpoint_gets_its_turn_beside_a_writer_that_never_pauses(environment: Environment) -> None:
    stop, commits = threading.Event(), 0

    def write() -> None:
        nonlocal commits
        while not stop.is_set():
            put(environment, b"%d" % commits)
            commits += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            before = commits
            environment.checkpoint()
            with environment.copy().read() as snapshot:
                assert sum(1 for _ in snapshot.ledger.scan(b"0", b"a")) >= before
    finally:
        stop.set()
        writer.join()


def test_a_staged_generation_replaces_the_store_whole_and_readers_finish_on_the_old_one(
    tmp_path: Path,
) -> None:
    environment = Environment(tmp_path)
    put(environment, b"old")
    staging = environment.stage()
    transaction = staging.write()
    transaction.ledger.put(b"new", b"")
    transaction.commit()
    with environment.read() as before:
        environment.swap(staging)
        assert before.ledger.get(b"old") == b"old"
        assert keys(environment) == [b"new"]
    environment.close()
    again = Environment(tmp_path)
    assert keys(again) == [b"new"]
    assert len(list(tmp_path.glob("raft-*"))) == 1
    again.close()


def test_a_staged_generation_that_was_never_swapped_is_gone_after_a_restart(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    put(environment, b"old")
    staging = environment.stage()
    transaction = staging.write()
    transaction.ledger.put(b"new", b"")
    transaction.commit()
    staging.close()
    environment.close()
    again = Environment(tmp_path)
    assert keys(again) == [b"old"]
    assert len(list(tmp_path.glob("raft-*"))) == 1
    again.close()


def test_a_discarded_generation_leaves_nothing(environment: Environment) -> None:
    staging = environment.stage()
    staging.discard()
    assert len(list(environment.path.glob("raft-*"))) == 1


def test_files_that_were_copied_or_restored_are_refused_by_name(tmp_path: Path) -> None:
    Environment(tmp_path / "own").close()
    Environment(tmp_path / "own").close()
    shutil.copytree(tmp_path / "own", tmp_path / "copy")
    with pytest.raises(StoreCopied, match="is a copy"):
        Environment(tmp_path / "copy")
    backup = (tmp_path / "own/raft-000001/data.mdb").read_bytes()
    (tmp_path / "own/raft-000001/data.mdb").rename(tmp_path / "aside")
    (tmp_path / "own/raft-000001/data.mdb").write_bytes(backup)
    with pytest.raises(StoreCopied, match="is a copy"):
        Environment(tmp_path / "own")


def test_a_directory_that_was_moved_as_a_whole_is_still_the_same(tmp_path: Path) -> None:
    Environment(tmp_path / "own").close()
    (tmp_path / "own").rename(tmp_path / "moved")
    Environment(tmp_path / "moved").close()


def test_an_installed_snapshot_knows_its_own_files(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.swap(environment.stage())
    environment.close()
    Environment(tmp_path).close()


@pytest.mark.parametrize("value_bytes", [30, 70, 110, 180])
def test_small_rows_written_side_by_side_fill_their_pages(tmp_path: Path, value_bytes: int) -> None:
    environment = Environment(tmp_path, sync=False)
    rows, written_bytes = 500, 0
    put(environment, b"\xf0")  # Not the last table of the key space.
    for checkpoint in range(10):
        transaction = environment.write()
        for number in range(rows):
            key = b"\x31" + (checkpoint * rows + number).to_bytes(8, "big")
            transaction.ledger.put(key, bytes(value_bytes))
            written_bytes += len(key) + value_bytes + SEAL_BYTES + NODE_BYTES
        transaction.commit()
        environment.checkpoint()
    assert written_bytes > 0.66 * environment.table_bytes("ledger")
    environment.close()
