"""Reads a store's file page by page and names what is damaged, without LMDB: LMDB has no checksums, and may end the
process that it runs in when a page is not what it expects.

Checked are: the two heads, the size of the file, every page of every tree (its number, kind and bounds), the order
of the keys, the numbers of pages and records that the trees should have, that no page is used twice, and the checksum
of every value of the ledger.  Log and meta records carry checksums of their own (`raft.journal`).

The layout is that of LMDB 0.9 (`mdb.c`: MDB_page, MDB_meta, MDB_db, MDB_node), 64 bit, little-endian.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple
from zlib import crc32

from iceprod_p2p.store.directory import read_current
from iceprod_p2p.store.errors import StoreBroken, store_error
from iceprod_p2p.store.format import FORMAT_KEY, check_format
from iceprod_p2p.store.place import PLACE_KEY
from iceprod_p2p.store.transactions import RESIDUE

MAGIC: Final = 0xBEEFC0DE
VERSION: Final = 1
FAULTS_MAX: Final = 20
DEPTH_MAX: Final = 32
NOWHERE: Final = (1 << 64) - 1
BRANCH, LEAF, OVERFLOW = 1, 2, 4
BIG, TREE, MANY = 1, 2, 4  # What a leaf's record is: a value on pages of its own, a tree, several values.
PAGE: Final = Struct("<QHHHH")  # number, pad, kind, lower, upper
PAGES: Final = Struct("<I")
NODE: Final = Struct("<HHHH")  # low, high, flags, length of the key
META: Final = Struct("<IIQQ")  # magic, version, address, size of the map
DB: Final = Struct("<IHHQQQQQ")  # pad, flags, depth, branch pages, leaf pages, overflow pages, records, root
TAIL: Final = Struct("<QQ")  # last page, transaction
U64: Final = Struct("<Q")
REMEDY: Final = "take part again under a new node id: iceprod-node rejoin"


class _Tree(NamedTuple):
    """A tree as its head says it is."""

    name: str
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    records: int
    root: int


class _Head(NamedTuple):
    """One of the two heads: the state after one transaction."""

    page_bytes: int
    free: _Tree
    main: _Tree
    last_page: int
    transaction: int


@dataclass(slots=True)
class Verified:
    """What was read, and what is wrong; at most `FAULTS_MAX` faults."""

    pages: int = 0
    records: int = 0
    faults: list[str] = field(default_factory=list)

    def raise_first(self, path: Path) -> None:
        """Raise StoreBroken, naming the first damage, if there is any."""
        if self.faults:
            raise StoreBroken(f"the store {path} is damaged: {self.faults[0]}", remedy=REMEDY)


class _Damage(Exception):
    """One part of a tree cannot be read."""


def verify_store(root: Path, *, bytes_max: int | None = None) -> Verified:
    """Verify the generation in use of a node's store; one larger than `bytes_max` is left to its readers."""
    generation = root / (read_current(root) or "raft-000001")
    path = generation / "data.mdb"
    if not path.exists() or (bytes_max is not None and path.stat().st_size > bytes_max):
        return Verified()
    return verify(generation)


def verify(path: Path, *, transaction: int | None = None) -> Verified:
    """Read the generation in `path` (its `data.mdb`) and return what is wrong; reads everything.

    Nobody may write it meanwhile, unless `transaction` names a state that a reader of LMDB holds.  StoreError
    when the file cannot be read at all; StoreFormat when it is of a format that this program does not read.
    """
    found = Verified()
    file_path = path / "data.mdb"
    try:
        with file_path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            _Walk(path, content, found).run(transaction)
    except (OSError, ValueError) as fault:  # An empty file cannot be mapped.
        if isinstance(fault, OSError):
            raise store_error("read the store", file_path, fault) from fault
        found.faults.append("data.mdb is empty")
    return found


class _Walk:
    """One reading of one file."""

    def __init__(self, path: Path, content: mmap.mmap, found: Verified) -> None:
        self._path = path
        self._content = content
        self._found = found
        self._used: set[int] = set()
        self._page_bytes = 4096
        self._last_page = 0

    def run(self, transaction: int | None) -> None:
        heads = [head for head in (self._head(0), self._head(1)) if head is not None]
        if transaction is not None:
            heads = [head for head in heads if head.transaction == transaction]
        if not heads:
            self._fault("neither head of the file is readable")
            return
        head = max(heads, key=lambda head: head.transaction)
        self._page_bytes, self._last_page = head.page_bytes, head.last_page
        if len(self._content) < (head.last_page + 1) * head.page_bytes:
            self._fault(
                f"data.mdb was cut short: it has {len(self._content) // head.page_bytes} pages of"
                f" {head.last_page + 1}"
            )
        try:
            self._free_list(head.free)
            databases = dict(self._tree(head.main))
            self._check_format(databases.get(b"meta", b""))
            for name, value in sorted(databases.items()):
                self._named(name, value)
        except _Damage as damage:
            self._fault(str(damage))

    def _check_format(self, value: bytes) -> None:
        """Read which format the store has, before its records are taken for damaged."""
        if len(value) != DB.size:
            return
        used = set(self._used)
        pages = self._found.pages
        records = dict(self._tree(_of("meta", DB.unpack(value))))
        self._used, self._found.pages = used, pages
        if PLACE_KEY in records:
            check_format(records.get(FORMAT_KEY), self._path)

    def _head(self, number: int) -> _Head | None:
        """Return a head, None when it is not one."""
        for page_bytes in (4096, 8192, 16384, 32768, 65536):  # The second one's place depends on the first.
            try:
                at = number * page_bytes
                _, _, kind, _, _ = PAGE.unpack_from(self._content, at)
                at += PAGE.size
                magic, version, _, _ = META.unpack_from(self._content, at)
                free = DB.unpack_from(self._content, at + META.size)
                main = DB.unpack_from(self._content, at + META.size + DB.size)
                last_page, transaction = TAIL.unpack_from(self._content, at + META.size + 2 * DB.size)
            except StructError:
                return None
            if (magic, version, kind & 8, free[0]) == (MAGIC, VERSION, 8, page_bytes):
                return _Head(page_bytes, _of("free", free), _of("main", main), last_page, transaction)
        return None

    def _free_list(self, tree: _Tree) -> None:
        """Read the list of free pages, and see that none is named twice."""
        free: set[int] = set()
        for _, value in self._tree(tree, numbers=True):
            count = U64.unpack_from(value)[0] if len(value) >= 8 else 1 << 60
            if len(value) < 8 * (count + 1):
                raise _Damage("the list of free pages is cut short")
            for place in range(1, count + 1):
                (page,) = U64.unpack_from(value, 8 * place)
                if not 2 <= page <= self._last_page or page in free:
                    raise _Damage(f"the list of free pages names page {page}, wrongly or twice")
                free.add(page)
        self._used |= free

    def _named(self, name: bytes, value: bytes) -> None:
        """Read one of the databases `ledger`, `log` and `meta`."""
        if len(value) != DB.size:
            raise _Damage(f"the head of the database {name!r} has {len(value)} bytes")
        label = name.decode("ascii", "replace")
        tree = _of(label, DB.unpack(value))
        for key, stored in self._tree(tree):
            self._found.records += 1
            if label == "ledger" and crc32(stored, crc32(key)) != RESIDUE:
                self._fault(f"the record {key.hex()} of the ledger is damaged (checksum differs)")
            if len(self._found.faults) >= FAULTS_MAX:
                return

    def _tree(self, tree: _Tree, *, numbers: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Walk a tree's records in order; a part that cannot be read is a fault, and the rest goes on."""
        if tree.root == NOWHERE:
            return
        counts = [0, 0, 0, 0]  # Branch, leaf and overflow pages, records.
        last: bytes | None = None
        before = len(self._found.faults)
        for key, value in self._subtree(tree, tree.root, 1, counts):
            order = key[::-1] if numbers else key  # Numbers are little-endian.
            if last is not None and not last < order:
                self._fault(f"the keys of {tree.name} are out of order at {key.hex()}")
            last = order
            yield key, value
        wanted = [tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.records]
        if counts != wanted and len(self._found.faults) == before:
            self._fault(
                f"{tree.name} has {counts[3]} records on {counts[:3]} pages, not {wanted[3]} on {wanted[:3]}"
            )

    def _subtree(
        self, tree: _Tree, number: int, depth: int, counts: list[int]
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            kind, nodes = self._page(tree, number)
            if depth > min(tree.depth, DEPTH_MAX) or (kind == LEAF) != (depth == tree.depth):
                raise _Damage(f"page {number} of {tree.name} lies at depth {depth} of {tree.depth}")
        except _Damage as damage:
            self._fault(str(damage))
            return
        counts[0 if kind == BRANCH else 1] += 1
        for at in nodes:
            try:
                if kind == BRANCH:
                    low, high, flags, _ = self._node(tree, number, at)
                    child = low | high << 16 | flags << 32
                else:
                    counts[3] += 1
                    yield self._record(tree, number, at, counts)
                    continue
            except _Damage as damage:
                self._fault(str(damage))
                continue
            if len(self._found.faults) >= FAULTS_MAX:
                return
            yield from self._subtree(tree, child, depth + 1, counts)

    def _page(self, tree: _Tree, number: int) -> tuple[int, list[int]]:
        """Return what a page is and where its nodes stand in the file."""
        at = self._use(tree, number)
        named, _, kind, lower, upper = PAGE.unpack_from(self._content, at)
        if named != number or kind not in (BRANCH, LEAF):
            raise _Damage(
                f"page {number} of {tree.name} is damaged: it says to be page {named} of kind {kind}"
            )
        if not PAGE.size <= lower <= upper <= self._page_bytes or lower % 2:
            raise _Damage(f"page {number} of {tree.name} is damaged: its bounds are {lower} and {upper}")
        places = Struct(f"<{(lower - PAGE.size) // 2}H").unpack_from(self._content, at + PAGE.size)
        if any(not upper <= place <= self._page_bytes - NODE.size for place in places):
            raise _Damage(f"page {number} of {tree.name} is damaged: a record lies outside of it")
        self._found.pages += 1
        return kind, [at + place for place in places]

    def _use(self, tree: _Tree, number: int, pages: int = 1) -> int:
        """Note that pages are used, and return where the first one begins."""
        at = number * self._page_bytes
        if not 2 <= number <= number + pages - 1 <= self._last_page:
            raise _Damage(f"{tree.name} names page {number}, but the last one is {self._last_page}")
        if at + pages * self._page_bytes > len(self._content):
            raise _Damage(f"page {number} of {tree.name} is missing: data.mdb was cut short")
        for page in range(number, number + pages):
            if page in self._used:
                raise _Damage(f"page {page} of {tree.name} is used twice")
            self._used.add(page)
        return at

    def _node(self, tree: _Tree, number: int, at: int) -> tuple[int, int, int, int]:
        low, high, flags, key_bytes = NODE.unpack_from(self._content, at)
        if at + NODE.size + key_bytes > (number + 1) * self._page_bytes:
            raise _Damage(f"page {number} of {tree.name} is damaged: a key reaches beyond it")
        return low, high, flags, key_bytes

    def _record(self, tree: _Tree, number: int, at: int, counts: list[int]) -> tuple[bytes, bytes]:
        low, high, flags, key_bytes = self._node(tree, number, at)
        length = low | high << 16
        begin = at + NODE.size
        key = self._content[begin : begin + key_bytes]
        begin += key_bytes
        if flags & ~(BIG | TREE):
            raise _Damage(f"page {number} of {tree.name} is damaged: a record has flags {flags}")
        if flags & BIG:
            return key, self._overflow(tree, number, begin, length, counts)
        if begin + length > (number + 1) * self._page_bytes:
            raise _Damage(
                f"page {number} of {tree.name} is damaged: the record {key.hex()} reaches beyond it"
            )
        return key, self._content[begin : begin + length]

    def _overflow(self, tree: _Tree, number: int, at: int, length: int, counts: list[int]) -> bytes:
        """Return a value that has pages of its own."""
        if at + U64.size > (number + 1) * self._page_bytes:
            raise _Damage(f"page {number} of {tree.name} is damaged: a record reaches beyond it")
        (first,) = U64.unpack_from(self._content, at)
        pages = (PAGE.size - 1 + length) // self._page_bytes + 1
        start = self._use(tree, first, pages)
        named, _, kind, _, _ = PAGE.unpack_from(self._content, start)
        (own_pages,) = PAGES.unpack_from(self._content, start + 12)
        if (named, kind, own_pages) != (first, OVERFLOW, pages):
            raise _Damage(f"page {first} of {tree.name} is damaged: it is not the beginning of a large value")
        counts[2] += pages
        self._found.pages += pages
        return self._content[start + PAGE.size : start + PAGE.size + length]

    def _fault(self, words: str) -> None:
        if len(self._found.faults) < FAULTS_MAX:
            self._found.faults.append(words)


def _of(name: str, fields: tuple[int, ...]) -> _Tree:
    _, _, depth, branch, leaf, overflow, records, root = fields
    return _Tree(name, depth, branch, leaf, overflow, records, root)
