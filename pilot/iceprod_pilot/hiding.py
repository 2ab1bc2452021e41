"""Which directories and files payloads have no business with, looked up anew before each module is started.

A single file is not hidden for good: when another one is renamed into its place, as proxies and tokens are renewed, the
new one is seen.  So a file's directory is hidden, where it is a directory of its own: one that only its owner may enter
and that holds nothing which modules need.  What cannot be hidden so is named.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.transfers.credentials import load
from iceprod_pilot.config import PilotConfig

OWN_CONTEXTS: Final = "~/.config/iceprod"  # A person's keys, where a site's pilots run as a person.


@dataclass(frozen=True, slots=True)
class Hidden:
    """What is to be hidden: `files` only until they are replaced, and why their directories are not, in `open`."""

    directories: tuple[Path, ...]
    files: tuple[Path, ...]
    open: tuple[str, ...]


def to_hide(config: PilotConfig) -> Hidden:
    """Return what payloads shall not see here and now.

    Directories that are not there yet are made, for the pilot's user alone, where their parents are there: what is
    written into them while a module runs is hidden too.
    """
    worked_in = [Path(name).resolve() for name in (config.work_dir, config.cache_dir)]
    needed = worked_in + [Path(name).resolve() for name in _run_from()]
    directories: list[Path] = []
    problems: list[str] = []
    for name in (config.state_dir, *config.hidden, os.path.expanduser(OWN_CONTEXTS)):
        path = Path(name).resolve()
        _make(path)
        if not path.is_dir() or path in directories:
            continue
        if _holds(path, worked_in):
            problems.append(f"{path} holds what modules work in")
        else:
            directories.append(path)
    files: list[Path] = []
    for file in _secret_files(config):
        for path in dict.fromkeys(
            (Path(os.path.abspath(file)), file.resolve())
        ):  # A link, and where it leads.
            directory = path.parent.resolve()
            _make(directory)
            if any(_is_below(directory, known) for known in directories):
                continue
            problem = _not_its_own(directory, needed)
            if not problem:
                directories.append(directory)
            elif path.is_file():
                files.append(path.resolve())
            if problem and directory.is_dir():
                problems.append(f"{path} lies in {directory}, which {problem}")
    return Hidden(tuple(directories), tuple(dict.fromkeys(files)), tuple(dict.fromkeys(problems)))


def _secret_files(config: PilotConfig) -> Iterator[Path]:
    """The site's file of credentials for storages, and those that it names, unless modules may use them."""
    if not config.transfer_credentials or config.transfer_for_modules or config.transfer_handed:
        return
    path = Path(config.transfer_credentials)
    yield path
    try:
        entries = load(path).entries
    except ConfigError:
        return  # The pilot cannot use it either; it is looked at again before the next module.
    for entry in entries:
        for name in (entry.token_file, entry.x509_proxy, entry.client_key):
            if name:
                yield path.parent / name


def _run_from() -> tuple[str, ...]:
    """The places that modules are run from, beside those they work in."""
    return (sys.prefix, sys.base_prefix, sys.executable, __file__, os.path.expanduser("~"))


def _holds(path: Path, needed: Sequence[Path]) -> bool:
    return path == Path("/") or any(_is_below(place, path) for place in needed)


def _is_below(path: Path, directory: Path) -> bool:
    return path == directory or directory in path.parents


def _not_its_own(directory: Path, needed: Sequence[Path]) -> str:
    """Return what keeps a directory from being hidden; empty when it is one for secrets alone."""
    try:
        mode = directory.stat().st_mode
    except OSError as fault:
        return f"cannot be looked at: {fault.strerror}"
    if _holds(directory, needed):
        return "modules need"
    if stat.S_IMODE(mode) & 0o077:
        return "others may enter, so that modules may need it"
    return ""


def _make(directory: Path) -> None:
    if not directory.exists() and directory.parent.is_dir():
        try:
            directory.mkdir(mode=0o700)
        except OSError:
            return  # Who may not write there finds nothing new there of its own.
