"""A backup of the replicated tables as one file: who, when, every pair, and a checksum of all of it.

    iceprod-backup\\n  format (4 bytes)  header length (4)  header (JSON)  CRC-32 of the header (4)
    page length (4)  CRC-32 (4)  page (MessagePack: [[key, value], ...], keys ascending)      ... as often as needed
    0 (4)  number of pairs (8)  SHA-256 of all pairs (32)

Numbers are big-endian.  The SHA-256 is over key length (8), key, value length (8), value of each pair, as for
snapshots.  Written and read page by page, so memory stays bounded however large the ledger is.  No private key
is in it: the ledger holds none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import IO, Any, Final
from zlib import crc32

import msgspec

from iceprod_p2p.base.errors import BadInput, ConfigError, IntegrityError
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.store.directory import sync_directory

MAGIC: Final = b"iceprod-backup\n"
FORMAT: Final = (
    1  # The newest that this program writes and reads; an older one is read as long as it is known.
)
HEADER_BYTES_MAX: Final = 4 << 20
PAGE_BYTES: Final = 256 << 10  # A page is closed when it has so much.
PAGE_BYTES_MAX: Final = 64 << 20
KEY_BYTES_MAX: Final = 511
_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")

Pair = tuple[bytes, bytes]
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode


@dataclass(frozen=True, slots=True)
class BackupNode:
    """A node of the cluster when the backup was made."""

    node_id: str
    site: str
    role: str
    address: str
    enrol_address: str
    server_name: str


@dataclass(frozen=True, slots=True)
class BackupHeader:
    """What a backup is: the cluster's tables after entry `index` of `term`; times in ms."""

    cluster: str
    epoch: int
    ledger_version: int
    root_fingerprint: str
    index: int
    term: int
    log_digest: str
    ledger_time_ms: int
    made_ms: int
    made_by: str
    program: str
    nodes: tuple[BackupNode, ...] = field(default=())


class Tally:
    """Counts and sums the pairs that pass."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = sha256()

    def add(self, key: bytes, value: bytes) -> None:
        """Count one pair."""
        self._sum.update(b"%b%b%b%b" % (_U64.pack(len(key)), key, _U64.pack(len(value)), value))
        self.count += 1

    @property
    def digest(self) -> bytes:
        """SHA-256 of all pairs so far."""
        return self._sum.digest()


def write_backup(header: BackupHeader, pairs: Iterable[Pair]) -> Iterator[bytes]:
    """Yield the file in pieces of about a page; `pairs` in ascending order of keys."""
    body = json.dumps(asdict(header), indent=1).encode()
    yield MAGIC + _U32.pack(FORMAT) + _U32.pack(len(body)) + body + _U32.pack(crc32(body))
    tally, page, room = Tally(), [], PAGE_BYTES
    for key, value in pairs:
        tally.add(key, value)
        page.append((key, value))
        room -= len(key) + len(value)
        if room <= 0:
            yield _page(page)
            page, room = [], PAGE_BYTES
    if page:
        yield _page(page)
    yield _U32.pack(0) + _U64.pack(tally.count) + tally.digest


def _page(pairs: list[Pair]) -> bytes:
    body = _encode(pairs)
    return _U32.pack(len(body)) + _U32.pack(crc32(body)) + body


class BackupReader:
    """Reads a backup: the header at once, the pairs as they are walked, checked to the last byte.

    BadInput: it is no backup, or one of a later format.  IntegrityError: it was damaged or cut short.
    """

    def __init__(self, file: IO[bytes], *, name: str) -> None:
        self._file = file
        self._name = name
        if file.read(len(MAGIC)) != MAGIC:
            raise BadInput(
                f"{name} is not a backup of a cluster", remedy="iceprod cluster backup FILE makes one"
            )
        (number,) = _U32.unpack(self._exactly(4, "its beginning"))
        if number != FORMAT:
            raise BadInput(
                f"{name} is a backup of format {number}, this program reads format {FORMAT}",
                remedy="use the program that made it, or a newer one",
            )
        (length,) = _U32.unpack(self._exactly(4, "its beginning"))
        if length > HEADER_BYTES_MAX:
            raise self._damaged("its header is too long")
        body = self._exactly(length, "its header")
        if _U32.unpack(self._exactly(4, "its header"))[0] != crc32(body):
            raise self._damaged("its header has another checksum")
        self.header = self._header(body)
        self.tally = Tally()

    def pairs(self) -> Iterator[Pair]:
        """Walk all pairs, once; those before a damage are given before its error, so use none until the end."""
        last = b""
        while True:
            (length,) = _U32.unpack(self._exactly(4, "a page"))
            if length == 0:
                break
            if length > PAGE_BYTES_MAX:
                raise self._damaged("a page is too long")
            (checksum,) = _U32.unpack(self._exactly(4, "a page"))
            body = self._exactly(length, "a page")
            if crc32(body) != checksum:
                raise self._damaged(f"the page after {self.tally.count} pairs has another checksum")
            for key, value in self._decoded(body):
                if not last < key or len(key) > KEY_BYTES_MAX:
                    raise self._damaged("its keys are out of order")
                last = key
                self.tally.add(key, value)
                yield key, value
        (count,) = _U64.unpack(self._exactly(8, "its end"))
        if count != self.tally.count or self._exactly(32, "its end") != self.tally.digest:
            raise self._damaged("its pairs are not those that were written")
        if self._file.read(1):
            raise self._damaged("something follows its end")

    def check(self) -> BackupHeader:
        """Read everything; return the header when all of it is whole."""
        for _ in self.pairs():
            pass
        return self.header

    def _header(self, body: bytes) -> BackupHeader:
        try:
            fields: dict[str, Any] = json.loads(body)
            nodes = tuple(BackupNode(**node) for node in fields.pop("nodes"))
            return BackupHeader(**fields, nodes=nodes)
        except (ValueError, TypeError, KeyError, AttributeError) as fault:
            raise self._damaged(f"its header cannot be read ({fault})") from fault

    def _decoded(self, body: bytes) -> list[Pair]:
        try:
            return _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
            raise self._damaged(f"a page cannot be read ({fault})") from fault

    def _exactly(self, count: int, what: str) -> bytes:
        content = self._file.read(count)
        if len(content) != count:
            raise self._damaged(f"it was cut short in {what}")
        return content

    def _damaged(self, how: str) -> IntegrityError:
        return IntegrityError(f"the backup {self._name} is damaged: {how}", remedy="use another backup")


@contextmanager
def new_backup(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write a backup into; it is read again, and has its name only when it is whole and durable.

    ConfigError when there is a file of that name, or none can be written there; IntegrityError when what was
    written is not whole.
    """
    if path.exists():
        raise ConfigError(
            f"{path} exists already", remedy="choose another name: backups are never overwritten"
        )
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.unlink(missing_ok=True)
        descriptor = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            BackupReader(file, name=str(path)).check()
        passing("backup.rename.before")
        os.replace(scratch, path)
        sync_directory(path.parent)
    except OSError as fault:
        raise ConfigError(
            f"cannot write {path}: {fault.strerror}", remedy="make room, or choose another place"
        ) from fault
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def open_backup(path: Path) -> Iterator[BackupReader]:
    """Open a backup for reading; ConfigError when there is none."""
    try:
        file = path.open("rb")
    except OSError as fault:
        raise ConfigError(f"cannot read {path}: {fault.strerror}") from fault
    with file:
        yield BackupReader(file, name=str(path))
