"""Unpacked archives and large shared inputs, kept on the worker node and used by every pilot of it at once.

    DIRECTORY/DIGEST-0/          what was unpacked, without write permission
    DIRECTORY/DIGEST-0.json      its inventory, written last: an entry without one is not there
    DIRECTORY/DIGEST-0.lock      held shared while a task uses the entry, alone while one is made or removed

Locks are the kernel's (`flock`): whoever dies lets go of them.  Payloads run as the same user and could alter an
entry, so it is looked at before every use: names, sizes, inodes and times of change (which nobody but root can set
back) must be those of the inventory, and a pilot reads every byte once before its first use.  An entry that is not
what it was made as is never used again: the next number takes its place, and it goes when nobody uses it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from iceprod_p2p.base.errors import BadInput, IntegrityError, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_pilot.inventory import Inventory, altered, take_inventory
from iceprod_pilot.workspace import remove

_LOG = get_logger("pilot.trees")
MIB: Final = 1024 * 1024
GENERATIONS_MAX: Final = 8  # Of one digest that turned out altered: more, and something alters them at once.
LOCK_POLL_S: Final = 0.1
INVENTORY_BYTES_MAX: Final = 256 * MIB
_ENTRY: Final = re.compile(r"[0-9a-f]{64}(?:-[a-z]+)?-[0-9]+")

Wait = Callable[[float], bool]
Make = Callable[[Path], None]
"""Makes the content of an entry in a directory that does not exist yet."""


@dataclass(slots=True)
class Lease:
    """An entry in use at `path`; `close` lets go of it.  It cannot be removed before."""

    path: Path
    _descriptor: int

    def close(self) -> None:
        """Let go; once is enough."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class TreeCache:
    """The entries below one directory.  Thread-safe, and safe beside other processes of this machine.

    `size_mib` bounds what is kept: what was not used for longest goes first, never what is in use.
    """

    def __init__(self, directory: Path, *, size_mib: int) -> None:
        self._directory = directory
        self._bytes_max = size_mib * MIB
        self._lock = threading.Lock()
        self._read_whole: set[str] = set()  # Entries that this process has read to the last byte.

    def lease(self, name: str, make: Make, *, wait: Wait) -> Lease:
        """Return the entry `name` (a SHA-256, and a word for the way it was unpacked), made now if need be.

        Unavailable when `wait` said to give up; IntegrityError when every copy is altered as soon as it is made;
        OSError when the disk refuses; else what `make` raises.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for generation in range(GENERATIONS_MAX):
            entry = f"{name}-{generation}"
            while True:
                lease = self._use(entry, wait)
                if lease is not None:
                    return lease
                if self._is_bad(entry):
                    break
                self._make(entry, make, wait)
        raise IntegrityError(f"the unpacked copies of {name[:12]} are altered as soon as they are made")

    def drop_unused(self, *, bytes_max: int | None = None, keep: str = "") -> int:
        """Remove what was not used for longest until the rest fits; return the bytes that went."""
        limit = self._bytes_max if bytes_max is None else bytes_max
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        gone = 0
        for _, size, entry in entries:
            bad = self._is_bad(entry)
            if entry == keep or (total <= limit and not bad):
                continue
            if self._remove(entry):
                total, gone = total - size, gone + size
        return gone

    def _use(self, entry: str, wait: Wait) -> Lease | None:
        """Return the entry when it is there and as it was made."""
        if not self._path(entry, "json").exists() or self._is_marked(entry):
            return None
        descriptor = self._locked(entry, fcntl.LOCK_SH, wait)
        try:
            inventory = self._inventory(entry)
            if inventory is not None and not self._is_marked(entry):
                fault = self._fault(entry, inventory)
                if not fault:
                    os.utime(descriptor)  # What was used last goes last.
                    lease = Lease(self._directory / entry, descriptor)
                    descriptor = -1
                    return lease
                _LOG.warning("unpacked copy altered, made again", entry=entry, fault=fault)
                self._path(entry, "bad").touch(mode=0o600)
            return None
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _fault(self, entry: str, inventory: Inventory) -> str:
        with self._lock:
            whole = entry not in self._read_whole
        fault = altered(self._directory / entry, inventory, read_files=whole)
        if not fault and whole:
            with self._lock:
                self._read_whole.add(entry)
        return fault

    def _make(self, entry: str, make: Make, wait: Wait) -> None:
        """Make the entry, unless somebody else does it meanwhile."""
        done = self._path(entry, "json").exists
        descriptor = self._locked(entry, fcntl.LOCK_EX, wait, unless=done)
        if descriptor < 0:
            return
        try:
            if done():
                return
            final = self._directory / entry
            self._clear(entry)  # Of one who died here.
            scratch = self._path(entry, "partial")
            try:
                self._fill(scratch, make)
                inventory = take_inventory(scratch)
                scratch.rename(final)
                self._write_inventory(entry, inventory)
            finally:
                remove(scratch)  # When it became the entry, it is there no more.
            _LOG.info("unpacked", entry=entry, files=len(inventory.entries), size_bytes=inventory.size_bytes)
        finally:
            os.close(descriptor)
        self.drop_unused(keep=entry)

    def _fill(self, scratch: Path, make: Make) -> None:
        try:
            make(scratch)
        except OSError as full:
            if full.errno not in (errno.ENOSPC, errno.EDQUOT) or not self.drop_unused(bytes_max=0):
                raise
            _LOG.info("cache emptied: the disk was full", directory=str(self._directory))
            remove(scratch)
            make(scratch)

    def _remove(self, entry: str) -> bool:
        """Remove an entry that nobody uses; return whether it went."""
        try:
            descriptor = self._try_lock(entry, fcntl.LOCK_EX)
        except OSError:
            return False
        if descriptor is None:
            return False
        try:
            # The inventory goes first: without it nobody takes what is left for whole.
            self._path(entry, "json").unlink(missing_ok=True)
            self._clear(entry)
            self._path(entry, "bad").unlink(missing_ok=True)
            self._path(entry, "lock").unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        with self._lock:
            self._read_whole.discard(entry)
        _LOG.debug("removed", entry=entry)
        return True

    def _clear(self, entry: str) -> None:
        """Remove what lies there of an entry, half made or whole; its lock is held alone."""
        for path in (self._directory / entry, *self._directory.glob(f"{entry}.partial*")):
            remove(path)

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        """Yield when each entry was used last, its bytes, and its name."""
        for lock in self._directory.glob("*.lock"):
            entry = lock.name.removesuffix(".lock")
            if _ENTRY.fullmatch(entry) is None:
                continue
            with contextlib.suppress(OSError):
                inventory = self._inventory(entry)
                size = inventory.size_bytes if inventory is not None else 0
                yield lock.stat().st_mtime_ns, size, entry

    def _locked(self, entry: str, how: int, wait: Wait, *, unless: Callable[[], bool] = lambda: False) -> int:
        """Return the descriptor that holds the lock; -1 when `unless` came true, for then nobody needs it."""
        while not unless():
            descriptor = self._try_lock(entry, how)
            if descriptor is not None:
                return descriptor
            if wait(LOCK_POLL_S):
                raise Unavailable("the wait for software that another task unpacks was ended")
        return -1

    def _try_lock(self, entry: str, how: int) -> int | None:
        """Return the descriptor that holds the lock, None while others hold it."""
        path = self._path(entry, "lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            mine = os.fstat(descriptor)
            if os.path.samestat(mine, os.stat(path)):  # Else it was removed before the lock was had.
                kept, descriptor = descriptor, -1
                return kept
        except (BlockingIOError, FileNotFoundError):
            return None
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return None

    def _inventory(self, entry: str) -> Inventory | None:
        path = self._path(entry, "json")
        try:
            if path.stat().st_size > INVENTORY_BYTES_MAX:
                return None
            return msgspec.json.decode(path.read_bytes(), type=Inventory)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def _write_inventory(self, entry: str, inventory: Inventory) -> None:
        path = self._path(entry, "json")
        scratch = path.with_suffix(".new")
        scratch.write_bytes(msgspec.json.encode(inventory))
        scratch.replace(path)

    def _is_marked(self, entry: str) -> bool:
        return self._path(entry, "bad").exists()

    def _is_bad(self, entry: str) -> bool:
        if self._is_marked(entry):
            return True
        # An inventory that cannot be read says nothing of what is there.
        return self._path(entry, "json").exists() and self._inventory(entry) is None

    def _path(self, entry: str, ending: str) -> Path:
        return self._directory / f"{entry}.{ending}"


def entry_name(digest: str, way: str = "") -> str:
    """Return the name of an entry: what it was made of, and how; BadInput for what is no SHA-256."""
    name = f"{digest}-{way}" if way else digest
    if _ENTRY.fullmatch(f"{name}-0") is None:
        raise BadInput(f"{digest[:80]!r} is not a SHA-256 in lower-case hexadecimal digits")
    return name
