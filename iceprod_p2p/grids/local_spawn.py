"""Starts one grid job of the local grid: a shell in a session of its own that outlives whoever started it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

from iceprod_p2p.grids.local_spool import JOB_SCRIPT, JobFile

SHELL: Final = "/bin/sh"
NICE: Final = "/usr/bin/nice"
NICE_MAX: Final = 19
DEFAULT_SIGNALS: Final = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGCHLD,
)


def niceness(priority: int, nice: int) -> int:
    """Return a grid job's nice value: the site's `nice`, one more for each 5 points of priority below 0."""
    return min(NICE_MAX, nice + max(0, -priority) // 5)


def spawn(directory: Path, job: JobFile, *, gpus: tuple[str, ...], nice: int) -> int:
    """Start `job`, whose spool directory is `directory`; return the pid of its shell.  OSError when that
    fails.
    """
    line = [SHELL, "-c", JOB_SCRIPT, "iceprod-grid-job", str(directory), job.work_directory, *job.command]
    value = niceness(job.priority, nice)
    if value:
        line = [NICE, "-n", str(value), *line]
    environment = dict(job.environment)
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    work = Path(job.work_directory)
    with open(work / "grid.out", "ab") as out, open(work / "grid.err", "ab") as err:
        return os.posix_spawn(
            line[0],
            line,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, err.fileno(), 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=DEFAULT_SIGNALS,
        )
