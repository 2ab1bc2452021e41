"""What can go wrong with a node's own disk, by name, so that an operator knows what to mend."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from iceprod_p2p.base.errors import IceProdError

DAMAGE = frozenset({"CorruptedError", "PageNotFoundError", "PanicError", "InvalidError", "BadChecksumError"})
FULL_BELOW_BYTES = 1 << 20


class StoreError(IceProdError):
    """The node's own disk or data directory failed; the node stops and starts again from what is on disk."""


class StoreFull(StoreError):
    """The disk, or the environment's fixed map, has no room left."""


class StoreBroken(StoreError):
    """The disk answered with an input/output error, or a page of the environment is damaged."""


class StoreUnwritable(StoreError):
    """The data directory cannot be created or written by this user."""


class StoreCopied(StoreError):
    """The files were copied or restored: what they hold may be older than what the node has promised."""


class StoreFormat(StoreError):
    """The files were written by another version of this program, in a format that this one does not read."""


class StoreLocked(StoreError):
    """Another process has this data directory open."""


def store_error(what: str, where: Path, cause: Exception) -> StoreError:
    """Return the named error for what LMDB or the system said while we tried to do `what` at `where`."""
    code = cause.errno if isinstance(cause, OSError) else _code(cause)
    kind = type(cause).__name__
    if kind == "MapFullError":
        return StoreFull(
            f"cannot {what}: the map of {where} is full", remedy="restart with a larger map size"
        )
    # LMDB reports a write that the system cut short as EIO, and that is how a disk usually fills up.
    full = code in (errno.ENOSPC, errno.EDQUOT) or (
        code == errno.EIO and _free_bytes(where) < FULL_BELOW_BYTES
    )
    if full:
        return StoreFull(
            f"cannot {what}: no space left on the disk of {where}", remedy="free space, then restart"
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreUnwritable(
            f"cannot {what}: {where} is not writable", remedy="check its owner, mode and mount"
        )
    if code == errno.EIO or kind in DAMAGE:
        return StoreBroken(
            f"cannot {what}: {where} is damaged ({cause})",
            remedy="take part again under a new node id: iceprod-node rejoin",
        )
    return StoreError(f"cannot {what}: {where}: {cause}", remedy="see the node's log, then restart it")


def _code(cause: Exception) -> int:
    """Return the system's error number behind what LMDB raised: newer bindings give its words alone."""
    code = int(getattr(cause, "code", 0) or 0)
    if code:
        return code
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
    return next((number for number in numbers if str(cause).endswith(os.strerror(number))), 0)


def _free_bytes(where: Path) -> int:
    try:
        room = os.statvfs(where)
    except OSError:
        return FULL_BELOW_BYTES
    return room.f_bavail * room.f_frsize
