"""A node's data directory: held by one process at a time, and the durable name of the generation in use."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.store.errors import StoreBroken, StoreLocked, store_error


def lock_directory(path: Path) -> int:
    """Make the directory and hold it until the descriptor returned is closed; StoreLocked names the holder."""
    try:
        is_new = not path.exists()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_new:
            sync_directory(path.parent)
        lock_fd = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as cause:
        raise store_error("open the store", path, cause) from cause
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        holder = os.pread(lock_fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock_fd)
        raise StoreLocked(
            f"{path} is open in another process (pid {holder})",
            remedy="stop that node, or give this one its own",
        ) from cause
    try:
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, b"%d\n" % os.getpid(), 0)
    except OSError as cause:
        os.close(lock_fd)
        raise store_error("open the store", path, cause) from cause
    return lock_fd


def read_current(path: Path) -> str:
    """Return the name of the generation in use; empty for a new directory."""
    try:
        return (path / "CURRENT").read_text("ascii").strip()
    except FileNotFoundError:
        return ""


def generation_number(name: str) -> int:
    """Return the number in a generation's name, 1 for a new directory; StoreBroken when it is no such name."""
    if not name:
        return 1
    prefix, _, digits = name.partition("-")
    if prefix != "raft" or not digits.isdigit():
        raise StoreBroken(
            f"CURRENT names {name!r}, which is no generation",
            remedy="take part again under a new node id: iceprod-node rejoin",
        )
    return int(digits)


def write_current(path: Path, name: str) -> None:
    """Make `name` the generation in use, atomically and durably."""
    if read_current(path) == name:
        return
    temporary = path / "CURRENT.new"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    passing("store.rename.before")
    os.replace(temporary, path / "CURRENT")
    passing("store.rename.after")
    sync_directory(path)


def sync_directory(path: Path) -> None:
    """Put a directory's entries on the disk, so that a rename in it survives a power cut."""
    directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory_fd)
    finally:
        os.close(directory_fd)
