"""Files around a grid job, for systems whose worker nodes see this host's file system."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from iceprod_p2p.grids.request import GridRequest


def place_files(request: GridRequest) -> None:
    """Make the grid job's directory and copy `files_in` there with their modes; raises OSError."""
    Path(request.work_directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in request.files_in:
        target = Path(request.work_directory, os.path.basename(path))
        if not (target.exists() and target.samefile(path)):
            shutil.copy2(path, target)


def shell_script(request: GridRequest, directives: Sequence[str] = ()) -> str:
    """Return a script for /bin/sh that sets the environment and becomes the executable; pure.

    It becomes it by `exec`, so that the signals of the batch system reach the executable itself.  Directives
    stand where batch systems look for them: before the first command.
    """
    exports = [f"export {name}={shlex.quote(value)}" for name, value in request.full_environment().items()]
    command = shlex.join((request.executable, *request.arguments))
    return "\n".join(
        ("#!/bin/sh", *directives, "unset LC_ALL", "export LANG=C.UTF-8", *exports, f"exec {command}", "")
    )
