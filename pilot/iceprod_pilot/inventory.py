"""What a directory tree holds, written down when it was made, and whether it still does."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

PIECE_BYTES: Final = 1024 * 1024
_WRITE: Final = 0o222


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One file, directory or link: `sha256` of a file, the aim of a link, empty for a directory."""

    mode: int
    size_bytes: int
    inode: int
    changed_ns: int
    content: str = ""


class Inventory(msgspec.Struct, frozen=True, gc=False):
    """Everything below a directory, by its path there; `size_bytes` is what the files hold."""

    entries: dict[str, Entry]
    size_bytes: int


def take_inventory(root: Path) -> Inventory:
    """Take the write permission from everything below `root`, and write down what there is.

    The directory itself stays writable, so that it can be renamed and removed.
    """
    entries: dict[str, Entry] = {}
    total = 0
    for _, path, state in _walk(root):
        if not stat.S_ISLNK(state.st_mode) and state.st_mode & _WRITE:
            os.chmod(path, stat.S_IMODE(state.st_mode) & ~_WRITE)
    for name, path, state in _walk(root):
        content = ""
        if stat.S_ISREG(state.st_mode):
            content = _sum(path)
            total += state.st_size
        elif stat.S_ISLNK(state.st_mode):
            content = os.readlink(path)
        entries[name] = Entry(state.st_mode, state.st_size, state.st_ino, state.st_ctime_ns, content)
    return Inventory(entries, total)


def altered(root: Path, inventory: Inventory, *, read_files: bool) -> str:
    """Return what is not as the inventory says, in a few words; empty when all is.  With `read_files` each byte counts.

    Without reading, a file counts as unaltered when neither its inode nor its time of change is another.
    """
    left = set(inventory.entries)
    try:
        for name, path, state in _walk(root):
            entry = inventory.entries.get(name)
            if entry is None:
                return f"{name} is new"
            left.discard(name)
            known = (entry.mode, entry.size_bytes, entry.inode, entry.changed_ns)
            if known != (state.st_mode, state.st_size, state.st_ino, state.st_ctime_ns):
                return f"{name} was changed"
            if stat.S_ISLNK(state.st_mode) and os.readlink(path) != entry.content:
                return f"{name} leads elsewhere"
            if read_files and stat.S_ISREG(state.st_mode) and _sum(path) != entry.content:
                return f"{name} has other content"
    except OSError as fault:
        return f"it cannot be read: {fault.strerror}"
    return f"{min(left)} is gone" if left else ""


def _walk(root: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield name, path and state of everything below `root`, links as themselves."""
    front = [os.fspath(root)]
    skip = len(front[0]) + 1
    while front:
        with os.scandir(front.pop()) as entries:
            for entry in entries:
                state = entry.stat(follow_symlinks=False)
                yield entry.path[skip:], entry.path, state
                if stat.S_ISDIR(state.st_mode):
                    front.append(entry.path)


def _sum(path: str) -> str:
    total = sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            total.update(piece)
    return total.hexdigest()
