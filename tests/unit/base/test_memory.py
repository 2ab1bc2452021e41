"""The process's own memory is told, and what it freed goes back where the C library can do so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from iceprod_p2p.base.machine import this_machine
from iceprod_p2p.base.memory import own_mib

# Blocks too small for a mapping of their own, and one at the end that keeps the heap from shrinking by itself.
HOLED = """
import ctypes
from iceprod_p2p.base.memory import give_back, own_mib
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(60_000) for _ in range(2_000)]
for block in blocks:
    ctypes.memset(block, 1, 60_000)
full = own_mib()
for block in blocks[:-1]:
    libc.free(block)
kept = own_mib()
print(full, kept, give_back(), own_mib())
"""


def test_own_memory_is_told() -> None:
    told = own_mib()
    if told is None:
        pytest.skip("this system does not tell")
    assert told > 1


@pytest.mark.skipif(not this_machine().libc.startswith("glibc"), reason="another C library")
def test_what_was_freed_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLED], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    full, kept, given, left = done.stdout.split()
    assert float(kept) > float(full) - 20, "the C library has kept it"
    assert given == "True" and float(left) < float(full) - 80
