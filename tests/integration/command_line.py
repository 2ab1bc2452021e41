"""The `iceprod` command for tests: as a process of its own, or quickly in this one, through the same `main`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from iceprod_cli.main import main


@dataclass(frozen=True)
class Said:
    """What one run of a command printed, and how it ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float = 0.0

    @property
    def document(self) -> Any:
        """Its standard output as JSON."""
        return json.loads(self.stdout)

    @property
    def documents(self) -> list[Any]:
        """Its standard output as lines of JSON."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def error(self, program: str = "error") -> str:
        """The one error that it printed, remedy and all; fails unless there is exactly one, without a traceback."""
        first = [line for line in self.stderr.splitlines() if line.startswith(f"{program}: ")]
        assert len(first) == 1 and "Traceback" not in self.stdout + self.stderr, self
        return self.stderr[self.stderr.index(first[0]) :].strip()


@dataclass(frozen=True)
class CommandLine:
    """`iceprod` with one context, and a configuration directory of its own."""

    config: Path
    context: str = ""
    node: str = ""

    def __call__(self, *arguments: str, code: int = 0) -> Said:
        """Run `iceprod ARGUMENTS` inside this process; fails unless it ends with `code`."""
        out, err = io.StringIO(), io.StringIO()
        began_s = time.monotonic()
        with (
            mock.patch.object(sys, "argv", ["iceprod", *self._chosen(), *arguments]),
            mock.patch.dict(os.environ, self._environ(), clear=True),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as end:
                ended = end.code
        said = Said(int(ended or 0), out.getvalue(), err.getvalue(), time.monotonic() - began_s)
        assert said.code == code, (arguments, said)
        return said

    def process(self, *arguments: str, timeout_s: float = 90.0) -> Said:
        """Run it as a process, as a person does."""
        began_s = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "iceprod_cli.main", *self._chosen(), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self._environ(),
        )
        return Said(done.returncode, done.stdout, done.stderr, time.monotonic() - began_s)

    def _chosen(self) -> list[str]:
        chosen = ["--context", self.context] if self.context else []
        return [*chosen, *(["--node", self.node] if self.node else [])]

    def _environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ICEPROD_")}
        return {**kept, "ICEPROD_CONFIG": str(self.config)}
