"""Unmonitored jobs by the command line, through a real batch system: what they must leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

STEERING = """
tasks:
- name: make
  data: [{type: permanent, movement: output, local: n.txt}]
  trays: [{modules: [{src: make.sh, args: $args(job)}]}]
"""
SCRIPT = '#!/bin/sh\ntest "$1" != 1 || exit 3\necho "$1 of $(hostname)" > n.txt\n'


def iceprod(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command of `iceprod` as a person would, from a directory."""
    line = [sys.executable, "-m", "iceprod_cli.main", *words]
    return subprocess.run(line, cwd=directory, capture_output=True, text=True, timeout=150, check=False)


def assert_unmonitored_jobs_run(directory: Path, plugin: str, options: str) -> None:
    """Submit three jobs, one of which fails, and gather them; `options` are lines of `[queue.options]`."""
    directory.mkdir()
    (directory / "steering.yaml").write_text(STEERING)
    (directory / "make.sh").write_text(SCRIPT)
    (directory / "make.sh").chmod(0o755)
    given = [
        word
        for line in options.strip().splitlines()
        for word in ("--grid-option", line.replace(" = ", "=", 1))
    ]
    words = [
        "submit",
        "steering.yaml",
        "--jobs",
        "3",
        "--unmonitored",
        "--grid",
        plugin,
        *given,
        "--dir",
        "jobs",
    ]
    submitted = iceprod(directory, *words)
    assert submitted.returncode == 0, submitted.stderr
    assert "3 grid jobs submitted" in submitted.stdout
    ended = iceprod(directory, "unmonitored", "jobs", "--wait", "-o", "json")
    rows = json.loads(ended.stdout)
    said = [path.read_text() for path in sorted(directory.glob("jobs/*/grid/grid.*"))]
    assert [row["state"] for row in rows] == ["complete", "failed", "complete"], (rows, ended.stderr, said)
    assert ended.returncode == 6 and "ended with code 3" in rows[1]["message"], rows
    assert len({row["grid_job"] for row in rows}) == 3
    assert (directory / "jobs" / "job-2" / "out" / "n.txt").read_text().startswith("2 of ")
    assert not (directory / "jobs" / "job-1" / "out" / "n.txt").exists()
    (directory / "jobs" / "job-0" / "result.json").unlink()
    again = json.loads(iceprod(directory, "unmonitored", "jobs", "-o", "json").stdout)
    # Without its answer a job is what the batch system says: ended, or listed no more.
    assert again[0]["state"] in ("gone", "unknown") and again[2]["state"] == "complete", again
