"""Which files a store was made in, so that a copy of them, perhaps an old one, is told from the original.

A copy made file by file has other inodes.  What this cannot see (a disk image set back as a whole, bytes written
over the same file) is seen by the other nodes (`raft.promises`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from iceprod_p2p.store.errors import StoreCopied

PLACE_KEY: Final = b"place"


class Meta(Protocol):
    """The database `meta` inside a transaction."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...


def note_place(meta: Meta, path: Path) -> None:
    """Write down that the store in `path` belongs there."""
    meta.put(PLACE_KEY, _place(path))


def is_placed(meta: Meta, path: Path) -> bool:
    """Return whether that was written down before; StoreCopied when it was for other files."""
    noted = meta.get(PLACE_KEY)
    if noted is not None and noted != _place(path):
        raise StoreCopied(
            f"{path} is a copy of the files that the node wrote, perhaps an old one",
            remedy="take part again under a new node id: iceprod-node rejoin",
        )
    return noted is not None


def _place(path: Path) -> bytes:
    return b"%d %d" % (path.stat().st_ino, (path / "data.mdb").stat().st_ino)
