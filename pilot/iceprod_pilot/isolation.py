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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.base.logs import get_logger
from iceprod_pilot.config import PilotConfig
from iceprod_pilot.storage_credentials import STORAGE

_LOG = get_logger("pilot.isolation")
PROBE_S: Final = 20.0
OWN_CONTEXTS: Final = "~/.config/iceprod"  # A person's keys, where a site's pilots run as a person.


class Isolation:
    """How modules are started; immutable, so for any thread."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        """`prefix` are the words before every command; none: modules see what the pilot sees."""
        self._prefix = tuple(prefix)

    @property
    def works(self) -> bool:
        """Whether anything is kept from modules."""
        return bool(self._prefix)

    def wrap(self, argv: Sequence[str], environ: Mapping[str, str], work: Path) -> list[str]:
        """Return the command line that starts `argv` isolated.

        A program that cannot be started is left as it is, so that whoever starts it says what is wrong.
        """
        if not self._prefix or not _can_start(argv[0], environ, work):
            return list(argv)
        return [*self._prefix, *argv]


def make_isolation(config: PilotConfig, environ: Mapping[str, str]) -> Isolation:
    """Return what the configuration asks for and this machine offers; tried once, some hundredths of a second.

    ConfigError when it is required and does not work here.
    """
    if config.isolation == "none":
        return Isolation()
    directories, files = _kept_from_payloads(config)
    given = _given_to_payloads(config)
    program = shutil.which("bwrap", path=environ.get("PATH"))
    prefix = [] if program is None else _prefix(program, directories, files, given)
    state, names = Path(config.state_dir), {path.name for path in given}
    why = "there is no bwrap" if program is None else _trouble(prefix, state, names)
    if not why:
        _LOG.info("modules are isolated", directories=len(directories), files=len(files))
        return Isolation(prefix)
    if config.isolation == "required":
        raise ConfigError(
            f"modules cannot be isolated on this machine: {why}",
            remedy="install bubblewrap, allow user namespaces, or say [queue] isolation = auto",
        )
    _LOG.info("modules are not isolated", why=why)
    return Isolation()


def _kept_from_payloads(config: PilotConfig) -> tuple[list[Path], list[Path]]:
    """Return directories and files that are here and that payloads have no business with."""
    needed = [Path(place).resolve() for place in (config.work_dir, config.cache_dir)]
    directories: list[Path] = []
    for name in (config.state_dir, *config.hidden, os.path.expanduser(OWN_CONTEXTS)):
        path = Path(name).resolve()
        holds_needed = any(path == place or path in place.parents for place in needed)
        if path.is_dir() and path != Path("/") and not holds_needed and path not in directories:
            directories.append(path)
    files = []
    if config.transfer_credentials and not config.transfer_for_modules:
        files = [path for path in (Path(config.transfer_credentials).resolve(),) if path.is_file()]
    return directories, files


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
    """Return why it does not work, by doing it; empty when it does."""
    words = [*prefix, "/bin/ls", "-A", str(state.resolve())]
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
