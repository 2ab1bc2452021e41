"""Files that must outlive a power cut: a torn line costs itself alone, a new directory is synced where it appears."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iceprod_p2p.site.grid_jobs import GridJob, GridJobBook, GridJobPhase
from iceprod_p2p.site.issued import IssuedCertificates


def test_a_line_that_was_cut_short_does_not_swallow_the_next_certificate(tmp_path: Path) -> None:
    path = tmp_path / "issued"
    issued = IssuedCertificates(path)
    issued.note("eve", "aa" * 32, expires_ms=900, now_ms=0)
    with path.open("ab") as file:  # The disk was full, or the power went: it was never handed out.
        file.write(b"bb" * 16)
    issued.note("eve", "cc" * 32, expires_ms=900, now_ms=0)
    assert issued.of("eve", now_ms=0) == ("aa" * 32, "cc" * 32)


def test_new_directories_are_synced_where_they_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    book = GridJobBook(tmp_path / "data" / "pilots")
    assert synced == [str(tmp_path / "data"), str(tmp_path)]
    synced.clear()
    book.put(GridJob("p-1", "cpu", 1, GridJobPhase.NOTED, 0))
    pilots = str(tmp_path / "data" / "pilots")
    assert f"{pilots}/p-1" in synced and pilots in synced
    synced.clear()
    book.put(GridJob("p-1", "cpu", 1, GridJobPhase.QUEUED, 0, "7"))
    assert pilots not in synced, "once is enough"


def test_files_of_a_pilot_that_was_never_noted_are_taken_away(tmp_path: Path) -> None:
    GridJobBook(tmp_path / "pilots")
    young = tmp_path / "pilots" / "p-1"
    young.mkdir(mode=0o700)
    (young / "secret").touch(mode=0o600)
    damaged = tmp_path / "pilots" / "p-2"
    damaged.mkdir(mode=0o700)
    (damaged / "grid_job.json").touch(mode=0o600)
    assert list(GridJobBook(tmp_path / "pilots")) == []
    assert not young.exists() and damaged.exists()
