"""Trivial jobs given to batch systems directly, as one array or cluster: the way that costs each of them least.

The systems are the real ones that the tests start, private and on loopback; they need root and Debian's packages, see
`tests/grids/install.sh`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import pytest

from benchmarks.children import Say
from benchmarks.grid_ours import LIMIT_S, PROGRAM, Lives
from tests.grids.htcondor_system import HtcondorSystem
from tests.grids.sge_system import SgeSystem
from tests.grids.slurm_system import SlurmSystem
from tests.grids.users import USER, as_user, user_ids

POLL_S: Final = 0.1
NAMES: Final = ("Slurm", "SGE", "HTCondor")


def measure(name: str, *, jobs: int, say: Say) -> Lives | None:
    """Run `jobs` jobs through the system of this name; None, said aloud, where it is not installed."""
    try:
        return {"Slurm": _slurm, "SGE": _sge, "HTCondor": _htcondor}[name](jobs)
    except pytest.skip.Exception as absent:
        say(f"{name} is not measured: {absent}")
        return None


def _slurm(jobs: int) -> Lives:
    system = SlurmSystem()
    system.start()
    try:
        began_s = time.perf_counter()
        shape = (f"--array=0-{jobs - 1}", "--mem=10", "--output=/dev/null", "--chdir=/")
        system.run("sbatch", "--parsable", *shape, f"--wrap=exec {PROGRAM}")
        return _until_none(jobs, began_s, lambda: system.run("squeue", "--noheader", "-o", "%i"))
    finally:
        system.stop()


def _sge(jobs: int) -> Lives:
    user_ids(USER)
    system = SgeSystem()
    system.start()
    try:
        began_s = time.perf_counter()
        places = ("-o", "/dev/null", "-e", "/dev/null", "-wd", "/tmp")
        system.run("qsub", "-terse", "-b", "y", "-t", f"1-{jobs}", *places, PROGRAM, user=USER)
        return _until_none(jobs, began_s, lambda: system.run("qstat", "-u", "*"))
    finally:
        system.stop()


def _htcondor(jobs: int) -> Lives:
    ids = user_ids(USER)
    system = HtcondorSystem()
    system.start()
    try:
        file = system.root / "trivial.sub"
        file.write_text(f"executable = {PROGRAM}\ntransfer_executable = false\nqueue {jobs}\n")
        file.chmod(0o644)
        with as_user(*ids):
            began_s = time.perf_counter()
            system.run("condor_submit", "-terse", str(file))
            return _until_none(jobs, began_s, lambda: system.run("condor_q", "-af", "ClusterId"))
    finally:
        system.stop()


def _until_none(jobs: int, began_s: float, listed: Callable[[], str]) -> Lives:
    while listed().strip():
        if time.perf_counter() - began_s > LIMIT_S:
            raise RuntimeError(f"{jobs} jobs were not over after {LIMIT_S:.0f} s")
        time.sleep(POLL_S)
    return Lives(jobs, time.perf_counter() - began_s)
