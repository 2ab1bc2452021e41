"""Commands of batch systems end in time, with bounded output, and their complaints reach the operator."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import psutil
import pytest

from iceprod_p2p.grids.command import Commands, failure
from iceprod_p2p.grids.errors import GridDown, GridError, GridTimeout


def script(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_output_error_and_exit_code_come_back_and_input_goes_in() -> None:
    result = Commands().run(["sh", "-c", "cat; echo bad >&2; exit 3"], stdin="hello " * 50_000)
    assert (result.exit_code, len(result.stdout), result.stderr, result.said) == (3, 300_000, "bad\n", "bad")


def test_a_command_that_does_not_read_its_input_is_no_trouble() -> None:
    assert Commands().run(["true"], stdin="x" * 1_000_000).exit_code == 0


def test_a_command_from_the_configured_directory_wins_over_the_path(tmp_path: Path) -> None:
    script(tmp_path, "qstat", "echo ours")
    assert Commands(bin_directory=str(tmp_path)).succeed(["qstat"]) == "ours\n"


def test_a_missing_command_means_that_the_system_is_down() -> None:
    with pytest.raises(GridDown, match=r"sbatch cannot be run.*bin_directory"):
        Commands(bin_directory="/nonexistent").run(["sbatch"])


def test_a_failing_command_is_quoted_with_its_complaint() -> None:
    with pytest.raises(GridError, match="sh ended with 1 and said: no such queue / really") as caught:
        Commands().succeed(["sh", "-c", "echo 'no such queue' >&2; echo really >&2; exit 1"])
    assert caught.value.command.startswith("sh -c ")
    assert isinstance(failure(Commands().run(["false"]), down=True), GridDown)


def test_a_silent_command_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    began_s = time.monotonic()
    for timeout_s in (0.3, 3.0, 30.0):  # Until the command had the time to start something.
        with pytest.raises(GridTimeout, match=rf"sh gave no answer in {timeout_s:g} s"):
            Commands(timeout_s=timeout_s).run(["sh", "-c", f"sleep 600 & echo $! > {pid_file}; wait"])
        if pid_file.exists() and pid_file.read_text():
            break
    assert time.monotonic() - began_s < 240
    pid = int(pid_file.read_text())
    end_s = time.monotonic() + 60
    while lives(pid):
        assert time.monotonic() < end_s, "the command's child outlived the time-out"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process runs; one that is dead and unburied does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_endless_output_is_cut_off() -> None:
    with pytest.raises(GridError, match="printed more than 1 MiB"):
        Commands(output_bytes_max=1 << 20).run(["yes"])


def test_our_own_settings_do_not_reach_batch_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICEPROD_SECRET", "s")
    monkeypatch.setenv("SLURM_CONF", "/etc/x")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    text = Commands(environment={"EXTRA": "1"}).succeed(["env"])
    variables = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert "ICEPROD_SECRET" not in variables
    assert (variables["SLURM_CONF"], variables["EXTRA"], variables["LC_ALL"]) == ("/etc/x", "1", "C")


def test_no_descriptors_are_left_open() -> None:
    gc.collect()  # What earlier tests left open may go in between, and is none of ours.
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        Commands().run(["true"])
    assert len(os.listdir("/proc/self/fd")) <= before
