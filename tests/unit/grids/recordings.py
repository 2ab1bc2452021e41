"""What real batch systems printed, and commands that print it again."""

from __future__ import annotations

import json
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "golden" / "grids"
_BLOCK = re.compile(r"^\$ (?P<line>.*)\n(?P<output>(?:.*\n)*?)\[rc=(?P<code>\d+)\]$", re.MULTILINE)


def said(system: str, line: str, *, number: int = 0) -> str:
    """Return what a recorded command line printed; `number` for one that was run several times."""
    text = (GOLDEN / f"{system}.txt").read_text()
    found = [match["output"] for match in _BLOCK.finditer(text) if match["line"].startswith(line)]
    return found[number]


@dataclass
class FakeCommands:
    """A directory of commands that answer by script and note how they were called."""

    directory: Path

    def answer(
        self, name: str, output: str = "", *, complaint: str = "", code: int = 0, when: str = ""
    ) -> None:
        """Let command `name` answer so; with `when`, only where its arguments hold that text."""
        path = self.directory / f"{name}.answers"
        answers = json.loads(path.read_text()) if path.exists() else []
        answers.insert(0, {"when": when, "output": output, "complaint": complaint, "code": code})
        path.write_text(json.dumps(answers))
        script = self.directory / name
        script.write_text(f"#!{sys.executable} -IS\n{_SCRIPT}")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

    def calls(self, name: str) -> list[list[str]]:
        """Return the arguments of every call of `name`."""
        return [json.loads(line)["arguments"] for line in self._lines(name)]

    def inputs(self, name: str) -> list[str]:
        """Return the standard input of every call of `name`."""
        return [json.loads(line)["input"] for line in self._lines(name)]

    def environments(self, name: str) -> list[dict[str, str]]:
        """Return the environment of every call of `name`."""
        return [json.loads(line)["environment"] for line in self._lines(name)]

    def _lines(self, name: str) -> list[str]:
        path = self.directory / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []


_SCRIPT = """
import json, os, sys
name = sys.argv[0]
arguments = sys.argv[1:]
call = {"arguments": arguments, "input": sys.stdin.read(), "environment": dict(os.environ)}
with open(name + ".calls", "a") as calls:
    calls.write(json.dumps(call) + "\\n")
with open(name + ".answers") as answers:
    fitting = [entry for entry in json.load(answers) if entry["when"] in " ".join(arguments)]
sys.stdout.write(fitting[0]["output"])
sys.stderr.write(fitting[0]["complaint"])
sys.exit(fitting[0]["code"])
"""
