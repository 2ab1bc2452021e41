"""A test that is tried again meets nothing that its first try left in a server it shares with others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = """
import pytest

made = []
ended = []

@pytest.fixture(scope="{scope}")
def server():
    kept = []
    made.append(kept)
    yield kept
    ended.append(kept)

@pytest.fixture(scope="module", autouse=True)
def submitted(server):
    server.append("submitted before everything else")

def test_before(server):
    assert server == ["submitted before everything else"]

def test_that_fails_once(server):
    assert server == ["submitted before everything else"], server
    server.append("left behind")
    assert len(made) == 2, "the first try"
    assert len(ended) == 1, "the first try's server has ended"

def test_after(server):
    assert len(made) == 2, "it shares the server of the second try"
    assert len(ended) == 1
"""


def test_a_second_try_has_shared_servers_of_its_own(tmp_path: Path) -> None:
    for scope in ("module", "session"):
        (tmp_path / f"test_{scope}.py").write_text(SHARED.format(scope=scope))
    line = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    more = ["-c", "/dev/null", "--rootdir", str(tmp_path), "--reruns", "2", str(tmp_path)]
    done = subprocess.run([*line, *more], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert "6 passed, 2 rerun in" in done.stdout, done.stdout + done.stderr
