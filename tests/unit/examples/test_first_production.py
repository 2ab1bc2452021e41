"""The page for newcomers and its files say the same, and one job of them runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
FIRST = ROOT / "examples" / "first"


def test_the_page_shows_the_file_as_it_is() -> None:
    (shown,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "first-production.md").read_text(), re.DOTALL
    )
    text = (FIRST / "first.yaml").read_text()
    assert shown == "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def test_one_job_of_it_runs_here_and_is_the_same_each_time(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        command = [
            sys.executable,
            "-m",
            "iceprod_cli.main",
            "run-local",
            str(FIRST / "first.yaml"),
            "--job",
            "7",
        ]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "difference = " in done.stdout
        found.append((tmp_path / name / "pi" / "7.txt").read_text())
    assert found[0] == found[1] and abs(float(found[0].split()[0]) - 3.14159) < 0.05
