"""What a refusal may cost.  The bar is 50 ms and 64 MiB on a quiet core; tests run where and beside what they may, so
time is this process's own on the CPU, and its bound is generous.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bounded(*, cpu_s: float, memory_mib: int = 0) -> Iterator[None]:
    """Fail when the block needs more CPU time, or allocates more at once, than this.

    Memory is not looked at (which takes its time too) when `memory_mib` is 0.  What earlier tests have left in memory
    is kept out of the collector's way: to look through all of that would take longer than the block.
    """
    gc.freeze()
    if memory_mib:
        tracemalloc.start()
    began_s = time.process_time()
    try:
        yield
    finally:
        spent_s = time.process_time() - began_s
        peak = tracemalloc.get_traced_memory()[1] if memory_mib else 0
        tracemalloc.stop()
        gc.unfreeze()
    assert spent_s < cpu_s, f"took {spent_s:.2f} s of CPU time"
    assert peak <= memory_mib << 20, f"allocated {peak >> 20} MiB"
