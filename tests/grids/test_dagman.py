"""One job of the physics production as a DAG that HTCondor's own DAGMan runs: it must make the very same files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grids.daemons import until
from tests.grids.htcondor_system import HtcondorSystem
from tests.grids.users import USER, user_ids
from tests.integration.production import PHYSICS

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture
def pool() -> Iterator[HtcondorSystem]:
    made = HtcondorSystem()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def lasting() -> Iterator[Path]:
    """A directory that is no temporary one, where DAGMan would refuse to work."""
    made = Path(tempfile.mkdtemp(prefix="iceprod-dag-", dir="/var/lib"))
    made.chmod(0o755)
    os.chown(made, *user_ids(USER))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def permanent(answers: list[dict[str, object]]) -> dict[str, str]:
    """The sums of the files that stay, by name."""
    files = [entry for answer in answers for task in answer["tasks"] for entry in task["files"]]  # type: ignore[attr-defined,union-attr]
    return {entry["name"]: entry["sha256"] for entry in files if entry["kind"] == "permanent"}


def test_dagman_makes_of_a_job_what_we_make_of_it(pool: HtcondorSystem, place: Path, lasting: Path) -> None:
    line = [sys.executable, "-m", "iceprod_cli.main", "run-local", str(PHYSICS), "--seed", "1311"]
    ours = subprocess.run(
        [*line, "--out", str(lasting / "ours"), "-o", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=lasting,
    )
    assert ours.returncode == 0, ours.stderr
    wanted = permanent([json.loads(ours.stdout)])
    where = ["--out", str(lasting / "theirs"), "--dagman", str(lasting / "dag")]
    made = subprocess.run([*line, *where], capture_output=True, text=True, timeout=60, cwd=lasting)
    assert made.returncode == 0, made.stderr
    uid, gid = user_ids(USER)
    environment = {**os.environ, **pool.environment, "PATH": f"{pool.bin}:/usr/bin:/bin", "HOME": "/tmp"}
    submitted = subprocess.run(
        [str(pool.bin / "condor_submit_dag"), "-dagman", str(pool.bin / "condor_dagman"), "job.dag"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=lasting / "dag",
        env=environment,
        user=uid,
        group=gid,
        extra_groups=[],
    )
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    log = lasting / "dag" / "job.dag.dagman.out"
    try:
        until(
            lambda: log.exists() and "EXITING WITH STATUS" in log.read_text(),
            "DAGMan has ended",
            limit_s=400,
            pause_s=0.5,
        )
    except AssertionError:
        print(log.read_text()[-4_000:] if log.exists() else submitted.stdout)
        print(*(path.read_text() for path in (lasting / "dag").glob("*.err")))
        raise
    assert "EXITING WITH STATUS 0" in log.read_text()
    answers = [json.loads(path.read_text()) for path in (lasting / "dag" / "bundle").glob("result-*.json")]
    assert len(answers) == 7 and all(answer["ok"] for answer in answers)
    assert wanted and permanent(answers) == wanted
