"""The peer without records: HyperQueue's server and one worker on loopback, which run programs for a Python client.

`python -m benchmarks.hyper DIRECTORY TASKS CORES RESULT` runs so many tasks and writes the seconds that they took into
the file RESULT.  It has no journal here: what it knows is in the memory of one process.  Its client looks once a second
whether a job is over, so runs of some seconds say more than short ones.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from importlib.metadata import version as version_of
from pathlib import Path

from benchmarks import machine
from benchmarks.grid_ours import LIMIT_S, PROGRAM, Lives


def version() -> str | None:
    """Return the version that is installed, or None."""
    return version_of("hyperqueue") if importlib.util.find_spec("hyperqueue") is not None else None


def measure(directory: Path, *, tasks: int, cores: int) -> Lives:
    """Run `tasks` tasks on `cores` cores, in a process of its own."""
    directory.mkdir()
    result = directory / "seconds"
    line = [machine.python(), "-m", "benchmarks.hyper", str(directory), str(tasks), str(cores), str(result)]
    with (directory / "log").open("wb") as log:
        environment = dict(machine.environment())
        subprocess.run(line, stdout=log, stderr=log, env=environment, check=True, timeout=LIMIT_S)
    return Lives(tasks, float(result.read_text()))


def main(directory: str, tasks: int, cores: int, result: str) -> None:
    """Be the process that `measure` starts."""
    from hyperqueue import Job, LocalCluster
    from hyperqueue.cluster import WorkerConfig

    with LocalCluster(str(Path(directory, "server"))) as cluster:
        cluster.start_worker(WorkerConfig(cores=cores))
        client = cluster.client()
        job = Job(default_workdir=directory)
        for _ in range(tasks):
            job.program([PROGRAM], stdout=None, stderr=None)
        began_s = time.perf_counter()
        client.wait_for_jobs([client.submit(job)])
        Path(result).write_text(str(time.perf_counter() - began_s))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
