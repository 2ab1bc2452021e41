"""Files around a grid job: laid down where worker nodes see this host's file system, or carried in its script."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from iceprod_p2p.grids.request import GridRequest


def place_files(request: GridRequest) -> None:
    """Make the grid job's directory and copy `files_in` there with their modes; raises OSError.

    Files that are carried to worker nodes stay where they are until then.
    """
    Path(request.work_directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    if request.carry:
        return
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
    embed: bool = True,
) -> str:
    """Return a script for /bin/sh that sets the environment and becomes the executable.

    It becomes it by `exec`, so that the signals of the batch system reach the executable itself.  For systems
    that warn by other signals than TERM, `forward_signals` keeps the shell, which turns USR1 and USR2 into
    TERM.  Directives stand where batch systems look for them: before the first command; `first` are commands
    before the executable.

    A request that is carried brings `files_in` in the script (they are read: OSError), unless the system itself
    transfers them and `embed` says no.  On the worker node it makes a directory of its own in the system's
    scratch, for its user alone, and starts the executable there, which is told of it as ICEPROD_SCRATCH and
    removes it at its end.  Otherwise this is pure.
    """
    if request.carry and embed:
        first = (*first, *_carried(request))
    exports = [f"export {name}={_quoted(value)}" for name, value in request.full_environment().items()]
    words = (request.executable, *request.arguments)
    if any("\n" in word for word in (*words, *request.environment.values())):
        exports.insert(0, _LINE_BREAK)
    command = " ".join(_quoted(word) for word in words)
    run = _FORWARDING.format(command=command) if forward_signals else f"exec {command}\n"
    return "\n".join(("#!/bin/sh", *directives, "unset LC_ALL", "export LANG=C.UTF-8", *exports, *first, run))


def _quoted(text: str) -> str:
    """Return a word of the shell on one line: batch systems look for directives at the beginning of any."""
    return '"$LF"'.join(shlex.quote(line) for line in text.split("\n"))


_LINE_BREAK: Final = "LF=$(printf '\\nx'); LF=${LF%x}"


def _carried(request: GridRequest) -> list[str]:
    """Return the commands that make the grid job's directory on the worker node and put `files_in` there."""
    lines = [_PLACE]
    for path in request.files_in:
        content = base64.encodebytes(Path(path).read_bytes()).decode()
        lines.append(f"base64 -d >{shlex.quote(os.path.basename(path))} <<'EOF'\n{content}EOF")
    return lines


_PLACE: Final = """\
umask 077
for place in "$SLURM_TMPDIR" "$RUNTIME_LOCAL_SCRATCH_DIR" "$TMPDIR" /tmp; do
  [ -n "$place" ] && [ -d "$place" ] && [ -w "$place" ] && break
done
ICEPROD_SCRATCH=$(mktemp -d "$place/iceprod-XXXXXXXX") && cd "$ICEPROD_SCRATCH" || exit 75
export ICEPROD_SCRATCH"""


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
  kill -0 $child 2>/dev/null && continue
  # A warning in the moment of its end may have given its own number instead of the exit code: ask again.
  trap '' TERM USR1 USR2
  wait $child
  again=$?
  [ $again -eq 127 ] || code=$again
  exit $code
done
"""
