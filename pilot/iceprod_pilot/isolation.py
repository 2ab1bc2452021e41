"""What payloads must not read is not there for them: the pilot's key and passkeys, and the site's own files.

Payloads run as the pilot's user.  Its memory, environment and descriptors are closed to them by the kernel
(`guard.protect_this_process`); files are not.  Where bubblewrap works, each module is started by it in a user and mount
namespace of its own, in which those directories are empty and cannot be uncovered, and from which the processes outside
cannot be looked into.  Everything else is as before: the same paths, processes, user and files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.base.logs import get_logger
from iceprod_pilot.config import PilotConfig
from iceprod_pilot.hiding import to_hide
from iceprod_pilot.storage_credentials import STORAGE

_LOG = get_logger("pilot.isolation")
PROBE_S: Final = 20.0


class Isolation:
    """How modules are started; immutable, so for any thread."""

    def __init__(self, prefix: Callable[[], Sequence[str]] | None = None) -> None:
        """`prefix` gives the words before a command that starts now; none: modules see what the pilot sees."""
        self._prefix = prefix

    @property
    def works(self) -> bool:
        """Whether anything is kept from modules."""
        return self._prefix is not None

    def wrap(self, argv: Sequence[str], environ: Mapping[str, str], work: Path) -> list[str]:
        """Return the command line that starts `argv` isolated.

        A program that cannot be started is left as it is, so that whoever starts it says what is wrong.
        """
        if self._prefix is None or not _can_start(argv[0], environ, work):
            return list(argv)
        return [*self._prefix(), *argv]


def make_isolation(config: PilotConfig, environ: Mapping[str, str]) -> Isolation:
    """Return what the configuration asks for and this machine offers; tried once, some hundredths of a second.

    ConfigError when it is required and does not work here.
    """
    if config.isolation == "none":
        return Isolation()
    required = config.isolation == "required"
    hidden, given = to_hide(config), _given_to_payloads(config)
    program = shutil.which("bwrap", path=environ.get("PATH"))

    def prefix() -> list[str]:
        present = to_hide(config)  # What was made or named since then counts too.
        return _prefix(program or "bwrap", present.directories, present.files, given)

    state, names = Path(config.state_dir), {path.name for path in given}
    why = "there is no bwrap" if program is None else _trouble(prefix(), state, names)
    if not why and hidden.open and required:
        raise ConfigError(
            f"not everything can be hidden from modules: {'; '.join(hidden.open)}",
            remedy="put each secret into a directory of its own (chmod 700), let nodes hand credentials out"
            " ([transfers] hand_out), or say [queue] isolation = auto",
        )
    if not why:
        for problem in hidden.open:
            _LOG.warning("not everything is hidden from modules for good", why=problem)
        _LOG.info("modules are isolated", directories=len(hidden.directories), files=len(hidden.files))
        return Isolation(prefix)
    if required:
        raise ConfigError(
            f"modules cannot be isolated on this machine: {why}",
            remedy="install bubblewrap, allow user namespaces, or say [queue] isolation = auto",
        )
    _LOG.info("modules are not isolated", why=why)
    return Isolation()


def _given_to_payloads(config: PilotConfig) -> list[Path]:
    """Return what lies in the pilot's state and is for modules all the same: credentials that a node hands out."""
    if not (config.transfer_for_modules and config.transfer_handed):
        return []
    directory = (Path(config.state_dir) / STORAGE).resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [directory]


def _prefix(
    program: str, directories: Sequence[Path], files: Sequence[Path], given: Sequence[Path]
) -> list[str]:
    words = [program, "--unshare-user", "--cap-drop", "ALL", "--dev-bind", "/", "/"]
    # One inside of another would lie in what is covered already.
    for path in directories:
        if not any(other in path.parents for other in directories):
            words += ["--tmpfs", str(path)]
    for path in files:
        if not any(other in path.parents for other in directories):
            words += ["--ro-bind", "/dev/null", str(path)]
    for path in given:
        words += ["--ro-bind", str(path), str(path)]
    return [*words, "--die-with-parent", "--"]


def _trouble(prefix: Sequence[str], state: Path, given: set[str]) -> str:
    """Return why it does not work, by doing it; empty when it does.

    The state may lie in something larger that is covered, as at every site whose pilots share the node's directory.
    """
    look = 'test ! -e "$1" || exec /bin/ls -A "$1"'
    words = [*prefix, "/bin/sh", "-c", look, "sh", str(state.resolve())]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_S, check=False, env={}
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        return f"bwrap cannot be started: {fault}"
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return said[-1][:200] if said else f"bwrap ends with code {done.returncode}"
    shown = set(done.stdout.decode("utf-8", "replace").split()) - given
    return "bwrap shows what it should hide" if shown else ""


def _can_start(program: str, environ: Mapping[str, str], work: Path) -> bool:
    if "/" in program:
        path = work / program
        return path.is_file() and os.access(path, os.X_OK)
    return shutil.which(program, path=environ.get("PATH", os.defpath)) is not None
