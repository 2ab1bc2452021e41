"""Daemons of private batch systems: started in the foreground, looked at while they start, ended by pid."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

START_S = 90.0
END_S = 10.0


def need_root_and(*commands: str) -> None:
    """Skip the test aloud where a real batch system cannot be started."""
    if os.getuid() != 0:
        pytest.skip("a private batch system needs root")
    missing = [name for name in commands if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; run tests/grids/install.sh")


def private_directory(name: str) -> Path:
    """Make a directory that daemons of other users can enter, unlike pytest's own."""
    root = Path(tempfile.mkdtemp(prefix=f"iceprod-{name}-", dir="/tmp"))
    root.chmod(0o755)
    return root


def until(holds: Callable[[], bool], what: str, *, limit_s: float = START_S, pause_s: float = 0.05) -> None:
    """Wait until `holds`; fail with `what` after `limit_s`."""
    deadline_s = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what}: not reached in {limit_s:g} s")
        time.sleep(pause_s)


class Daemons:
    """The processes of one private batch system, by name."""

    def __init__(self, log_directory: Path, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._logs = log_directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, line: Sequence[str], *, user: str | None = None) -> None:
        """Start one in the foreground, its output in a log file."""
        with open(self._logs / f"{name}.out", "ab") as log:
            self._running[name] = subprocess.Popen(
                list(line),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, **self.environment},
                user=user,
                group=user,
                extra_groups=[] if user else None,
                start_new_session=True,
            )

    def stop(self, name: str) -> None:
        """End one politely, then not."""
        process = self._running.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_S)

    def stop_all(self) -> None:
        """End them all, the last one first."""
        for name in reversed(list(self._running)):
            self.stop(name)

    def alive(self, name: str) -> bool:
        """Return whether one runs; raises when it ended by itself, with the end of its log."""
        process = self._running[name]
        if process.poll() is not None:
            raise AssertionError(f"{name} ended with {process.returncode}: {self.tail()}")
        return True

    def pid(self, name: str) -> int:
        """Return the process id of one."""
        return self._running[name].pid

    def tail(self) -> str:
        """Return the last lines of every log."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}"
            for path in sorted(self._logs.iterdir())
            if path.is_file()
        )
