"""Directories for tasks: one each, for its owner alone, gone without trace when the task is.

work_dir/PILOT-PID/          this pilot process's own, removed at its end
  12.5.3-0/                  one attempt
    work/                    the payload's current directory
    tmp/                     its TMPDIR
    log                      its stdout and stderr

Emptied directories serve later tasks: to remove a directory takes milliseconds on many file systems, and a short task
would cost less than its three.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

from iceprod_p2p.base.errors import BadInput, ConfigError
from iceprod_p2p.base.logs import get_logger

_LOG = get_logger("pilot.workspace")
MIB: Final = 1024 * 1024
SPARE_MAX: Final = 256  # Emptied directories kept: about as many as tasks may run at once.
FILES_COUNTED_MAX: Final = 200_000  # A measurement ends there: it must not cost more than what it watches.
NAME_CHARS_MAX: Final = 1_024
LOG_MODE: Final = stat.S_IFREG | 0o600
DIRECTORY_MODE: Final = stat.S_IFDIR | 0o700


class Workspace:
    """The pilot's own part of the work directory."""

    def __init__(self, work_dir: Path, pilot: str) -> None:
        self.path = work_dir / f"{pilot}-{os.getpid()}"
        self._spare: list[Path] = []
        self._spares_made = 0
        self._lock = threading.Lock()
        try:
            work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.mkdir(mode=0o700, parents=True)  # Another's end may have removed the empty one again.
        except OSError as fault:
            raise ConfigError(
                f"cannot make the work directory {self.path}: {fault.strerror}",
                remedy="name another work directory in the node's site.toml, or make room",
            ) from fault

    def open_task(self, label: str) -> TaskDirectory:
        """Make the directories of one attempt, empty; OSError when the disk refuses."""
        root = self.path / label
        remove(root)
        directory = TaskDirectory(root)
        with self._lock:
            spare = self._spare.pop() if self._spare else None
        if spare is not None:
            spare.rename(root)
            return directory
        for path in (root, directory.work, directory.tmp):
            path.mkdir(mode=0o700)
        return directory

    def close_task(self, directory: TaskDirectory) -> None:
        """Remove everything of an attempt; its processes have ended."""
        if len(self._spare) >= SPARE_MAX or not _emptied(directory):
            remove(directory.root)
            return
        with self._lock:
            self._spares_made += 1
            spare = self.path / f"spare-{self._spares_made}"
            directory.root.rename(spare)
            self._spare.append(spare)

    def free_mib(self) -> int:
        """Return how much room the file system has for this user."""
        return shutil.disk_usage(self.path).free // MIB

    def close(self) -> None:
        """Remove everything, and the work directory too when it is empty then: in a scratch it was the pilot's own."""
        remove(self.path)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


@dataclass(frozen=True, slots=True)
class TaskDirectory:
    """The places of one attempt: `work` is the payload's current directory, `tmp` its TMPDIR, `log` what it prints."""

    root: Path
    work: Path = field(init=False)
    tmp: Path = field(init=False)
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in ("work", "tmp", "log"):  # Once: they are asked for again and again.
            object.__setattr__(self, name, self.root / name)

    def inside(self, name: str) -> Path:
        """Return the path of `name` below the payload's directory; BadInput for one that leads out of it."""
        return inside(self.work, name)

    def used_mib(self) -> int:
        """Return the room that the task's files take, rounded up; links count as themselves."""
        total = sum(entry.st_blocks * 512 for entry in islice(_walk(self.root), FILES_COUNTED_MAX))
        return -(-total // MIB)


def inside(directory: Path, name: str) -> Path:
    """Return `directory / name` when `name` is a plain relative path; BadInput otherwise."""
    parts = PurePosixPath(name).parts
    wrong = (
        not parts
        or name.startswith("/")
        or ".." in parts
        or len(name) > NAME_CHARS_MAX
        or not name.isprintable()
    )
    if wrong:
        raise BadInput(f"{name[:200]!r} is not a file name inside the task's directory")
    return directory.joinpath(*parts)


def is_plain_file(path: Path, directory: Path) -> bool:
    """Return whether `path` is a regular file that really lies below `directory`, links resolved."""
    try:
        real = path.resolve(strict=True)
        return real.is_relative_to(directory.resolve()) and stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError):
        return False


def remove(path: Path) -> None:
    """Remove a tree without following links; what the payload made unreadable is made readable first."""
    if not os.path.lexists(path):
        return
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        return
    for directory, names, _ in os.walk(path, followlinks=False):
        for name in (".", *names):
            entry = os.path.join(directory, name)
            if not os.path.islink(entry):
                try:
                    os.chmod(entry, 0o700)
                except OSError:
                    continue
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        _LOG.warning("directory not removed", path=str(path))


def _emptied(directory: TaskDirectory) -> bool:
    """Empty an attempt's directories for another use; returns whether they are as they were when new.

    A log to which nothing was written stays: it serves the next task.
    """
    try:
        with os.scandir(directory.root) as entries:
            for entry in entries:
                if entry.name not in ("work", "tmp") and not (entry.name == "log" and _is_unused(entry)):
                    os.unlink(entry.path)
        for path in (directory.root, directory.work, directory.tmp):
            mode = os.lstat(path).st_mode
            if not stat.S_ISDIR(mode):
                return False
            if mode != DIRECTORY_MODE:
                os.chmod(path, 0o700)
        for path in (directory.work, directory.tmp):
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)
    except OSError:
        return False
    return True


def _is_unused(entry: os.DirEntry[str]) -> bool:
    """Return whether a file is as it was made: most tasks print nothing, and files cost more than a look at one."""
    known = entry.stat(follow_symlinks=False)
    return known.st_mode == LOG_MODE and known.st_nlink == 1 and not known.st_size


def _walk(root: Path) -> Iterator[os.stat_result]:
    front = [os.fspath(root)]
    while front:
        try:
            entries = list(os.scandir(front.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                yield entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    front.append(entry.path)
            except OSError:
                continue
