"""A newcomer's machine for tests: a clean clone, an empty home, a bare search path; and nothing left running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
# What a machine's administrator sets for everybody: where packages come from, and through which proxy.
SITE_WIDE = (
    "PIP_",
    "SSL_",
    "REQUESTS_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "http",
    "https",
    "no_proxy",
)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def said(self) -> str:
        """Everything it printed, for messages of failing tests."""
        return f"exit code {self.code} after {self.seconds:.0f} s\n{self.stdout}\n{self.stderr}"


@dataclass(frozen=True)
class Newcomer:
    """Somebody who has just cloned the repository into `directory`, and whose home is empty."""

    directory: Path
    home: Path

    @classmethod
    def with_clone(cls, parent: Path) -> Newcomer:
        """Clone the committed state of this repository, as `git clone` from a server would."""
        newcomer = cls(parent / "iceprod", parent / "home")
        newcomer.home.mkdir()
        command = ["git", "clone", "--quiet", f"file://{ROOT}", str(newcomer.directory)]
        done = subprocess.run(
            command, env=newcomer.environ(), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"a clean clone of {ROOT} is not possible: {done.stderr}"
        return newcomer

    def environ(self) -> dict[str, str]:
        """The environment of a fresh login."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(SITE_WIDE)}
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            # The clone may belong to another user of this machine than the repository it comes from.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }

    def run(self, *command: str, timeout_s: float = 600.0) -> Done:
        """Run a command in the clone to its end; after `timeout_s` it and all it started are killed."""
        began_s = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.end_all()
            process.kill()
            stdout, stderr = process.communicate()
            stderr += f"\n(killed after {timeout_s:.0f} s)"
        return Done(process.returncode, stdout, stderr, time.monotonic() - began_s)

    def processes(self) -> list[psutil.Process]:
        """Every process that works in the clone or was started with a file of it."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [process.cwd(), *process.cmdline()]
            except psutil.Error:
                continue
            if process.pid != os.getpid() and any(str(self.directory) in word for word in words):
                found.append(process)
        return found

    def wait_until_quiet(self, *, timeout_s: float) -> list[str]:
        """Wait until nothing of the clone runs any more; return what still does after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while (left := self.processes()) and time.monotonic() < deadline_s:
            time.sleep(0.2)
        return [_shown(process) for process in left]

    def end_all(self) -> None:
        """Kill, by process id, whatever of the clone still runs."""
        for _ in range(3):  # A supervisor may start something between the look and the kill.
            for process in self.processes():
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue


def _shown(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[-200:]}"
    except psutil.Error:
        return f"{process.pid}"
