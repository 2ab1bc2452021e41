"""What this worker node is: host, operating system, and what the batch system left of the wall time."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from iceprod_p2p.base.clock import Clock

_HOST_CHARS_MAX = 255
_END_VARIABLES = ("SLURM_JOB_END_TIME",)  # Seconds since 1970 at which the batch system ends the grid job.


def host() -> str:
    """Return this machine's name, bounded and printable, for reports and for the list of hosts that lose tasks."""
    name = "".join(letter for letter in socket.gethostname() if letter.isprintable())
    return name[:_HOST_CHARS_MAX] or "unknown"


def memory_mib() -> int:
    """Return this machine's memory in MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (1024 * 1024)


def facts() -> dict[str, str | int]:
    """Return what is worth a line in the log when the pilot starts."""
    system = os.uname()
    return {
        "host": host(),
        "os": f"{system.sysname} {system.release}",
        "arch": system.machine,
        "cpus_usable": len(os.sched_getaffinity(0)),
        "memory_total_mib": memory_mib(),
    }


class WallTime:
    """How long the grid job may still run: as configured, or as the batch system says where that is sooner."""

    def __init__(self, walltime_s: int, clock: Clock, environ: Mapping[str, str]) -> None:
        self._clock = clock
        self._end_s: float | None = clock.monotonic_s() + walltime_s if walltime_s > 0 else None
        for name in _END_VARIABLES:
            text = environ.get(name, "")
            if text.isascii() and text.isdigit() and len(text) <= 12:
                end_s = clock.monotonic_s() + int(text) - clock.wall_ms() / 1_000
                self._end_s = end_s if self._end_s is None else min(self._end_s, end_s)

    def left_s(self) -> float | None:
        """Return the seconds left, below 0 when it is over; None when nothing limits it."""
        return None if self._end_s is None else self._end_s - self._clock.monotonic_s()
