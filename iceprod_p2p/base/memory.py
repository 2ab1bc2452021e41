"""What this process takes of the machine's memory, and giving back what it has freed.

glibc keeps most of what is freed for the next time, in an arena for every few threads.  After gRPC has refused some
hundred calls for their headers that is hundreds of MiB of which nothing is in use; `malloc_trim` gives every whole
page of it back.  Other C libraries do so by themselves or not at all: there `give_back` does nothing.
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

_STATUS: Final = Path("/proc/self/status")
_OWN: Final = re.compile(rb"^RssAnon:\s+(\d+) kB$", re.MULTILINE)


def own_mib() -> float | None:
    """Return how many MiB of memory this process has for itself, None where the system does not tell.

    Pages of files do not count: those of a store that is mapped are the system's to drop.  Takes some 30 us.
    """
    try:
        found = _OWN.search(_STATUS.read_bytes())
    except OSError:
        return None
    return int(found[1]) / 1_024 if found is not None else None


def give_back() -> bool:
    """Give freed memory back to the system; True when there was some.

    Any thread; takes some 0.2 ms for each MiB given back, and lets other Python threads run meanwhile.
    """
    trim = _trim()
    return trim is not None and bool(trim(0))


@cache
def _trim() -> Any:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim
