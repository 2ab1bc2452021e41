"""How one module is started: a class in a Python process of its own, a script or executable directly.

A script needs no Python of ours around it: it is started as it is, which spares the start of an interpreter for every
task.  What it may report, it writes to the file named by ICEPROD_STATISTICS (see `iceprod_p2p.modules.command`).
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Mapping
from copy import copy
from typing import Any, Final, NamedTuple

from iceprod_p2p.base.errors import BadInput, IceProdError, NotFound
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.modules.command import STATISTICS_VARIABLE, argument_words, read_statistics, script_argv
from iceprod_p2p.modules.executable import Executable
from iceprod_p2p.modules.protocol import ModuleRequest, encode_request
from iceprod_p2p.modules.registry import BUILT_IN
from iceprod_pilot.attempt import TaskFailure
from iceprod_pilot.plan import Step
from iceprod_pilot.runner import Command, Ended, Runner
from iceprod_pilot.surroundings import Surroundings
from iceprod_pilot.workspace import TaskDirectory

STATISTICS_FILE: Final = "statistics.json"
EXECUTABLE: Final = "Executable"
_DECLARED: Final = Executable()  # Its parameters, declared once for all tasks.


class Program(NamedTuple):
    """A program to run as it is, with variables added to the environment of its module."""

    argv: list[str]
    environ: Mapping[str, str]


class ModuleStarter:
    """Starts the modules of one task, one after the other."""

    def __init__(self, runner: Runner, directory: TaskDirectory, *, cpus: int) -> None:
        self._runner = runner
        self._directory = directory
        self._cpus = cpus

    def run(self, step: Step, around: Surroundings, *, src: str) -> dict[str, float]:
        """Run a module whose file lies at `src`; return its statistics.  TaskFailure when it does not end well."""
        program = program_of(step)
        if program is not None:
            return self._run_program(step, around, program.argv, program.environ)
        if step.class_name or any(name.lower() == "execute" for name in step.parameters):
            return self._run_class(step, around, src)
        return self._run_script(step, around, src)

    def _run_class(self, step: Step, around: Surroundings, src: str) -> dict[str, float]:
        args: Any = step.args
        try:
            request = encode_request(
                ModuleRequest(
                    work_dir=str(self._directory.work),
                    name=step.name,
                    class_name=step.class_name,
                    src=src,
                    args=args,
                    parameters=dict(step.parameters),  # type: ignore[arg-type]
                    cpu_count=self._cpus,
                    inherited=dict(step.inherited),  # type: ignore[arg-type]
                )
            )
        except BadInput as wrong:
            raise TaskFailure(FailReason.BAD_STEERING, f"module {step.name}: {wrong.message}") from wrong
        argv = around.command(_in_shell(step, around.child()))
        ended = self._runner.run(Command(argv, around.environ, request))
        result = ended.result
        if result is None:
            hint = "; a class in a container needs python3, 3.11 or newer, in its image: see the log"
            raise _without_result(step, ended, hint="" if around.container is None else hint)
        if result.ok:
            return dict(result.statistics)
        error = result.error
        why = (
            f"{error.type}: {error.message}\n{error.traceback_tail}".rstrip()
            if error
            else f"code {result.code}"
        )
        raise TaskFailure(FailReason.PAYLOAD, f"module {step.name} failed: {why}", task_exit_code=result.code)

    def _run_script(self, step: Step, around: Surroundings, src: str) -> dict[str, float]:
        args: Any = step.args
        try:
            argv = script_argv(self._directory.work / src, args)
        except (NotFound, BadInput) as wrong:
            raise TaskFailure(
                FailReason.PAYLOAD, f"module {step.name}: {wrong}", task_exit_code=127
            ) from wrong
        if argv[0] == sys.executable:
            argv[0] = around.python
        return self._run_program(step, around, argv, {})

    def _run_program(
        self, step: Step, around: Surroundings, argv: list[str], more: Mapping[str, str]
    ) -> dict[str, float]:
        path = self._directory.root / STATISTICS_FILE
        path.unlink(missing_ok=True)
        environ = {**around.environ, **more, STATISTICS_VARIABLE: str(path)}
        ended = self._runner.run(Command(around.command(_in_shell(step, argv)), environ))
        if ended.exit_code != 0:
            raise _without_result(step, ended)
        try:
            return read_statistics(path)
        except (IceProdError, OSError) as wrong:
            raise TaskFailure(FailReason.PAYLOAD, f"module {step.name}: {wrong}") from wrong


def program_of(step: Step) -> Program | None:
    """Return the program of a module of the class Executable, when nothing but its run is asked for.

    None for every other module, and where that class itself has to judge what it was given: its process does.
    """
    if step.src or step.args or step.class_name not in (EXECUTABLE, BUILT_IN[EXECUTABLE]):
        return None
    module = copy(_DECLARED)
    module.parameters = dict(_DECLARED.parameters)
    given = {name.lower() for name in step.parameters}
    try:
        for name, value in step.parameters.items():
            module.SetParameter(name, value)
        for name, value in step.inherited.items():
            if name.lower() in module.parameters and name.lower() not in given | {"execute"}:
                module.SetParameter(name, value)
        words = argument_words(module.GetParameter("arguments"))
    except (IceProdError, ValueError, TypeError):
        return None
    program, environ = module.GetParameter("executable"), module.GetParameter("environment")
    if not program or module.GetParameter("output") or "execute" in given or not isinstance(environ, dict):
        return None
    return Program([program, *words], {str(name): str(value) for name, value in environ.items()})


def _in_shell(step: Step, argv: tuple[str, ...] | list[str]) -> list[str]:
    """Return the command line behind the program that sets up its environment, if there is one."""
    if not step.env_shell:
        return list(argv)
    try:
        return [*shlex.split(step.env_shell), *argv]
    except ValueError as wrong:
        raise TaskFailure(
            FailReason.BAD_STEERING, f"module {step.name}: env_shell cannot be split into words: {wrong}"
        ) from wrong


def _without_result(step: Step, ended: Ended, *, hint: str = "") -> TaskFailure:
    how = f"ended with code {ended.exit_code}"
    if ended.exit_code > 128:
        try:
            name = signal.Signals(ended.exit_code - 128).name
            perhaps = ", perhaps by the system for want of memory" if name == "SIGKILL" else ""
            how = f"was ended by {name}{perhaps}"
        except ValueError:
            pass  # A code above 128 that is no signal's.
    return TaskFailure(FailReason.PAYLOAD, f"module {step.name} {how}{hint}", task_exit_code=ended.exit_code)
