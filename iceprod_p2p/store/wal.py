"""The write-ahead log of the store: one record for each commit, in two files that take turns.

A record holds everything that one transaction wrote, so whoever reads the records after the last checkpoint has
exactly the last commit that was written.  A commit is durable when its record and all before it are synced: one
flush of one file.  The files are made once and written over, so a flush moves no file system metadata.

Records are numbered without gaps and carry a checksum; what follows the last one is either zeros, the rest of
an older turn, or a record that was being written when the power went: all of these end the log.  Each record
also says up to which number everything was on the disk when it was written, so a damaged record that once was
there is told from one that never got there.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.store.directory import sync_directory
from iceprod_p2p.store.errors import StoreBroken, store_error

NAMES: Final = ("wal-0", "wal-1")
HEAD: Final = Struct(">IIQQ")  # Bytes of the body, CRC of the rest, number, and up to where all was synced.
NUMBERS: Final = Struct(">QQ")
NUMBER: Final = Struct(">Q")
FIRST: Final = 1 << 40  # The number before the first: so that no number begins with zeros alone.
MARK_BYTES: Final = 6  # So many first bytes of the numbers of neighbours are the same (65,536 of them).
TURN_BYTES: Final = 6 << 20  # What a turn writes before the other file's begins.
ROOM_BYTES: Final = 8 << 20  # Taken on the disk at once, for each file.

Tables = list[dict[bytes, bytes | None]]
"""What one commit changed, table by table; None for a key that was deleted."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Tables).decode


class _Record(NamedTuple):
    number: int
    synced: int
    body: bytes


class _Run(NamedTuple):
    """The records at the beginning of one file, everything in it, and where the records end."""

    records: list[_Record]
    data: bytes
    end: int


class WriteAheadLog:
    """Records of commits.  One thread at a time; StoreError, by name, when the disk does not take them."""

    def __init__(self, directory: Path, *, sync: bool, turn_bytes: int = TURN_BYTES) -> None:
        self._directory = directory
        self._turn_bytes = turn_bytes
        self._sync = sync
        self._fds: list[int] = []
        self._turn = 0
        self._offset = 0
        self.last = FIRST  # The number of the last record.
        self.synced = FIRST  # Everything up to this one is on the disk.
        try:
            missing = any(not (directory / name).exists() for name in NAMES)
            for name in NAMES:
                self._fds.append(_open(directory / name))
            if missing and sync:
                sync_directory(directory)
        except OSError as cause:
            self.close()
            raise store_error("open the write-ahead log", directory, cause) from cause

    def replay(self, after: int) -> Iterator[tuple[int, Tables]]:
        """Walk the commits after number `after`, as `records` does; then go on after the last of them.

        Call `clear` when they are in the pages, and before anything is appended.
        """
        number = after
        for last, tables in records(self._directory, after):
            number = last
            yield number, tables
        self.last = self.synced = number
        self._offset = 0

    def clear(self) -> None:
        """Forget what both files hold: it is in the pages, or was lost with a record before it.

        A lost record's number is given again.  A record after it that did reach the disk must not be taken
        for the successor of its namesake.
        """
        try:
            for fd in self._fds:
                os.ftruncate(fd, 0)
                _take_room(fd)
                if self._sync:
                    os.fsync(fd)
        except OSError as cause:
            raise store_error("clear the write-ahead log", self._directory, cause) from cause

    def append(self, tables: Tables, *, lasting: bool) -> int:
        """Write one commit and return its number; `lasting`: it and all before are on the disk then."""
        number = self.last + 1
        body = _encode(tables)
        numbers = NUMBERS.pack(number, self.synced)
        head = HEAD.pack(len(body), zlib.crc32(body, zlib.crc32(numbers)), number, self.synced)
        try:
            written = os.pwritev(self._fds[self._turn], (head, body), self._offset)
            if written < len(head) + len(body):
                os.pwrite(self._fds[self._turn], (head + body)[written:], self._offset + written)
            self.last = number
            self._offset += len(head) + len(body)
            if lasting:
                self._flush()
        except OSError as cause:
            raise store_error("commit", self._directory, cause) from cause
        return number

    def flush(self) -> None:
        """Put everything written so far on the disk."""
        try:
            self._flush()
        except OSError as cause:
            raise store_error("commit", self._directory, cause) from cause

    def _flush(self) -> None:
        if self.synced < self.last:
            if self._sync:
                passing("store.flush.before")
                os.fdatasync(self._fds[self._turn])
            self.synced = self.last

    @property
    def is_full(self) -> bool:
        """Whether it is time for the other file's turn."""
        return self._offset >= self._turn_bytes

    @property
    def is_overdue(self) -> bool:
        """Whether this turn has become so long that its checkpoint must be waited for."""
        return self._offset >= 4 * self._turn_bytes

    def turn(self) -> None:
        """Go on in the other file, whose records must be in a finished checkpoint; this one's are synced."""
        self.flush()
        self._turn = 1 - self._turn
        self._offset = 0

    def close(self) -> None:
        """Close both files."""
        while self._fds:
            os.close(self._fds.pop())


def records(directory: Path, after: int) -> Iterator[tuple[int, Tables]]:
    """Walk the commits after number `after` in a write-ahead log that nobody writes.

    StoreBroken when a record is damaged that was on the disk once.
    """
    try:
        runs = [_read(path) for name in NAMES if (path := directory / name).exists()]
    except OSError as cause:
        raise store_error("read the write-ahead log", directory, cause) from cause
    number = after
    for run in sorted(runs, key=lambda run: run.records[:1]):
        for record in run.records:
            if record.number == number + 1:
                try:
                    tables = _decode(record.body)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as cause:
                    raise _damaged(directory, record.number) from cause
                number += 1
                yield number, tables
    if any(_was_synced(run, number) for run in runs):
        raise _damaged(directory, number + 1)


def _damaged(directory: Path, number: int) -> StoreBroken:
    return StoreBroken(
        f"record {number} of the write-ahead log in {directory} is damaged, though it was on the disk",
        remedy="take part again under a new node id: iceprod-node rejoin",
    )


def _open(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if os.fstat(fd).st_size == 0:
        _take_room(fd)
    return fd


def _take_room(fd: int) -> None:
    with contextlib.suppress(OSError):  # Only to save time: where there is no room yet, it grows as it goes.
        os.posix_fallocate(fd, 0, ROOM_BYTES)


def _read(path: Path) -> _Run:
    data = path.read_bytes()
    records: list[_Record] = []
    offset = 0
    while (record := _record(data, offset)) is not None:
        if records and record.number != records[-1].number + 1:
            break
        records.append(record)
        offset += HEAD.size + len(record.body)
    return _Run(records, data, offset)


def _was_synced(run: _Run, number: int) -> bool:
    """Return whether a later record in this file says that more than `number` was on the disk."""
    if any(record.synced > number for record in run.records):
        return True
    mark, place = NUMBER.pack(number + 1)[:MARK_BYTES], run.end
    while (place := run.data.find(mark, place + 1)) >= 0:
        later = _record(run.data, place - 8, beyond=number) if place >= 8 else None
        if later is not None and later.synced > number:
            return True
    return False


def _record(data: bytes, offset: int, *, beyond: int = 0) -> _Record | None:
    """Return the record at `offset`, or None when there is no sound one with a number beyond that."""
    if offset + HEAD.size > len(data):
        return None
    size, crc, number, synced = HEAD.unpack_from(data, offset)
    begin = offset + HEAD.size
    if number <= beyond or begin + size > len(data):
        return None
    body = data[begin : begin + size]
    if crc != zlib.crc32(body, zlib.crc32(NUMBERS.pack(number, synced))):
        return None
    return _Record(number, synced, body)
