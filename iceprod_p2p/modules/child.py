"""The child process in which one module runs.

    python -m iceprod_p2p.modules.child --request-fd N --result-fd M

It reads one request from the first pipe, runs the module in its work directory, and writes messages to the
second (see `protocol`).  stdout and stderr are the log, whatever the module prints.  A module that crashes
takes this process with it and nothing else.  Kept light: it starts once per module, so it imports nothing
heavy.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.base.errors import BadInput, IceProdError
from iceprod_p2p.modules import legacy, registry
from iceprod_p2p.modules.base import IPModule
from iceprod_p2p.modules.child_line import Line
from iceprod_p2p.modules.command import run_command, script_argv
from iceprod_p2p.modules.context import ModuleContext
from iceprod_p2p.modules.parameters import ParameterType, convert
from iceprod_p2p.modules.protocol import (
    Answer,
    Message,
    ModuleFailure,
    ModuleRequest,
    ProtocolError,
    Result,
    SiteCall,
)
from iceprod_p2p.modules.statistics import check_all, clip

EXIT_OK = 0
EXIT_MODULE_FAILED = 1
EXIT_NO_REQUEST = 64  # EX_USAGE: the process was not started by a pilot
TRACEBACK_LINES = 12
# A task that asked for one core must not start a thread per core of the node.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a module gave back: its code and statistics."""

    code: int
    statistics: Mapping[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one module; return 0 when it did well, 1 when it failed, 64 when no request could be read."""
    parser = argparse.ArgumentParser(prog="iceprod_p2p.modules.child", description=__doc__.partition("\n")[0])
    parser.add_argument("--request-fd", type=int, required=True, help="pipe to read the request from")
    parser.add_argument("--result-fd", type=int, required=True, help="pipe to write messages to")
    options = parser.parse_args(argv)
    line = Line(options.request_fd, options.result_fd)
    try:
        request = line.read_request()
    except (OSError, ProtocolError) as wrong:
        print(f"no module was run: {wrong}", file=sys.stderr)
        return EXIT_NO_REQUEST
    result = run(request, line.send, line.ask)
    sys.stdout.flush()
    sys.stderr.flush()
    line.send(result)
    return EXIT_OK if result.ok else EXIT_MODULE_FAILED


def run(
    request: ModuleRequest, emit: Callable[[Message], None], ask: Callable[[SiteCall], Answer] | None = None
) -> Result:
    """Run a module in this process; never raises for what the module does, SystemExit included."""
    clock = SystemClock()
    started_s, before = clock.monotonic_s(), _cpu_s()
    try:
        outcome = _run(request, emit, ask)
        result = Result(ok=outcome.code == 0, code=outcome.code, statistics=outcome.statistics)
        if not result.ok:
            what = request.name or request.class_name or request.src
            failure = ModuleFailure("ModuleFailed", f"{what} ended with code {outcome.code}")
            result = replace(result, error=failure)
    except BaseException as raised:  # a module may raise anything, and the pilot must hear of it
        result = _failed(raised)
    after = _cpu_s()
    return replace(
        result,
        real_s=clock.monotonic_s() - started_s,
        user_s=after[0] - before[0],
        system_s=after[1] - before[1],
    )


def _run(
    request: ModuleRequest, emit: Callable[[Message], None], ask: Callable[[SiteCall], Answer] | None
) -> Outcome:
    work_dir = Path(request.work_dir)
    if not work_dir.is_dir():
        raise BadInput(f"the work directory {request.work_dir!r} does not exist")
    os.chdir(work_dir)
    _limit_threads(request.cpu_count)
    _log_to_stderr()
    if not request.class_name:
        return _run_script(request)
    return _run_class(request, emit, ask)


def _run_script(request: ModuleRequest) -> Outcome:
    if not _wanted(request.parameters):
        return Outcome(0, {})
    argv = script_argv(Path(request.src), request.args)
    logging.getLogger("iceprod").info("running %s", " ".join(argv))
    code, statistics = run_command(argv, work_dir=Path.cwd())
    return Outcome(code, statistics)


def _run_class(
    request: ModuleRequest, emit: Callable[[Message], None], ask: Callable[[SiteCall], Answer] | None
) -> Outcome:
    _make_importable(request)
    module = registry.create(request.class_name, request.src)
    context = ModuleContext(work_dir=Path.cwd(), send=emit)
    if ask is not None:
        context.ask = ask
    if isinstance(module, IPModule):
        context.logger = module.logger
        module.context = context
        if type(module).Execute is IPModule.Execute:
            raise BadInput(f"{request.class_name} does not define Execute")
    _set_parameters(module, request)
    if not _wanted(request.parameters):
        return Outcome(0, {})
    if isinstance(module, IPModule):
        module.Configure()
    statistics: dict[Any, Any] = {}
    code = _call(module.Execute, statistics)
    if code == 0 and hasattr(module, "Finish"):
        code = _call(module.Finish, statistics)
    return Outcome(code, check_all(dict[Any, Any](context.statistics) | statistics))


def _make_importable(request: ModuleRequest) -> None:
    """Let the module import files beside it and in the work directory, and the old names of this library.

    They come last, so that none of them can take the place of a package by bearing its name.
    """
    here = os.getcwd()
    beside = str(Path(request.src).resolve().parent) if request.src else here
    sys.path += [here] if beside == here else [here, beside]
    legacy.install()


def _set_parameters(module: Any, request: ModuleRequest) -> None:
    given = dict(request.parameters)
    match request.args:
        case None | "" | []:
            pass
        case dict() as keywords:
            twice = given.keys() & keywords.keys()
            if twice:
                raise BadInput(f"{', '.join(sorted(twice))} is given both as parameter and as argument")
            given.update(keywords)
        case list() as positional if isinstance(module, registry.CallableModule):
            module.positional = tuple(positional)
        case other:
            raise BadInput(
                f"{request.class_name} cannot take the arguments {clip(other)}",
                remedy="give a class its values as parameters, or as arguments by name",
            )
    for name, value in given.items():
        module.SetParameter(name, value)
    declared = getattr(module, "parameters", None)
    if isinstance(declared, dict):
        taken = {"execute", *(name.lower() for name in given)}
        for name, value in request.inherited.items():
            if name.lower() in declared and name.lower() not in taken:
                module.SetParameter(name, value)


def _wanted(parameters: Mapping[str, Any]) -> bool:
    values = [value for name, value in parameters.items() if name.lower() == "execute"]
    try:
        return all(convert(ParameterType.BOOL, value) for value in values)
    except ValueError as wrong:
        raise BadInput(f"parameter 'execute': {wrong}") from wrong


def _call(method: Callable[[dict[Any, Any]], Any], statistics: dict[Any, Any]) -> int:
    try:
        value = method(statistics)
    except (
        SystemExit
    ) as ended:  # sys.exit(3) is taken as `return 3`; with a text it is an error like any other
        value = ended.code
        if isinstance(value, str):
            raise
    if value is None:
        return 0
    if isinstance(value, int):
        return int(value)
    name = getattr(method, "__name__", "the module")
    raise BadInput(f"{name} returned {clip(value)}, not a number", remedy="return 0 when all went well")


def _failed(raised: BaseException) -> Result:
    lines = traceback.format_exception(raised)
    print("".join(lines), file=sys.stderr)
    # A refusal of this library says all in its sentence; a traceback through the library would only hide it.
    tail = "" if isinstance(raised, IceProdError) else "".join(lines[-TRACEBACK_LINES:])
    message = str(raised) or type(raised).__name__
    return Result(
        ok=False, code=EXIT_MODULE_FAILED, error=ModuleFailure(type(raised).__name__, message, tail)
    )


def _limit_threads(cpu_count: int) -> None:
    if cpu_count > 0:
        for variable in THREAD_VARIABLES:
            os.environ.setdefault(variable, str(cpu_count))


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def _cpu_s() -> tuple[float, float]:
    own, waited = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + waited.ru_utime, own.ru_stime + waited.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
