"""Executable: any program as a module, its arguments given as words and never through a shell."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.command import argument_words, run_command


class Executable(IPModule):
    """Run a program in the work directory; its exit code is the module's.

    The program may write statistics, a JSON object of numbers, to the file named by ICEPROD_STATISTICS.
    """

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("executable", "program to run: a name on PATH, or a path", "", "string")
        self.AddParameter("arguments", "text split into words, a list of words, or {option: value}", "")
        self.AddParameter("environment", "variables added to the environment", {}, "json")
        self.AddParameter("output", "file that takes what the program prints; empty: the log", "", "string")

    def Execute(self, stats: Statistics) -> int:
        """Run it to its end.

        NotFound when there is no such program, BadInput when its statistics are none.
        """
        program = self.GetParameter("executable")
        if not program:
            raise BadInput("Executable was not told what to run", remedy="set its parameter 'executable'")
        environment = self.GetParameter("environment")
        if not isinstance(environment, dict):
            raise BadInput("parameter 'environment' is not a JSON object of names and texts")
        with ExitStack() as files:
            output = self.GetParameter("output")
            target = files.enter_context(open(output, "wb")) if output else None
            code, statistics = run_command(
                [program, *argument_words(self.GetParameter("arguments"))],
                work_dir=Path.cwd(),
                environ={str(name): str(value) for name, value in environment.items()},
                output=target,
            )
        stats.update(statistics)
        return code
