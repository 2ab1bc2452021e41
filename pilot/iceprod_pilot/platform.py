"""What this worker node is: host, operating system, and what the batch system left of the wall time."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from iceprod_p2p.base.clock import Clock
from iceprod_pilot.bundle_main import SCRATCH_VARIABLE, scratch_of

_HOST_CHARS_MAX = 255
_END_VARIABLES = ("SLURM_JOB_END_TIME",)  # Seconds since 1970 at which the batch system ends the grid job.
_LENGTH_VARIABLES = ("PBS_WALLTIME",)  # Seconds that the grid job may run in all; Torque.
_FACT_BYTES_MAX = 1_048_576
_TO_DIE = re.compile(r"^GLIDEIN_ToDie\s*=\s*(\d{1,12})\s*$", re.MULTILINE)


def scratch(environ: Mapping[str, str]) -> Path | None:
    """Return where the batch system wants a grid job to write; None when it names no directory that can be used."""
    path = environ.get(SCRATCH_VARIABLE, "") or scratch_of(dict(environ))
    return Path(path) if path else None


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
        "uid": os.getuid(),
        "os": f"{system.sysname} {system.release}",
        "arch": system.machine,
        "cpus_usable": len(os.sched_getaffinity(0)),
        "memory_total_mib": memory_mib(),
    }


class WallTime:
    """How long the grid job may still run: as configured, or as the batch system says where that is sooner.

    Systems that say it: Slurm and Torque by variables; HTCondor glideins by their machine's description; and every
    site with Machine/Job Features (HSF-TN-2016-02) by files.
    """

    def __init__(self, walltime_s: int, clock: Clock, environ: Mapping[str, str]) -> None:
        self._clock = clock
        now_s, wall_s = clock.monotonic_s(), clock.wall_ms() / 1_000
        ends = [now_s + walltime_s] if walltime_s > 0 else []
        ends += [now_s + end_s - wall_s for end_s in _told_ends(environ, wall_s)]
        self._end_s: float | None = min(ends, default=None)

    def left_s(self) -> float | None:
        """Return the seconds left, below 0 when it is over; None when nothing limits it."""
        return None if self._end_s is None else self._end_s - self._clock.monotonic_s()


def _told_ends(environ: Mapping[str, str], wall_s: float) -> Iterator[float]:
    """Yield every end that the batch system tells, in seconds since 1970."""
    for name in _END_VARIABLES:
        yield from _whole(environ.get(name, ""))
    for name in _LENGTH_VARIABLES:
        yield from (wall_s + length_s for length_s in _whole(environ.get(name, "")))
    job, machine = environ.get("JOBFEATURES", ""), environ.get("MACHINEFEATURES", "")
    began = next(_whole(_fact(job, "jobstart_secs")), wall_s)
    yield from (began + length_s for length_s in _whole(_fact(job, "wall_limit_secs")))
    yield from _whole(_fact(job, "shutdowntime_job"))
    yield from _whole(_fact(machine, "shutdowntime"))
    description = environ.get("_CONDOR_MACHINE_AD", "")
    to_die = _TO_DIE.search(_read(Path(description))) if description.startswith("/") else None
    if to_die:
        yield from _whole(to_die[1])


def _whole(text: str) -> Iterator[float]:
    """Yield the number that `text` is; 0, which stands for no limit, and anything else yields nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= 12 and int(text) > 0:
        yield float(text)


def _fact(directory: str, name: str) -> str:
    return _read(Path(directory, name)) if directory.startswith("/") else ""


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_FACT_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
