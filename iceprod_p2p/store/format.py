"""The format of a store's files, noted in each: a program reads those it knows, and refuses the others by name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from iceprod_p2p.store.errors import StoreFormat
from iceprod_p2p.store.place import Meta

FORMAT_KEY: Final = b"format"
FORMAT: Final = 1  # Sealed values in `ledger`; `log` and `meta` as `raft.journal` packs them.


def note_format(meta: Meta) -> None:
    """Write down which format a new store has."""
    meta.put(FORMAT_KEY, b"%d" % FORMAT)


def check_format(value: bytes | None, path: Path) -> None:
    """Raise StoreFormat unless what is noted in a store is a format that this program reads."""
    if value != b"%d" % FORMAT:
        found = "none" if value is None else value[:20].decode("ascii", "replace")
        raise StoreFormat(
            f"the store {path} has format {found}, but this program reads format {FORMAT}",
            remedy="start the node with the program that wrote it, or take part again: iceprod-node rejoin",
        )
