"""The log of entries with term, vote and commit index, kept in the tick's one transaction.

It is PySyncObj's journal seam (`add`, `deleteEntriesFrom`, `deleteEntriesTo`, slices of `(command, index,
term)`), over the databases `log` and `meta` of the node's one store.  Nothing is durable before the
tick's commit, and nothing is written outside one: term, vote, commit and applied index are one record,
written at the tick's end.

Every entry carries a CRC and the digest of all entries before it and itself; the chain is checked at
open, and a damaged one is named and refused.  What compaction dropped is represented by one row, `base`.
"""

from __future__ import annotations

import zlib
from copy import copy
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from pysyncobj.journal import Journal as JournalSeam

from iceprod_p2p.base.errors import IntegrityError
from iceprod_p2p.raft.messages import UNREADABLE
from iceprod_p2p.raft.ports import KeyValue, Snapshot, Transaction

DIGEST_BYTES: Final = 16
NO_DIGEST: Final = bytes(DIGEST_BYTES)
KEY: Final = Struct(">Q")
HEAD: Final = Struct(">QI16s")  # term, CRC, digest; then the command
POSITION: Final = Struct(">QQ")
STATE_KEY: Final = b"state"
BASE_KEY: Final = b"base"
IDENTITY_KEY: Final = b"identity"
PLACE_KEY: Final = b"place"  # Where this copy of the files lies; the store's own (`store.environment`).
META_END: Final = b"\xff"
_Record = TypeVar("_Record")
LOG_END: Final = KEY.pack((1 << 64) - 1)
REMEDY: Final = "this node may not vote again; take part under a new node id: iceprod-node rejoin"


class HardState(msgspec.Struct, array_like=True):
    """What must survive a crash beside the entries themselves."""

    term: int = 0
    vote: str = ""  # The node voted for in `term`; empty: none.
    commit: int = 0
    applied: int = 0
    acked: int = 0  # How far the leader of `term` was told that this log agrees with its own.


class Base(msgspec.Struct, frozen=True, array_like=True):
    """The last entry that compaction dropped (or a snapshot replaced): 0 for none."""

    index: int = 0
    term: int = 0
    digest: bytes = NO_DIGEST


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Whose store this is: written once, when the node's state is created."""

    node_id: str
    incarnation: bytes = b""


class Row(NamedTuple):
    """One entry as stored: its term, the log's digest up to it, and its command."""

    term: int
    digest: bytes
    command: bytes


def digest_after(previous: bytes, term: int, command: bytes) -> bytes:
    """Return the digest of a log that ends with this entry after a log with digest `previous`."""
    return blake2b(b"%b%b%b" % (previous, KEY.pack(term), command), digest_size=DIGEST_BYTES).digest()


def pack_row(index: int, row: Row) -> bytes:
    """Encode one entry for the database `log`."""
    crc = zlib.crc32(row.command, zlib.crc32(POSITION.pack(index, row.term) + row.digest))
    return HEAD.pack(row.term, crc, row.digest) + row.command


def unpack_row(index: int, value: bytes) -> Row:
    """Decode one entry; IntegrityError, naming the entry, when it is not what was written."""
    if len(value) < HEAD.size:
        raise IntegrityError(f"entry {index} of the log is cut short", remedy=REMEDY)
    term, crc, digest = HEAD.unpack_from(value)
    command = value[HEAD.size :]
    if crc != zlib.crc32(command, zlib.crc32(POSITION.pack(index, term) + digest)):
        raise IntegrityError(f"entry {index} of the log is damaged (checksum differs)", remedy=REMEDY)
    return Row(term, digest, command)


def seal(record: Any) -> bytes:
    """Encode a small record with its CRC."""
    body = msgspec.msgpack.encode(record)
    return body + zlib.crc32(body).to_bytes(4, "big")


def unseal(name: str, value: bytes, kind: type[_Record]) -> _Record:
    """Decode what `seal` made; IntegrityError when it is damaged."""
    body, crc = value[:-4], value[-4:]
    if zlib.crc32(body).to_bytes(4, "big") != crc:
        raise IntegrityError(f"the record {name!r} is damaged (checksum differs)", remedy=REMEDY)
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except UNREADABLE as cause:
        raise IntegrityError(f"the record {name!r} is damaged ({cause})", remedy=REMEDY) from cause


def read_identity(meta: KeyValue) -> Identity | None:
    """Return whose store this is, or None for an empty one."""
    value = meta.get(IDENTITY_KEY)
    return None if value is None else unseal("identity", value, Identity)


def read_state(meta: KeyValue) -> HardState:
    """Return the hard state as of a snapshot; IntegrityError when it is damaged."""
    value = meta.get(STATE_KEY)
    return HardState() if value is None else unseal("state", value, HardState)


class Journal(JournalSeam):  # type: ignore[misc]
    """The log and the hard state; used by the engine's thread only.

    `open` binds it to the tick's transaction; every writing method needs that.  Reading recent entries
    does not: they are held in memory (`cache_bytes`), as are term and digest of every entry kept.
    """

    def __init__(self, snapshot: Snapshot, *, cache_bytes: int) -> None:
        self._cache_bytes_max = cache_bytes
        self._log: KeyValue | None = None
        self._meta: KeyValue | None = None
        self.load(snapshot)

    def load(self, snapshot: Snapshot) -> None:
        """Read and check everything; IntegrityError names the first damaged record."""
        self._terms: list[int] = []
        self._digests: list[bytes] = []
        self._sizes: list[int] = []
        self._commands: dict[int, bytes] = {}
        self._cached_bytes = 0
        self.kept_bytes = 0
        state = snapshot.meta.get(STATE_KEY)
        base = snapshot.meta.get(BASE_KEY)
        self.state = HardState() if state is None else unseal("state", state, HardState)
        self.base = Base() if base is None else unseal("base", base, Base)
        self._saved = None if state is None else copy(self.state)
        self._promised = self._promise()
        self._changed = False
        self._cached_from = self.base.index + 1
        self.last_index = self.base.index  # Of the last entry, or of `base` when none is kept.
        previous = self.base.digest
        for key, value in snapshot.log.scan(b"", LOG_END):
            (index,) = KEY.unpack(key)
            if index != self.last_index + 1:
                raise IntegrityError(f"entry {self.last_index + 1} of the log is missing", remedy=REMEDY)
            row = unpack_row(index, value)
            if row.digest != digest_after(previous, row.term, row.command) or row.term < self.last_term:
                raise IntegrityError(f"entry {index} does not follow from the log before it", remedy=REMEDY)
            self._remember(index, row)
            previous = row.digest
        self._check_state()

    def _check_state(self) -> None:
        state, last = self.state, self.last_index
        if not self.base.index <= state.applied <= state.commit <= last:
            raise IntegrityError(
                f"the log ({self.base.index}..{last}) does not fit"
                f" commit {state.commit} and applied {state.applied}",
                remedy=REMEDY,
            )
        if state.term < self.last_term:
            raise IntegrityError(f"term {state.term} is older than the log's {self.last_term}", remedy=REMEDY)

    def open(self, transaction: Transaction) -> None:
        """Bind to the tick's transaction."""
        self._log = transaction.log
        self._meta = transaction.meta

    def save(self) -> bool:
        """Write the hard state into the transaction if it changed; return whether the tick's commit must last.

        It must when entries came or went, or when the term, the vote or what was acknowledged changed.  How far
        entries are committed and applied may be forgotten: they are in the log, and are applied again.
        """
        assert self._meta is not None, "the journal is written only inside a tick"
        if self.state != self._saved:
            self._meta.put(STATE_KEY, seal(self.state))
            self._saved = copy(self.state)
        promised = self._promise()
        lasting = self._changed or promised != self._promised
        self._promised, self._changed = promised, False
        return lasting

    def _promise(self) -> tuple[int, str, int]:
        return self.state.term, self.state.vote, self.state.acked

    def close(self) -> None:
        """Let go of the tick's transaction."""
        self._log = self._meta = None

    # What the rules read.

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._terms[-1] if self._terms else self.base.term

    def term_at(self, index: int) -> int | None:
        """Return the term of entry `index`, or None when it is not (or no longer) held; 0 at index 0."""
        position = index - self.base.index - 1
        if position == -1:
            return self.base.term
        return self._terms[position] if 0 <= position < len(self._terms) else None

    def digest_at(self, index: int) -> bytes | None:
        """Return the digest of the log up to `index`, or None when it is not (or no longer) known."""
        position = index - self.base.index - 1
        if position == -1:
            return self.base.digest
        return self._digests[position] if 0 <= position < len(self._digests) else None

    def first_index_of_term(self, index: int) -> int:
        """Return the first kept index with the same term as entry `index`."""
        position = index - self.base.index - 1
        term = self._terms[position]
        while position > 0 and self._terms[position - 1] == term:
            position -= 1
        return self.base.index + 1 + position

    def command(self, index: int) -> bytes:
        """Return the command of a kept entry; IntegrityError when its stored row turns out damaged."""
        held = self._commands.get(index)
        if held is not None:
            return held
        assert self._log is not None, "old entries are read only inside a tick"
        value = self._log.get(KEY.pack(index))
        if value is None:
            raise IntegrityError(f"entry {index} of the log is missing", remedy=REMEDY)
        row = unpack_row(index, value)
        if row.digest != self.digest_at(index):
            raise IntegrityError(f"entry {index} of the log is not the one that was written", remedy=REMEDY)
        return row.command

    def entries(self, start: int, *, bytes_max: int, count_max: int = 256) -> list[tuple[int, bytes]]:
        """Return (term, command) of entries from `start` on: at least one if there is one, within the bounds."""
        found: list[tuple[int, bytes]] = []
        room = bytes_max
        last = min(self.last_index, start + count_max - 1)
        for index in range(start, last + 1):
            position = index - self.base.index - 1
            room -= self._sizes[position]
            if room < 0 and found:
                break
            found.append((self._terms[position], self.command(index)))
        return found

    # What the rules write.

    def append(self, term: int, command: bytes) -> int:
        """Add one entry after the last; return its index."""
        assert self._log is not None, "the journal is written only inside a tick"
        index = self.last_index + 1
        previous = self._digests[-1] if self._digests else self.base.digest
        row = Row(term, digest_after(previous, term, command), command)
        self._log.put(KEY.pack(index), pack_row(index, row))
        self._remember(index, row)
        self._changed = True
        return index

    def truncate_from(self, index: int) -> None:
        """Drop entry `index` and all after it; never at or below the commit index."""
        commit = self.state.commit
        assert index > commit, f"entry {index} is committed (up to {commit}) and cannot be dropped"
        assert self._log is not None, "the journal is written only inside a tick"
        self._changed = True
        for gone in range(index, self.last_index + 1):
            self._log.delete(KEY.pack(gone))
            self._forget(gone)
        keep = index - self.base.index - 1
        self.kept_bytes -= sum(self._sizes[keep:])
        del self._terms[keep:], self._digests[keep:], self._sizes[keep:]
        self.last_index = index - 1
        self._cached_from = min(self._cached_from, index)

    def drop_to(self, index: int) -> None:
        """Drop entry `index` and all before it; only applied ones."""
        applied = self.state.applied
        assert index <= applied, f"entry {index} is not applied (up to {applied}) and is still needed"
        assert self._log is not None and self._meta is not None, "the journal is written only inside a tick"
        count = index - self.base.index
        if count <= 0:
            return
        base = Base(index, self._terms[count - 1], self._digests[count - 1])
        for gone in range(self.base.index + 1, index + 1):
            self._log.delete(KEY.pack(gone))
            self._forget(gone)
        self.kept_bytes -= sum(self._sizes[:count])
        del self._terms[:count], self._digests[:count], self._sizes[:count]
        self._cached_from = max(self._cached_from, index + 1)
        self.base = base
        self._meta.put(BASE_KEY, seal(base))

    def _remember(self, index: int, row: Row) -> None:
        self.last_index = index
        self._terms.append(row.term)
        self._digests.append(row.digest)
        self._sizes.append(len(row.command))
        self.kept_bytes += len(row.command)
        self._commands[index] = row.command
        self._cached_bytes += len(row.command)
        while self._cached_bytes > self._cache_bytes_max and self._cached_from < index:
            self._forget(self._cached_from)
            self._cached_from += 1

    def _forget(self, index: int) -> None:
        held = self._commands.pop(index, None)
        if held is not None:
            self._cached_bytes -= len(held)

    # PySyncObj's journal seam: positions count from `base`, which stands for everything before.

    def __len__(self) -> int:
        return len(self._terms) + 1

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return [self[position] for position in range(*item.indices(len(self)))]
        position = item if item >= 0 else len(self) + item
        if position == 0:
            return (b"", self.base.index, self.base.term)
        index = self.base.index + position
        return (self.command(index), index, self._terms[position - 1])

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append what PySyncObj appends (its queue of commands, its no-op of a new leader)."""
        assert idx == self.last_index + 1, f"entry {idx} does not follow {self.last_index}"
        self.append(term, command)

    def clear(self) -> None:
        """Refused: nothing may empty the log; a snapshot replaces the whole store instead."""
        raise AssertionError("the log is never cleared")

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        self.truncate_from(self.base.index + entryFrom)

    def deleteEntriesTo(self, entryTo: int) -> None:
        self.drop_to(self.base.index + entryTo)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self.state.commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        return self.state.commit

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        if term != self.state.term:
            self.state.acked = 0
        self.state.term = term
        self.state.vote = votedForNodeId or ""

    def getCurrentTerm(self) -> int:
        return self.state.term

    def getVotedForNodeId(self) -> str | None:
        return self.state.vote or None

    def _destroy(self) -> None:
        self.close()
