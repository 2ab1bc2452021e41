"""Disks of simulated nodes: three ordered tables, one write transaction at a time, nothing durable before its commit.

The same contract as `store.environment.Environment`, in memory.  On top: a crash inside or just after a commit
may keep or lose it, and with it any number of those just before it that were not lasting; a commit may take long
or fail by name, and records may be damaged while the node is down.
Contracts that LMDB does not check are checked here: nobody writes while a scan is walked, or uses a table after
its transaction.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from iceprod_p2p.store.errors import StoreError

KEY_BYTES_MAX = 511
MASK = (1 << 64) - 1
NAMES = ("ledger", "log", "meta")
Undo = list[tuple["Rows", bytes, "bytes | None"]]


class PowerCut(BaseException):
    """The machine loses power at this very place; nothing in a node can catch it."""


class Rows:
    """One ordered table.  `content` sums a hash of every pair, so two tables are compared at no cost."""

    __slots__ = ("content", "keys", "values", "version")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: dict[bytes, bytes] = {}
        self.content = 0
        self.version = 0

    def put(self, key: bytes, value: bytes) -> None:
        old = self.values.get(key)
        if old is None:
            if self.keys and key > self.keys[-1]:
                self.keys.append(key)
            else:
                insort(self.keys, key)
            self.version += 1
            self.content = (self.content + hash((key, value))) & MASK
        else:
            self.content = (self.content - hash((key, old)) + hash((key, value))) & MASK
        self.values[key] = value

    def delete(self, key: bytes) -> None:
        old = self.values.pop(key, None)
        if old is not None:
            del self.keys[bisect_left(self.keys, key)]
            self.version += 1
            self.content = (self.content - hash((key, old))) & MASK

    def copy(self) -> Rows:
        made = Rows()
        made.keys = list(self.keys)
        made.values = dict(self.values)
        made.content = self.content
        return made


class View:
    """A table inside one transaction or snapshot; `undo` is None where nothing may be written."""

    __slots__ = ("_hook", "_owner", "_rows", "_undo")

    def __init__(self, rows: Rows, owner: Handle, undo: Undo | None, hook: Callable[[], None] | None) -> None:
        self._rows = rows
        self._owner = owner
        self._undo = undo
        self._hook = hook

    def get(self, key: bytes) -> bytes | None:
        assert self._owner.open, "a table is used after its transaction"
        return self._rows.values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        assert self._owner.open and self._undo is not None, "written outside a write transaction"
        assert 0 < len(key) <= KEY_BYTES_MAX, f"a key of {len(key)} bytes"
        if self._hook is not None:
            self._hook()
        self._undo.append((self._rows, key, self._rows.values.get(key)))
        self._rows.put(key, value)

    def writes(self, since: int = 0) -> list[tuple[bytes, bytes | None]]:
        """Return the keys written to this table, each with what it held before, from the `since`-th write on of the
        transaction.
        """
        return [(key, old) for rows, key, old in (self._undo or [])[since:] if rows is self._rows]

    @property
    def written(self) -> int:
        """How much the transaction has written up to now, in all its tables."""
        return len(self._undo or ())

    def delete(self, key: bytes) -> None:
        assert self._owner.open and self._undo is not None, "written outside a write transaction"
        old = self._rows.values.get(key)
        if old is not None:
            self._undo.append((self._rows, key, old))
            self._rows.delete(key)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        rows, owner = self._rows, self._owner
        keys, values, version = rows.keys, rows.values, rows.version
        first = bisect_left(keys, start)
        last = bisect_left(keys, stop, first)
        for position in range(last - 1, first - 1, -1) if reverse else range(first, last):
            if rows.version != version or not owner.open:
                raise AssertionError("a key came or went, or the transaction ended, while a scan was walked")
            key = keys[position]
            yield key, values[key]


class Handle:
    """Three views that live and end together: `ledger`, `log` and `meta`, each made when it is first asked for."""

    ledger: View
    log: View
    meta: View

    def __init__(
        self, tables: dict[str, Rows], undo: Undo | None = None, hook: Callable[[], None] | None = None
    ) -> None:
        self.open = True
        self.undo = undo
        self._tables = tables
        self._hook = hook

    def __getattr__(self, name: str) -> View:
        made = View(self._tables[name], self, self.undo, self._hook)
        self.__dict__[name] = made
        return made

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False


class LedgerHandle(Handle):
    """A snapshot that gives the ledger's table alone."""

    def __enter__(self) -> View:  # type: ignore[override]
        return self.ledger


class Write(Handle):
    """One write transaction."""

    def __init__(
        self, image: Image, commit: Callable[[Write, bool], None], hook: Callable[[], None] | None
    ) -> None:
        super().__init__(image.tables, [], hook)
        self._commit = commit
        assert not image.writing, "two write transactions at once"
        self._image = image
        image.writing = True

    def commit(self, *, lasting: bool = True) -> None:
        assert self.open, "a transaction ends once"
        self._commit(self, lasting)
        self.open = self._image.writing = False

    def abort(self) -> None:
        if self.open:
            assert self.undo is not None
            roll_back(self.undo)
            self.open = self._image.writing = False


def roll_back(undo: Undo) -> None:
    """Undo every write of a transaction, the last first."""
    while undo:
        rows, key, old = undo.pop()
        if old is None:
            rows.delete(key)
        else:
            rows.put(key, old)


class Image:
    """What lies on a disk: the three tables of one generation."""

    def __init__(self, tables: dict[str, Rows] | None = None) -> None:
        self.tables = tables or {name: Rows() for name in NAMES}
        self.writing = False

    def read(self) -> Handle:
        """Give a snapshot of the last commit, for a `with`."""
        assert not self.writing, "a snapshot of the last commit is not to be had while the tick writes"
        return Handle(self.tables)

    def read_ledger(self) -> LedgerHandle:
        """Give the ledger's table of the last commit, for a `with`."""
        assert not self.writing, "a snapshot of the last commit is not to be had while the tick writes"
        return LedgerHandle(self.tables)

    def close(self) -> None:
        """A private copy is deleted."""


class Staging(Image):
    """A generation being filled from a snapshot."""

    def write(self) -> Write:
        return Write(self, lambda write, lasting: None, None)

    def discard(self) -> None:
        """Deleted; nothing of it was ever visible."""


class Disk:
    """One node's disk.  It outlives its processes; `open` gives the store of a new one."""

    def __init__(self) -> None:
        self.image = Image()
        self.unsynced: list[Undo] = []  # The commits after the last fsync that returned, the oldest first.
        self.syncing = False  # Whether the last of them is lasting: then one fsync is under way for all.
        self.fsync_s = 0.0
        self.fail_next_commit: StoreError | None = None
        self.commit_failed = False  # The failure that was ordered has happened.
        self.commits = 0
        self.lasting = 0  # Of them.
        self.on_commit: Callable[[str], None] = lambda point: None  # May raise PowerCut.
        self.on_put: Callable[[], None] | None = None

    def write(self) -> Write:
        return Write(self.image, self._commit, self.on_put)

    def read(self) -> Handle:
        return self.image.read()

    def copy(self) -> Image:
        assert not self.image.writing, "copied between two ticks, as from another thread"
        return Image({name: rows.copy() for name, rows in self.image.tables.items()})

    def stage(self) -> Staging:
        return Staging()

    def swap(self, staging: Staging) -> None:
        self.on_commit("before swap")
        self._fail_if_told()
        self.image = Image(staging.tables)
        self.unsynced = []
        self.syncing = False
        self.on_commit("after swap")

    def _commit(self, write: Write, lasting: bool) -> None:
        self._fail_if_told()
        if write.undo:
            self.on_commit("before commit")
            undo, write.undo = write.undo, []  # Nothing takes it back any more but a power cut.
            if self.syncing:  # A node's next tick begins when its last fsync has returned.
                self.unsynced = []
            self.commits += 1
            self.lasting += lasting
            self.unsynced.append(undo)
            self.syncing = lasting
            self.on_commit("after commit")

    def _fail_if_told(self) -> None:
        failure, self.fail_next_commit = self.fail_next_commit, None
        if failure is not None:
            self.commit_failed = True
            raise failure

    def flip_bit(self, number: int) -> str:
        """Flip one bit of the log or of the node's own records; `number` chooses which. Return where."""
        places = [(name, key) for name in ("log", "meta") for key in self.image.tables[name].keys]
        name, key = places[number % len(places)]
        rows = self.image.tables[name]
        value = bytearray(rows.values[key])
        bit = (number // len(places)) % (8 * len(value))
        value[bit // 8] ^= 1 << bit % 8
        rows.put(key, bytes(value))
        return f"{name} {key.hex()}, bit {bit}"

    def at_risk(self, *, synced: bool) -> int:
        """Return how many of the last commits a power cut may take; `synced`: the last fsync has returned."""
        return 0 if self.syncing and synced else len(self.unsynced)

    def crash(self, *, lose: int = 0) -> None:
        """The process or machine stopped: an open transaction is gone, and so are the last `lose` commits."""
        for _ in range(lose):
            roll_back(self.unsynced.pop())
        self.unsynced = []
        self.syncing = False
        self.image.writing = False
        self.on_put, self.on_commit = None, lambda point: None
