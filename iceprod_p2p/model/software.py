"""Software that the cluster knows by name and version: builds for platforms, and which of them a worker node can run.

A platform is up to four words, written ``linux-x86_64-glibc2.28-py3.11``; a part that is left out, or ``any``, fits
every machine.  A build made against one C library runs with that version or a newer one; one made for a Python runs
under that minor version alone.  IceProd's ``RHEL_9_x86_64`` is read as an operating system and an architecture.
Source: arXiv:1311.5904, section 3 (meta-projects, built per platform).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from iceprod_p2p.model.bounds import Amount, HexDigest, Line, Word

SoftwareName = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")]
Part = Annotated[str, Meta(pattern="^([A-Za-z0-9][A-Za-z0-9._]{0,30})?$")]
VARIABLES_MAX: Final = 64  # Environment variables that one build may set.

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]{0,30}")
_LIBC: Final = re.compile(r"(glibc|musl)((?:[0-9]+(?:\.[0-9]+){0,2})?)")
_PYTHON: Final = re.compile(r"(?:py|python|cp)([0-9]+\.[0-9]+)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ARCHITECTURES: Final = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "i686": "i686",
    "armv7l": "armv7l",
}


class BuildKind(StrEnum):
    """What the tarball of a build holds."""

    TREE = "tree"  # A directory of software, put in front of the paths of the modules.
    CONTAINER = "container"  # A root file system, in which the modules run.


class Platform(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """For which machines a build is; an empty part fits all."""

    os: Part = ""
    arch: Part = ""
    libc: Part = ""
    python: Part = ""

    @property
    def text(self) -> str:
        """The platform as people write it; ``any`` for one that fits all machines."""
        parts = (self.os, self.arch, self.libc, f"py{self.python}" if self.python else "")
        return "-".join(part for part in parts if part) or "any"


class Build(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The tarball of one platform.

    `variables` are set for the modules: ``{root}`` in a value is the directory it is unpacked in, and a value of
    PATH, LD_LIBRARY_PATH, PYTHONPATH or another that ends in PATH goes before what the variable has already.
    """

    platform: Platform
    sha256: HexDigest
    size_bytes: Amount
    kind: BuildKind = BuildKind.TREE
    variables: dict[Word, Line] = {}


class Host(msgspec.Struct, frozen=True):
    """What a worker node is: `systems` are its names in lower case, from ``linux`` to ``rhel_9``."""

    systems: frozenset[str]
    arch: str
    libc: str
    python: str

    @property
    def text(self) -> str:
        """The machine in one line."""
        system = max(self.systems, key=lambda name: (name.count("_"), name), default="linux")
        return Platform(system, self.arch, self.libc, self.python).text


class NotAPlatform(ValueError):
    """A text names no platform; the message says which part is wrong."""


def parse_platform(text: str) -> Platform:
    """Read ``linux-x86_64-glibc2.28-py3.11`` with parts in any order, ``any``, or ``RHEL_9_x86_64``.

    NotAPlatform names the part that is none, or that is given twice.
    """
    found: dict[str, str] = {}
    for part in text.split("-"):
        word = part.strip()
        if word.lower() in ("", "any"):
            continue
        for name, value in _parts(word):
            if name in found:
                raise NotAPlatform(f"{text[:80]!r} names two values for {name}: {found[name]} and {value}")
            found[name] = value
    return Platform(**found)


def _parts(word: str) -> Iterable[tuple[str, str]]:
    if _PART.fullmatch(word) is None:
        raise NotAPlatform(f"{word[:40]!r} is no part of a platform such as linux-x86_64-glibc2.28-py3.11")
    if word.lower() in _ARCHITECTURES:
        return (("arch", _ARCHITECTURES[word.lower()]),)
    if _LIBC.fullmatch(word):
        return (("libc", word),)
    python = _PYTHON.fullmatch(word)
    if python:
        return (("python", python[1]),)
    for ending, arch in _ARCHITECTURES.items():
        if word.lower().endswith(f"_{ending}"):
            return (("os", word[: -len(ending) - 1]), ("arch", arch))
    return (("os", word),)


def is_software_name(text: str) -> bool:
    """Return whether a text may name software or a version: letters, digits and ``._+-``, at most 63."""
    return _NAME.fullmatch(text) is not None


def is_variable_name(text: str) -> bool:
    """Return whether a text may name an environment variable."""
    return _VARIABLE.fullmatch(text) is not None


def misfits(platform: Platform, host: Host) -> tuple[str, ...]:
    """Return why a build cannot run on a machine, one clause each; empty when it can."""
    found = []
    if platform.os and platform.os.lower() not in host.systems:
        found.append(f"it is for {platform.os}")
    if platform.arch and platform.arch != host.arch:
        found.append(f"it is for {platform.arch}")
    if platform.libc and not _libc_serves(host.libc, platform.libc):
        found.append(f"it needs {platform.libc}")
    if platform.python and platform.python != host.python:
        found.append(f"it needs Python {platform.python}")
    return tuple(found)


B = TypeVar("B", bound=Build)


def best_build(builds: Sequence[B], host: Host) -> B | None:
    """Return the build made most closely for a machine, the same whatever the order; None when none can run there."""
    fitting = [build for build in builds if not misfits(build.platform, host)]
    return max(fitting, key=_closeness, default=None)


def within(wanted: Platform, builds: Sequence[B]) -> tuple[B, ...]:
    """Return the builds that have every part of a platform as it was asked for."""
    return tuple(
        build
        for build in builds
        if all(
            not asked or asked.lower() == has.lower()
            for asked, has in (
                (wanted.os, build.platform.os),
                (wanted.arch, build.platform.arch),
                (wanted.libc, build.platform.libc),
                (wanted.python, build.platform.python),
            )
        )
    )


def attributes_of(builds: Sequence[Build]) -> tuple[str, ...]:
    """Return the attributes that a site must offer so that some build can run there: ``arch=`` and ``python=``.

    They are necessary, not sufficient: what the C library is, the pilot finds out on the worker node.
    """
    found = []
    for name in ("arch", "python"):
        values = sorted({str(getattr(build.platform, name)) for build in builds})
        if values and "" not in values:
            found.append(f"{name}={'|'.join(values)}")
    return tuple(word for word in found if len(word) <= 128)


def _closeness(build: Build) -> tuple[object, ...]:
    platform = build.platform
    distribution = platform.os.lower() not in ("", "linux")
    return (
        distribution + platform.os.count("_") * distribution,
        bool(platform.arch),
        bool(platform.python),
        _version(platform.libc),
        platform,
    )


def _libc_serves(has: str, needed: str) -> bool:
    mine, wanted = _LIBC.fullmatch(has), _LIBC.fullmatch(needed)
    return (
        mine is not None and wanted is not None and mine[1] == wanted[1] and _version(has) >= _version(needed)
    )


def _version(libc: str) -> tuple[int, ...]:
    found = _LIBC.fullmatch(libc)
    return tuple(int(part) for part in found[2].split(".")) if found and found[2] else ()
