"""The PBS plugin against the commands that Slurm brings for users of Torque: a smoke test, for they are no Torque.

They take a script as a file, not from standard input, and show neither variables nor exit codes: so tags and ends
are not looked for here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.grids.base import Grid, NotSubmitted, Running, Submitted
from iceprod_p2p.grids.registry import create
from iceprod_p2p.grids.request import GridRequest, Tag
from tests.grids.daemons import until
from tests.grids.slurm_system import SlurmSystem

PREFIX = Path(os.environ.get("ICEPROD_TORQUE_PREFIX", "/var/cache/iceprod-tests/torque-wrappers"))
SHIM = """#!/bin/sh
script=$(mktemp) && cat >"$script" && "{real}" "$@" "$script" 2>"$script.err"
code=$?
grep -a -v 'option -S is ignored' "$script.err" >&2
rm -f "$script" "$script.err"
exit $code
"""

pytestmark = [pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmSystem]:
    if not (PREFIX / "usr/bin/qsub").exists():
        pytest.skip(f"Torque's commands are not in {PREFIX}; run tests/grids/install.sh")
    made = SlurmSystem()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def torque(slurm: SlurmSystem) -> Grid:
    wrappers, commands = slurm.root / "wrappers", slurm.root / "torque"
    if not wrappers.exists():
        for directory in (wrappers, commands):
            directory.mkdir()
        for name in ("qsub", "qstat", "qdel"):
            (wrappers / name).write_bytes((PREFIX / "usr/bin" / name).read_bytes())
            (wrappers / name).chmod(0o755)
            (commands / name).symlink_to(wrappers / name)
        for name in ("sbatch", "srun", "salloc"):  # The wrappers look beside themselves.
            (wrappers / name).symlink_to(f"/usr/bin/{name}")
        (commands / "qsub").unlink()
        (commands / "qsub").write_text(SHIM.format(real=wrappers / "qsub"))
        (commands / "qsub").chmod(0o755)
    (library,) = PREFIX.glob("usr/lib/*/perl5/*")
    libraries = str(library.parents[1])
    environment = {**slurm.environment, "PERL5LIB": str(library), "LD_LIBRARY_PATH": libraries}
    options = {"dialect": "torque", "bin_directory": str(commands), "environment": environment}
    return create("pbs", options)


def test_a_grid_job_runs_is_seen_and_is_removed(torque: Grid, slurm: SlurmSystem, tmp_path: Path) -> None:
    quick = GridRequest(
        Tag("pbs", "quick"),
        "/bin/sh",
        f"{tmp_path}/quick",
        ("-c", "pwd; echo $ICEPROD_GRID_TAG"),
        walltime_s=300,
    )
    long = GridRequest(
        Tag("pbs", "long"), "/bin/sleep", f"{tmp_path}/long", ("100",), walltime_s=300, cores=2
    )
    results = torque.submit([quick, long])
    assert all(isinstance(result, Submitted) for result in results), results
    ids = [result.grid_job_id for result in results if isinstance(result, Submitted)]
    until(lambda: isinstance(torque.status(ids).get(ids[1]), Running), "the long one runs")
    out = Path(quick.stdout_path)
    until(lambda: out.exists() and len(out.read_text().split()) == 2, "the quick one has ended")
    assert out.read_text().split() == [quick.work_directory, str(quick.tag)]
    torque.remove(ids[1:])
    until(lambda: ids[1] not in torque.status(ids), "the long one is gone")
    assert "CANCELLED" in slurm.run("scontrol", "show", "job", ids[1])


def test_a_refusal_says_why(torque: Grid, tmp_path: Path) -> None:
    (result,) = torque.submit(
        [GridRequest(Tag("pbs", "bad"), "/bin/true", f"{tmp_path}/bad", queue="nowhere")]
    )
    assert isinstance(result, NotSubmitted) and "partition" in result.reason
