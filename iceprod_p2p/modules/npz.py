"""Reproducible .npz files: the same arrays give the same bytes, whenever and wherever they are written.

`numpy.savez` stamps the time of writing into the file, so that its checksum says nothing of its
contents.  This writer fixes the times, keeps the order of the arrays and stores them uncompressed;
`numpy.load(path)` reads the result.  It takes whatever has the buffer protocol, so this library needs
no NumPy.  Source: the manual of numpy.lib.format, version 1.0 of the .npy format.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules.statistics import clip

# Buffer formats to .npy types; the size of `l` depends on the machine, so the item size is looked at as well.
KINDS = {"d": "f", "f": "f", "e": "f", "?": "b", **dict.fromkeys("bhilq", "i"), **dict.fromkeys("BHILQ", "u")}
FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold
HEADER_ALIGN = 64


def write_npz(path: Path, arrays: Mapping[str, Any]) -> int:
    """Write named arrays of numbers or truth values; return the file's size in bytes.

    The file appears whole or not at all.  BadInput when an array holds anything else, such as objects or
    records.
    """
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", FIXED_TIME)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, npy_bytes(name, array))
    partial.replace(path)
    return path.stat().st_size


def npy_bytes(name: str, array: Any) -> bytes:
    """Return one array as the bytes of a .npy file; BadInput, naming it, when it is no array of numbers."""
    try:
        view = memoryview(array)
    except (TypeError, ValueError, BufferError) as wrong:
        raise BadInput(
            f"array {name!r} is {clip(type(array).__name__)}, which has no buffer: {wrong}"
        ) from wrong
    kind = KINDS.get(view.format)
    if kind is None:
        raise BadInput(
            f"array {name!r} holds items of format {view.format!r}", remedy="store numbers or truth values"
        )
    if sys.byteorder != "little":
        raise BadInput(f"array {name!r} is not little-endian", remedy="use its byteswapped copy")
    order = "|" if view.itemsize == 1 else "<"
    fields = {"descr": f"{order}{kind}{view.itemsize}", "fortran_order": False, "shape": view.shape or ()}
    text = "{" + "".join(f"{key!r}: {value!r}, " for key, value in fields.items()) + "}"
    padding = -(10 + len(text) + 1) % HEADER_ALIGN
    header = text.encode("latin1") + b" " * padding + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + view.tobytes()
