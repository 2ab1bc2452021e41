"""Scripts and executables as modules: their command line, and its run in the work directory.

A command's statistics: it may write a JSON object of numbers to the file named by the environment variable
ICEPROD_STATISTICS.  There is never a shell in between, so arguments need no quoting and can do no harm.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.modules.protocol import Arguments
from iceprod_p2p.modules.statistics import check_all, clip

STATISTICS_VARIABLE = "ICEPROD_STATISTICS"
STATISTICS_FILE_BYTES_MAX = 256 * 1024
STATISTICS_FILE = ".iceprod-statistics-{pid}.json"  # in the work directory, removed after it was read


def run_command(
    argv: Sequence[str],
    *,
    work_dir: Path,
    environ: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> tuple[int, dict[str, float]]:
    """Run a command to its end; return its exit code and statistics.

    The code is 128 + n when signal n ended it, as shells say.  `environ` is added to this process's
    environment; `output` takes its stdout instead of the log.  NotFound when there is no such program;
    BadInput when its statistics are none.  Its statistics are read even when it failed.
    """
    statistics_path = work_dir / STATISTICS_FILE.format(pid=os.getpid())
    environment = {**os.environ, **(environ or {}), STATISTICS_VARIABLE: str(statistics_path)}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        done = subprocess.run(
            list(argv), cwd=work_dir, env=environment, stdin=subprocess.DEVNULL, stdout=output, check=False
        )
    except FileNotFoundError as missing:
        raise NotFound(
            f"there is no program {argv[0]!r}", remedy="name one on PATH, or give its path"
        ) from missing
    except PermissionError as forbidden:
        raise BadInput(f"{argv[0]!r} may not be executed: {forbidden.strerror}") from forbidden
    except OSError as broken:
        raise BadInput(f"{argv[0]!r} could not be started: {broken.strerror}") from broken
    try:
        statistics = read_statistics(statistics_path)
    finally:
        statistics_path.unlink(missing_ok=True)
    code = done.returncode
    return (code if code >= 0 else 128 - code), statistics


def script_argv(src: Path, args: Arguments) -> list[str]:
    """Return the command line of a script or executable file.

    Python files run under this Python; other scripts under the interpreter of their first line, so that a
    file fetched without its executable bit runs all the same; a binary gets the bit.  NotFound or BadInput
    when it is neither.
    """
    if not src.is_file():
        raise NotFound(f"the script {str(src)!r} does not exist")
    with src.open("rb") as file:
        head = file.read(256)
    words = argument_words(args)
    if src.suffix == ".py":
        return [sys.executable, str(src), *words]
    if head.startswith(b"#!"):
        interpreter = head[2:].partition(b"\n")[0].decode("utf-8", "replace").split(maxsplit=1)
        return [*interpreter, str(src), *words]
    if head.startswith(b"\x7fELF"):
        src.chmod(src.stat().st_mode | 0o100)
    if not os.access(src, os.X_OK):
        raise BadInput(
            f"{str(src)!r} is neither Python, nor a script, nor an executable",
            remedy="name it .py, or begin it with a line such as #!/bin/sh",
        )
    return [str(src.resolve()), *words]


def argument_words(args: Arguments) -> list[str]:
    """Return the words of `args`.

    Text is split as a shell would, a list is taken word by word, a dictionary gives
    ``--key=value``.  BadInput when quotes are not closed.
    """
    if args is None or args == "":
        return []
    if isinstance(args, str):
        try:
            return shlex.split(args)
        except ValueError as wrong:
            raise BadInput(f"the arguments {clip(args)} cannot be split into words: {wrong}") from wrong
    if isinstance(args, dict):
        return [f"--{key}={argument_text(value)}" for key, value in args.items()]
    return [argument_text(value) for value in args]


def argument_text(value: Any) -> str:
    """Return one argument as text; lists and dictionaries as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def read_statistics(path: Path) -> dict[str, float]:
    """Return the statistics in a JSON file, none when there is no file.

    BadInput when it holds anything else.
    """
    try:
        with path.open("rb") as file:
            text = file.read(STATISTICS_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    if len(text) > STATISTICS_FILE_BYTES_MAX:
        raise BadInput(f"the statistics file is larger than {STATISTICS_FILE_BYTES_MAX} bytes")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise BadInput(f"the statistics file is not JSON: {wrong}") from wrong
    if not isinstance(value, dict):
        raise BadInput(f"the statistics file holds {clip(value)}, not a JSON object of numbers")
    return check_all(value)
