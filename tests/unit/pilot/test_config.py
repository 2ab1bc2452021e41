"""A pilot's configuration: read when it is its owner's alone and sound, else refused with every fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from iceprod_pilot import config
from iceprod_pilot.environment import gpu_names
from iceprod_pilot.platform import WallTime

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import ConfigError

NODE = {"node_id": "n", "site": "s", "address": "h:1", "server_name": "n.s.c", "enrol_address": "h:2"}
GOOD: dict[str, Any] = {
    "pilot": "p-1",
    "site": "s",
    "cluster": "c",
    "secret_file": "/x/secret",
    "root_pem": "PEM",
    "nodes": [NODE],
    "work_dir": "/x/work",
    "state_dir": "/x/state",
    "cache_dir": "/x/cache",
}


def write(tmp_path: Path, mode: int = 0o600, **changes: Any) -> Path:
    path = tmp_path / "pilot.json"
    path.write_text(json.dumps({**GOOD, **changes}))
    path.chmod(mode)
    return path


def test_a_good_file_is_read_and_unknown_keys_are_left_alone(tmp_path: Path) -> None:
    settings = config.load(write(tmp_path, slots=3, from_the_future=1))
    assert (settings.slots, settings.nodes[0].enrol_address) == (3, "h:2")


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as failure:
        config.load(write(tmp_path, slots=0, nodes=[], work_dir="here", memory_mib=-1, log_style="neon"))
    text = str(failure.value)
    for word in ("slots", "nodes", "work_dir", "memory_mib", "log_style"):
        assert word in text


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pilot": 7}'])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    path = write(tmp_path)
    path.write_text(content)
    with pytest.raises(ConfigError, match="not a pilot's configuration"):
        config.load(path)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        config.load(write(tmp_path, 0o640))


def test_the_batch_systems_word_on_wall_time_counts_when_it_is_sooner() -> None:
    clock = ManualClock(wall_ms=1_000_000)
    assert WallTime(0, clock, {}).left_s() is None
    assert WallTime(600, clock, {}).left_s() == 600
    assert WallTime(600, clock, {"SLURM_JOB_END_TIME": "1100"}).left_s() == 100
    assert WallTime(50, clock, {"SLURM_JOB_END_TIME": "1100"}).left_s() == 50
    assert WallTime(50, clock, {"SLURM_JOB_END_TIME": "soon"}).left_s() == 50


def test_systems_that_tell_an_end_by_files_are_heard_too(tmp_path: Path) -> None:
    clock = ManualClock(wall_ms=1_000_000)
    (tmp_path / "wall_limit_secs").write_text("500\n")
    (tmp_path / "jobstart_secs").write_text("900\n")
    (tmp_path / "machine.ad").write_text('Name = "slot1"\nGLIDEIN_ToDie = 1250\n')
    job = {"JOBFEATURES": str(tmp_path)}
    assert WallTime(0, clock, job).left_s() == 400
    assert WallTime(0, clock, {"_CONDOR_MACHINE_AD": str(tmp_path / "machine.ad")}).left_s() == 250
    assert WallTime(0, clock, {"PBS_WALLTIME": "300"}).left_s() == 300
    (tmp_path / "shutdowntime").write_text("1100")
    assert WallTime(0, clock, {**job, "MACHINEFEATURES": str(tmp_path)}).left_s() == 100
    (tmp_path / "wall_limit_secs").write_text("0")
    assert WallTime(0, clock, job).left_s() is None
    assert WallTime(0, clock, {"JOBFEATURES": "/nowhere", "_CONDOR_MACHINE_AD": "/nowhere"}).left_s() is None


def test_paths_are_those_of_the_worker_node(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    here = write(tmp_path, secret_file="secret", work_dir="$SCRATCH/work", state_dir="$SCRATCH/state")
    settings = config.load(here, {"_CONDOR_SCRATCH_DIR": str(scratch), "TMPDIR": "/tmp"})
    assert settings.work_dir == f"{scratch}/work" and settings.state_dir == f"{scratch}/state"
    assert settings.secret_file == f"{tmp_path}/secret"
    with pytest.raises(ConfigError, match="work_dir"):
        config.load(here)
    prefers = write(tmp_path, scratch=True)
    assert config.load(prefers, {"TMPDIR": str(scratch)}).work_dir == f"{scratch}/iceprod-p-1"
    assert config.load(prefers, {"TMPDIR": "/nowhere"}).work_dir == "/x/work"


def test_gpus_are_those_that_the_batch_system_gave() -> None:
    assert gpu_names(2, {"CUDA_VISIBLE_DEVICES": "3,5"}) == ("3", "5")
    assert gpu_names(2, {}) == ("0", "1")
    assert gpu_names(0, {"CUDA_VISIBLE_DEVICES": "3"}) == ()
