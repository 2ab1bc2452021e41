"""Files around a grid job, for systems whose worker nodes see this host's file system."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from iceprod_p2p.grids.request import GridRequest


def place_files(request: GridRequest) -> None:
    """Make the grid job's directory and copy `files_in` there with their modes; raises OSError."""
    Path(request.work_directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in request.files_in:
        target = Path(request.work_directory, os.path.basename(path))
        if not (target.exists() and target.samefile(path)):
            shutil.copy2(path, target)


def shell_script(
    request: GridRequest,
    directives: Sequence[str] = (),
    *,
    forward_signals: bool = False,
    first: Sequence[str] = (),
) -> str:
    """Return a script for /bin/sh that sets the environment and becomes the executable; pure.

    It becomes it by `exec`, so that the signals of the batch system reach the executable itself.  For systems
    that warn by other signals than TERM, `forward_signals` keeps the shell, which turns USR1 and USR2 into
    TERM.  Directives stand where batch systems look for them: before the first command; `first` are commands
    before the executable.
    """
    exports = [f"export {name}={shlex.quote(value)}" for name, value in request.full_environment().items()]
    command = shlex.join((request.executable, *request.arguments))
    run = _FORWARDING.format(command=command) if forward_signals else f"exec {command}\n"
    return "\n".join(("#!/bin/sh", *directives, "unset LC_ALL", "export LANG=C.UTF-8", *exports, *first, run))


# The warning goes to all processes: the executable shall ignore it, and inherits that from its first moment.
# `wait` returns early for a trap; the child is then still there, be it as a zombie, and is waited for again.
_FORWARDING: Final = """\
trap '' USR1 USR2
{command} &
child=$!
trap 'kill -TERM $child' TERM USR1 USR2
while :; do
  wait $child
  code=$?
  kill -0 $child 2>/dev/null || exit $code
done
"""
