"""The write-ahead log: what was flushed is found again, a torn end is dropped, damage within is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from iceprod_p2p.store.environment import Environment, look_into
from iceprod_p2p.store.errors import StoreBroken
from iceprod_p2p.store.wal import FIRST, HEAD, Tables, WriteAheadLog


def tables(number: int) -> Tables:
    return [{b"k%d" % number: b"v" * (number % 50)}, {b"gone": None}, {}]


def written(directory: Path, *lasting: bool, turn_after: int = 0) -> WriteAheadLog:
    """A log with one record for each word; a turn begins after the first `turn_after`."""
    log = WriteAheadLog(directory, sync=True)
    assert list(log.replay(FIRST)) == []
    for number, lasts in enumerate(lasting, start=1):
        log.append(tables(number), lasting=lasts)
        if number == turn_after:
            log.turn()
    return log


def found(directory: Path, after: int = 0) -> list[int]:
    log = WriteAheadLog(directory, sync=True)
    try:
        replayed = list(log.replay(FIRST + after))
        assert all(content == tables(number - FIRST) for number, content in replayed)
        return [number - FIRST for number, _ in replayed]
    finally:
        log.close()


def offset_of(path: Path, number: int) -> int:
    """Where record `number` (from 1 on) begins in a file that begins with the first record."""
    data, offset = path.read_bytes(), 0
    for _ in range(number - 1):
        offset += HEAD.size + HEAD.unpack_from(data, offset)[0]
    return offset


def spoil(path: Path, offset: int, make: Callable[[int], int] = lambda byte: byte ^ 4) -> None:
    data = bytearray(path.read_bytes())
    data[offset] = make(data[offset])
    path.write_bytes(data)


def test_records_are_found_again_in_order_across_turns(tmp_path: Path) -> None:
    written(tmp_path, *[True] * 9, turn_after=4).close()
    assert found(tmp_path) == list(range(1, 10))
    assert found(tmp_path, after=6) == [7, 8, 9]


def test_an_older_turn_that_was_written_over_does_not_come_back(tmp_path: Path) -> None:
    log = written(tmp_path, *[True] * 5)
    log.turn()
    for number in range(6, 9):
        log.append(tables(number), lasting=True)
    log.turn()  # Into the first file: its five records are in a checkpoint.
    log.append(tables(9), lasting=True)
    log.close()
    assert found(tmp_path, after=5) == [6, 7, 8, 9]


def test_what_followed_a_lost_record_never_follows_the_one_that_takes_its_number(tmp_path: Path) -> None:
    written(tmp_path, True, False, False).close()
    path = tmp_path / "wal-0"
    third = offset_of(path, 3)
    spoil(path, offset_of(path, 2) + HEAD.size)  # A power cut kept the third record, and not the second.
    log = WriteAheadLog(tmp_path, sync=True)
    assert [number for number, _ in log.replay(FIRST)] == [FIRST + 1]
    log.clear()
    size = third - HEAD.size - len(msgspec.msgpack.encode([{b"k": b""}, {}, {}]))
    new: Tables = [{b"k": b"v" * size}, {}, {}]  # So long that the third begins just behind it.
    log.append(new, lasting=True)
    log.close()
    assert offset_of(path, 2) == third
    log = WriteAheadLog(tmp_path, sync=True)
    assert list(log.replay(FIRST + 1)) == [(FIRST + 2, new)]
    log.close()


@pytest.mark.parametrize("lost", [1, 20, 40])
def test_the_end_that_never_reached_the_disk_is_dropped(tmp_path: Path, lost: int) -> None:
    written(tmp_path, True, True, False, False).close()
    path = tmp_path / "wal-0"
    end = offset_of(path, 5)
    with path.open("r+b") as file:
        file.seek(end - lost)
        file.write(bytes(lost))
    assert found(tmp_path) == [1, 2, 3]


def test_a_hole_before_records_that_were_never_flushed_ends_the_log(tmp_path: Path) -> None:
    written(tmp_path, True, False, False, False).close()
    spoil(tmp_path / "wal-0", offset_of(tmp_path / "wal-0", 2) + HEAD.size)
    assert found(tmp_path) == [1]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_record_that_was_on_the_disk_is_named(tmp_path: Path, number: int) -> None:
    written(tmp_path, *[True] * 5).close()
    spoil(tmp_path / "wal-0", offset_of(tmp_path / "wal-0", number) + HEAD.size + 1)
    with pytest.raises(StoreBroken, match=f"record {FIRST + number} of the write-ahead log .* is damaged"):
        found(tmp_path)


def test_damage_in_the_older_of_two_turns_is_named(tmp_path: Path) -> None:
    written(tmp_path, *[True] * 8, turn_after=5).close()
    spoil(tmp_path / "wal-0", offset_of(tmp_path / "wal-0", 3) + HEAD.size + 1)
    with pytest.raises(StoreBroken, match=f"record {FIRST + 3} "):
        found(tmp_path)


def test_a_killed_process_loses_no_commit_lasting_or_not(tmp_path: Path) -> None:
    code = (
        "import os, sys; from iceprod_p2p.store.environment import Environment\n"
        "environment = Environment(sys.argv[1], turn_bytes=2_000)\n"
        "for number in range(500):\n"
        "    transaction = environment.write()\n"
        "    transaction.ledger.put(b'last', b'%d' % number)\n"
        "    transaction.log.put(b'%03d' % number, b'x' * 20)\n"
        "    transaction.commit(lasting=number % 3 == 0)\n"
        "print(number, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, timeout=240, check=False
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"499\n"), ended.stderr
    environment = Environment(tmp_path)
    with environment.read() as snapshot:
        assert snapshot.ledger.get(b"last") == b"499"
        assert [key for key, _ in snapshot.log.scan(b"", b"\xff")] == [b"%03d" % n for n in range(500)]
    environment.close()


def test_a_stopped_store_is_looked_into_with_what_its_log_holds(tmp_path: Path) -> None:
    code = (
        "import os, sys; from iceprod_p2p.store.environment import Environment\n"
        "environment = Environment(sys.argv[1])\n"
        "for number in range(3):\n"
        "    transaction = environment.write()\n"
        "    transaction.ledger.put(b'last', b'%d' % number)\n"
        "    transaction.commit()\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=240, check=False)
    before = (tmp_path / "raft-000001" / "data.mdb").read_bytes()
    with look_into(tmp_path, is_live=False) as (snapshot, _, _):
        assert list(snapshot.ledger.scan(b"", b"\xff")) == [(b"last", b"2")]
    assert (tmp_path / "raft-000001" / "data.mdb").read_bytes() == before
    spoil(tmp_path / "raft-000001" / "wal-0", HEAD.size + 4)
    with pytest.raises(StoreBroken, match="is damaged"), look_into(tmp_path, is_live=False):
        pass


def test_a_store_made_before_there_was_a_log_is_opened_as_it_is(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    transaction = environment.write()
    transaction.ledger.put(b"k", b"v")
    transaction.commit()
    environment.close()
    for name in ("wal-0", "wal-1"):
        os.unlink(tmp_path / "raft-000001" / name)
    again = Environment(tmp_path)
    with again.read() as snapshot:
        assert snapshot.ledger.get(b"k") == b"v"
    again.close()
