"""How a module is started inside a container: the command line in front of its own.

A directory becomes the root of the module by bubblewrap (``bwrap``), without privileges; an image file or registry
address by apptainer.  Inside lie the task's own directory and the software it uses, at the very paths they have
outside, so that nothing need be translated; /cvmfs and the resolver's files are there where this machine has them.
Nothing else of the worker node is visible, and the root cannot be written.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceprod_p2p.model.states import FailReason
from iceprod_pilot.attempt import TaskFailure

SEEN_READ_ONLY: Final = ("/cvmfs",)
SEEN_FILES: Final = ("/etc/resolv.conf", "/etc/hosts")  # In the place of the image's, where it has them.
MADE_ANEW: Final = ("dev", "proc", "tmp", "run", "sys")  # Never those of the image.
PATH_INSIDE: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_PASSED_IN: Final = (
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "SHELL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
IMAGE_SCHEMES: Final = ("docker://", "oras://", "library://", "shub://", "https://")
TREE_PARTS_MAX: Final = 4_096  # Entries of one directory of an image that are bound one by one.


@dataclass(frozen=True, slots=True)
class Container:
    """A container that modules run in: the directory of its root, or the image as apptainer knows it."""

    root: Path | None = None
    image: str = ""

    def has(self, path: str) -> bool:
        """Return whether the image brings a file; an image that is no directory does not tell."""
        return self.root is not None and os.path.exists(self.root / path.lstrip("/"))


def command_line(
    container: Container,
    argv: Sequence[str],
    *,
    work: Path,
    writable: Iterable[Path],
    readable: Iterable[Path],
    gpus: bool,
    programs: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the words that start `argv` inside; its current directory is `work`.

    `programs` says where ``bwrap`` and ``apptainer`` are; looked for on PATH otherwise.  TaskFailure when the one
    that is needed is not here.
    """
    if container.root is not None:
        bwrap = _program("bwrap", programs)
        if bwrap:
            words = _bubblewrap(container.root, writable=tuple(writable), readable=tuple(readable), gpus=gpus)
            return [bwrap, *words, "--chdir", str(work), "--", *argv]
    image = container.image or str(container.root)
    apptainer = _program("apptainer", programs) or _program("singularity", programs)
    if not apptainer:
        needed = "apptainer" if container.root is None else "bwrap or apptainer"
        raise TaskFailure(
            FailReason.SOFTWARE, f"the container {image!r} needs {needed}, which this machine lacks"
        )
    words = ["exec", "--contain", "--no-home", "--pwd", str(work)]
    for path in dict.fromkeys(writable):
        words += ["--bind", f"{path}:{path}"]
    for path in dict.fromkeys(readable):
        words += ["--bind", f"{path}:{path}:ro"]
    if gpus:
        words.append("--nv")
    return [apptainer, *words, image, *argv]


def environment_inside(environ: Mapping[str, str], *, outside: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a payload for the inside: paths of the worker node itself are left behind.

    `outside` is the pilot's own environment; what the site or the software set stays.
    """
    inside = dict(environ)
    for name in NOT_PASSED_IN:
        if name in inside and inside[name] == outside.get(name):
            del inside[name]
    if inside.get("PATH") == outside.get("PATH"):
        inside["PATH"] = PATH_INSIDE
    return inside


def _program(name: str, programs: Mapping[str, str] | None) -> str:
    if programs is not None:
        return programs.get(name, "")
    return shutil.which(name) or ""


def _bubblewrap(
    root: Path, *, writable: tuple[Path, ...], readable: tuple[Path, ...], gpus: bool
) -> list[str]:
    """Return the options of bwrap.

    The root is put together from the image's entries: where a path of ours leads through one of its directories, that
    directory is made anew with the same entries, because nothing can be mounted on what cannot be written.
    """
    seen = [Path(name) for name in SEEN_READ_ONLY if os.path.exists(name)]
    ours = [*writable, *readable, *seen]
    words = ["--unshare-user-try", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    words += _parts(root, Path("/"), {path.parts[1:] for path in ours})
    words += ["--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run"]
    words += ["--dev-bind", "/dev", "/dev"] if gpus else ["--dev", "/dev"]
    for path in dict.fromkeys((*seen, *readable)):
        words += ["--ro-bind", str(path), str(path)]
    for name in SEEN_FILES:
        if os.path.isfile(name) and _is_file(root / name[1:]):
            words += ["--ro-bind", name, name]
    for path in dict.fromkeys(writable):
        words += ["--bind", str(path), str(path)]
    # What was made anew above lies on a file system of its own, which would else take new files.
    return [*words, "--remount-ro", "/"]


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _parts(source: Path, inside: Path, through: set[tuple[str, ...]]) -> list[str]:
    """Bind the entries of one directory of the image; `through` are the ways of our paths from here on."""
    words: list[str] = []
    entries = sorted(os.scandir(source), key=lambda entry: entry.name)[:TREE_PARTS_MAX]
    first = {way[0] for way in through if way}
    for entry in entries:
        target = inside / entry.name
        if inside == Path("/") and entry.name in MADE_ANEW:
            continue
        if entry.is_symlink():
            if entry.name not in first:
                words += ["--symlink", os.readlink(entry.path), str(target)]
        elif entry.name not in first:
            words += ["--ro-bind", entry.path, str(target)]
        elif entry.is_dir(follow_symlinks=False):
            deeper = {way[1:] for way in through if way and way[0] == entry.name}
            if () in deeper:
                continue  # One of our own paths takes its place as a whole.
            words += ["--dir", str(target), *_parts(Path(entry.path), target, deeper)]
    return words
