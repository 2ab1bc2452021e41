"""When the local grid ends a grid job: limits as a pure decision, and the measure of a directory."""

from __future__ import annotations

import os
from typing import Final

from iceprod_p2p.grids.local_spool import JobFile, Verdict

ENTRIES_MAX: Final = 200_000  # Of one work directory: a look at it has to end; more count as too many.


def broken_limit(job: JobFile, *, elapsed_s: float, memory_mib: int, disk_mib: int) -> Verdict | None:
    """Return why `job` has to end, None while it keeps its limits; a limit of 0 is none."""
    if job.walltime_s and elapsed_s > job.walltime_s:
        return Verdict("walltime", f"ran longer than its wall time of {job.walltime_s} s")
    if job.memory_mib and memory_mib > job.memory_mib:
        return Verdict("memory", f"used {memory_mib} MiB of memory, its limit is {job.memory_mib} MiB")
    if job.disk_mib and disk_mib > job.disk_mib:
        return Verdict("disk", f"used {disk_mib} MiB in its work directory, its limit is {job.disk_mib} MiB")
    return None


def disk_mib(directory: str) -> int:
    """Return what the files under `directory` take on disk; links are not followed, vanishing files do not
    matter.
    """
    blocks = 0
    entries = 0
    stack = [directory]
    while stack and entries < ENTRIES_MAX:
        try:
            with os.scandir(stack.pop()) as listing:
                for entry in listing:
                    entries += 1
                    blocks += entry.stat(follow_symlinks=False).st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
        except OSError:
            continue
    return blocks * 512 >> 20
