"""The bridge to PSI/J: its local executor for real, and a batch system by its executor on scripted commands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.grids.base import (
    Completed,
    Failed,
    Grid,
    GridRequest,
    NotSubmitted,
    Queued,
    Removed,
    Running,
    Submitted,
    Tag,
    Unclear,
)
from iceprod_p2p.grids.errors import GridDown
from iceprod_p2p.grids.polling import poll
from iceprod_p2p.grids.registry import create
from tests.unit.grids.recordings import FakeCommands

pytest.importorskip("psij")
pytestmark = pytest.mark.timeout(300)
LIST = "JOBARRAYID          ST                  REASON\n"


def until(holds: Callable[[], Any], what: str) -> None:
    deadline_s = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.3)


def request(root: Path, name: str, script: str = "true", **more: Any) -> GridRequest:
    return GridRequest(Tag("madison", name), "/bin/sh", str(root / name), ("-c", script), **more)


def local(root: Path) -> Grid:
    return create("psij", {"executor": "local", "spool": str(root / "spool")})


@pytest.fixture
def fake(tmp_path: Path) -> FakeCommands:
    directory = tmp_path / "bin"
    directory.mkdir()
    return FakeCommands(directory)


def slurm(root: Path, fake: FakeCommands) -> Grid:
    return create(
        "psij",
        {
            "executor": "slurm",
            "spool": str(root / "spool"),
            "bin_directory": str(fake.directory),
            "account": "ice",
        },
    )


def test_real_processes_run_end_and_are_removed(tmp_path: Path) -> None:
    grid = local(tmp_path)
    odd = "a  b'\"$x;\\"
    asked = [
        request(tmp_path, "good", 'printf "%s" "$ODD"; pwd; exit 3', environment={"ODD": odd}),
        request(tmp_path, "killed", "kill -KILL $$"),
        request(tmp_path, "long", "trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.1; done"),
    ]
    results = grid.submit(asked)
    ids = [result.grid_job_id for result in results if isinstance(result, Submitted)]
    assert len(ids) == 3, results
    until(lambda: grid.history(ids[:2]).keys() == set(ids[:2]), "two have ended")
    ends = grid.history(ids)
    assert (ends[ids[0]].state, ends[ids[1]].state) == (Completed(3), Completed(137)) and ends[ids[0]].host
    assert Path(asked[0].stdout_path).read_text().strip() == f"{odd}{tmp_path}/good"
    said = Path(asked[2].stdout_path)
    until(lambda: said.exists() and "ready" in said.read_text(), "it is ready")
    assert isinstance(grid.status(ids)[ids[2]], Running) and ids[0] not in grid.status(ids)
    again = local(tmp_path)
    tags = [one.tag for one in asked]
    assert {tag.grid_job for tag in again.find_by_tag([*tags, Tag("madison", "never")])} == {
        "good",
        "killed",
        "long",
    }
    removed = again.clean_queue("madison", tags[:2])
    assert [job.grid_job_id for job in removed] == [ids[2]]
    until(lambda: ids[2] in grid.history(ids), "it has ended")
    assert "told" in Path(asked[2].stdout_path).read_text()
    grid.forget(ids)
    assert grid.our_jobs("madison") == [] and "PSI/J" in grid.check()


def test_unknown_ones_are_absent_and_no_error(tmp_path: Path) -> None:
    grid = local(tmp_path)
    assert grid.status(["9"]) == {} and grid.history(["9"]) == {}
    grid.remove(["9"])
    assert poll(grid, ["9"], missing_before=["9"]).missing == frozenset()


def test_one_that_was_started_or_given_up_is_never_run_again(tmp_path: Path) -> None:
    import subprocess

    grid = local(tmp_path)
    asked = request(tmp_path, "j", "echo run >>ran")
    (result,) = grid.submit([asked])
    assert isinstance(result, Submitted)
    until(lambda: grid.history([result.grid_job_id]), "it has ended")
    script = tmp_path / "spool" / "jobs" / str(asked.tag) / "psij.sh"
    text = script.read_text()
    assert subprocess.run(["/bin/sh", str(script)], check=False).returncode == 75
    grid.forget([result.grid_job_id])
    assert subprocess.run(["/bin/sh", "-c", text], check=False, capture_output=True).returncode == 75
    assert (tmp_path / "j" / "ran").read_text() == "run\n"


def test_amounts_reach_a_batch_system_and_its_words_come_back(fake: FakeCommands, tmp_path: Path) -> None:
    fake.answer("sbatch", "Submitted batch job 17\n")
    fake.answer("squeue", LIST + "17                  PD                  Resources\n")
    grid = slurm(tmp_path, fake)
    asked = request(
        tmp_path,
        "j",
        walltime_s=90,
        cores=3,
        memory_mib=700,
        gpus=2,
        queue="main",
        extra_lines=("--constraint=avx2",),
    )
    assert grid.submit([asked]) == [Submitted(asked.tag, "17")]
    (call,) = fake.calls("sbatch")
    submitted = Path(call[-1]).read_text()
    for line in (
        "--nodes=1",
        "--cpus-per-task=3",
        '--partition="main"',
        '--account="ice"',
        '--constraint="avx2"',
        "--time=0:1:30",
    ):
        assert f"#SBATCH {line}" in submitted, submitted
    assert grid.status(["17"]) == {"17": Queued("")}
    place = tmp_path / "spool" / "jobs" / str(asked.tag)
    (place / "host").write_text("n1\n")
    for word, state in (
        ("R                   None", Running("n1")),
        ("CA                  None", Removed("cancelled")),
        ("TO                  TimeLimit", Failed("The job exhausted its time limit.")),
        ("CD                  None", None),
    ):
        fake.answer("squeue", f"{LIST}17                  {word}\n")
        seen = poll(grid, ["17"]).states["17"]
        assert seen == state or (
            state is None and isinstance(seen, Failed) and "without a word" in seen.reason
        )
    (place / "ended").write_text("4\n")
    assert grid.history(["17"])["17"].state == Completed(4), "its own word counts"
    fake.answer("squeue", LIST)
    (place / "ended").unlink()
    assert poll(grid, ["17"]).missing == {"17"}


def test_trouble_is_told_apart(fake: FakeCommands, tmp_path: Path) -> None:
    grid = slurm(tmp_path, fake)
    fake.answer("sbatch", complaint="sbatch: error: invalid partition specified: nope\n", code=1)
    (result,) = grid.submit([request(tmp_path, "a")])
    assert isinstance(result, NotSubmitted) and "invalid partition" in result.reason
    assert not (tmp_path / "spool" / "jobs" / "iceprod.madison.a").exists()
    fake.answer("sbatch", complaint="sbatch: error: Socket timed out on send/recv operation\n", code=1)
    assert isinstance(grid.submit([request(tmp_path, "b")])[0], Unclear)
    fake.answer("sbatch", complaint="Unable to contact slurm controller (connect failure)\n", code=1)
    with pytest.raises(GridDown):
        grid.submit([request(tmp_path, "c")])
    assert grid.find_by_tag([Tag("madison", "b"), Tag("madison", "c")]) == {}
    # The one that was unclear starts after all, and says under which id.
    (tmp_path / "spool" / "jobs" / "iceprod.madison.b" / "told").write_text("18\n")
    fake.answer("squeue", LIST + "18                  R                   None\n")
    assert grid.find_by_tag([Tag("madison", "b")])[Tag("madison", "b")].grid_job_id == "18"


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    grid = local(tmp_path)
    assert "shared_directory" in grid.impossible(request(tmp_path, "j", carry=True))
    config = grid.write_config(request(tmp_path, "j"))
    assert json.loads(config.text)["jobs"][0]["name"] == "iceprod.madison.j"
    lost = create("psij", {"executor": "nothing", "spool": str(tmp_path / "s")})
    with pytest.raises(Exception, match="nothing"):
        lost.check()
