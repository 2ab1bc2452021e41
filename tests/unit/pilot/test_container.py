"""The command lines of containers, and the environment inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from iceprod_pilot.attempt import TaskFailure
from iceprod_pilot.container import Container, command_line, environment_inside

WORK = Path("/scratch/p-1/7.0.0-0/work")
SOFTWARE = Path("/scratch/cache/software")


def line(container: Container, *, gpus: bool = False, **programs: str) -> list[str]:
    return command_line(
        container,
        ["./run.sh", "--n", "3"],
        work=WORK,
        writable=[WORK.parent],
        readable=[SOFTWARE],
        gpus=gpus,
        programs=programs,
    )


def test_an_image_runs_by_apptainer_with_the_paths_it_has_outside() -> None:
    assert line(Container(image="/cvmfs/images/icetray.sif"), apptainer="/usr/bin/apptainer") == [
        "/usr/bin/apptainer",
        *("exec", "--contain", "--no-home", "--pwd", str(WORK)),
        *("--bind", f"{WORK.parent}:{WORK.parent}"),
        *("--bind", f"{SOFTWARE}:{SOFTWARE}:ro"),
        "/cvmfs/images/icetray.sif",
        *("./run.sh", "--n", "3"),
    ]
    assert "--nv" in line(
        Container(image="docker://icecube/icetray"), gpus=True, singularity="/bin/singularity"
    )


def test_a_directory_runs_by_bubblewrap_and_by_apptainer_where_that_is_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    assert line(Container(root=tmp_path), bwrap="/usr/bin/bwrap", apptainer="/a")[0] == "/usr/bin/bwrap"
    assert line(Container(root=tmp_path), apptainer="/a")[:2] == ["/a", "exec"]


def test_without_either_the_site_is_at_fault(tmp_path: Path) -> None:
    with pytest.raises(TaskFailure, match="needs bwrap or apptainer, which this machine lacks"):
        line(Container(root=tmp_path))
    with pytest.raises(TaskFailure, match="needs apptainer"):
        line(Container(image="docker://x"), bwrap="/usr/bin/bwrap")


def test_a_directory_of_the_image_that_our_paths_lead_through_is_made_anew(tmp_path: Path) -> None:
    for name in ("scratch/old", "usr/bin", "tmp", "proc", "etc", "cvmfs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    words = line(Container(root=tmp_path), bwrap="bwrap")
    text = " ".join(words)
    assert f"--ro-bind {tmp_path}/usr /usr" in text and "--symlink usr/lib /lib" in text
    assert f"--dir /scratch --ro-bind {tmp_path}/scratch/old /scratch/old" in text
    assert f"--ro-bind {tmp_path}/scratch /scratch " not in text
    assert f"{tmp_path}/proc" not in text and f"{tmp_path}/tmp " not in text
    assert f"--ro-bind {SOFTWARE} {SOFTWARE}" in text and f"--bind {WORK.parent} {WORK.parent}" in text
    assert text.endswith(f"--remount-ro / --chdir {WORK} -- ./run.sh --n 3")


def test_paths_of_the_worker_node_stay_outside() -> None:
    outside = {"PATH": "/opt/venv/bin:/usr/bin", "PYTHONPATH": "/opt/lib", "LD_LIBRARY_PATH": "/opt/lib"}
    inside = environment_inside({**outside, "LD_LIBRARY_PATH": "/site/lib", "HOME": "/w"}, outside=outside)
    assert inside["PATH"].endswith("/usr/bin:/sbin:/bin") and "/opt" not in inside["PATH"]
    assert "PYTHONPATH" not in inside and inside["LD_LIBRARY_PATH"] == "/site/lib" and inside["HOME"] == "/w"
