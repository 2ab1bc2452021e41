"""What this machine is, as far as software built for machines asks: system, architecture, C library, Python."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

RELEASE_FILES: Final = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
RELEASE_BYTES_MAX: Final = 65_536
_MUSL_LOADERS: Final = "ld-musl-*"


class Machine(NamedTuple):
    """`systems` are the names of the operating system in lower case, from ``linux`` to ``debian_12``.

    `libc` is such as ``glibc2.36`` or ``musl``, `python` the minor version of the Python that asks.
    """

    systems: frozenset[str]
    arch: str
    libc: str
    python: str


@cache
def this_machine() -> Machine:
    """Return what this machine is; read once per process."""
    return Machine(
        systems=systems_of(_release()),
        arch=os.uname().machine,
        libc=_libc(),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
    )


def systems_of(release: Mapping[str, str]) -> frozenset[str]:
    """Return every name that an ``os-release`` file gives: Red Hat's rebuilds are ``rhel_9`` too."""
    major = release.get("VERSION_ID", "").partition(".")[0]
    families = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    names = {"linux"}
    for family in (name.lower() for name in families if name):
        names.add(family)
        # A derivative counts its versions as its family does only within Red Hat's.
        if major and (family == release.get("ID", "").lower() or family == "rhel"):
            names.add(f"{family}_{major}")
    return frozenset(names)


def _release() -> dict[str, str]:
    for path in RELEASE_FILES:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                lines = file.read(RELEASE_BYTES_MAX).splitlines()
        except OSError:
            continue
        pairs = (line.partition("=") for line in lines if not line.startswith("#"))
        return {name.strip(): value.strip().strip("\"'") for name, equals, value in pairs if equals}
    return {}


def _libc() -> str:
    name, version = platform.libc_ver()
    if name:
        return f"{name}{version}"
    return "musl" if any(Path("/lib").glob(_MUSL_LOADERS)) else ""
