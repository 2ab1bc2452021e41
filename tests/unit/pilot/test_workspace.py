"""Task directories are their owner's alone, hold what is theirs, and leave nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from iceprod_pilot.workspace import Workspace, inside, is_plain_file

from iceprod_p2p.base.errors import BadInput, ConfigError


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work", "p-1")


def test_directories_are_private(workspace: Workspace) -> None:
    task = workspace.open_task("1.0.0-0")
    for path in (workspace.path, task.root, task.work, task.tmp):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_later_task_finds_nothing_of_an_earlier_one(workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    first = workspace.open_task("1.0.0-0")
    (first.work / "deep" / "er").mkdir(parents=True)
    (first.work / "deep" / "er" / "file").write_text("x")
    (first.work / "link").symlink_to(outside)
    (first.tmp / "file").write_text("x")
    first.log.write_text("x")
    first.work.chmod(0o755)
    workspace.close_task(first)
    assert not first.root.exists() and (outside / "precious").exists()

    second = workspace.open_task("1.0.1-0")
    assert sorted(path.name for path in second.root.rglob("*")) == ["tmp", "work"]
    assert stat.S_IMODE(second.work.stat().st_mode) == 0o700


def test_an_empty_log_serves_a_later_task_and_nothing_else_in_its_place_does(
    workspace: Workspace, tmp_path: Path
) -> None:
    first = workspace.open_task("1.0.0-0")
    first.log.touch(0o600)
    workspace.close_task(first)
    second = workspace.open_task("1.0.1-0")
    assert second.log.read_bytes() == b"" and sorted(os.listdir(second.root)) == ["log", "tmp", "work"]

    os.link(second.log, tmp_path / "elsewhere")  # Whoever wrote there would write into the next task's log.
    workspace.close_task(second)
    third = workspace.open_task("1.0.2-0")
    assert sorted(os.listdir(third.root)) == ["tmp", "work"]
    third.log.symlink_to(tmp_path / "elsewhere")
    workspace.close_task(third)
    fourth = workspace.open_task("1.0.3-0")
    assert sorted(os.listdir(fourth.root)) == ["tmp", "work"]
    fourth.log.touch(0o644)
    fourth.root.chmod(0o755)
    workspace.close_task(fourth)
    fifth = workspace.open_task("1.0.4-0")
    assert sorted(os.listdir(fifth.root)) == ["tmp", "work"]
    assert stat.S_IMODE(fifth.root.stat().st_mode) == 0o700


def test_a_directory_that_was_tampered_with_is_not_used_again(workspace: Workspace, tmp_path: Path) -> None:
    first = workspace.open_task("1.0.0-0")
    first.work.rmdir()
    first.work.symlink_to(tmp_path)
    workspace.close_task(first)
    assert not first.root.exists() and tmp_path.exists()
    assert not workspace.open_task("1.0.1-0").work.is_symlink()


def test_unreadable_directories_are_removed_too(workspace: Workspace) -> None:
    task = workspace.open_task("1.0.0-0")
    locked = task.work / "locked"
    locked.mkdir()
    (locked / "file").write_text("x")
    locked.chmod(0o000)
    workspace.close_task(task)
    workspace.close()
    assert not workspace.path.exists()


def test_use_is_measured_without_following_links(workspace: Workspace) -> None:
    task = workspace.open_task("1.0.0-0")
    (task.work / "data").write_bytes(b"x" * 3_000_000)
    (task.work / "loop").symlink_to(task.root)
    assert task.used_mib() == 3


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../b", "new\nline", "x" * 2_000])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput):
        inside(tmp_path, name)


def test_a_link_that_leads_out_is_no_output(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "secret").write_text("x")
    (work / "out").symlink_to(tmp_path / "secret")
    (work / "real").write_text("x")
    (work / "inner").symlink_to(work / "real")
    assert not is_plain_file(work / "out", work)
    assert is_plain_file(work / "inner", work)
    assert not is_plain_file(work, work) and not is_plain_file(work / "missing", work)


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot make the work directory"):
        Workspace(tmp_path / "file", "p-1")


def test_a_work_directory_in_a_scratch_goes_with_the_pilot_and_another_ones_stays(tmp_path: Path) -> None:
    Workspace(tmp_path / "iceprod-p-1", "p-1").close()
    assert not (tmp_path / "iceprod-p-1").exists()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "other").touch()
    Workspace(tmp_path / "shared", "p-1").close()
    assert (tmp_path / "shared" / "other").exists()
