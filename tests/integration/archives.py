"""Tarballs for tests: from texts, and a small root file system made of programs of this machine."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

PROGRAMS = ("sh", "cat", "ls", "id", "touch", "env", "sleep")


def tarball(files: Mapping[str, str | bytes], *, links: Mapping[str, str] | None = None) -> bytes:
    """Return a gzipped tar of files by name; what begins with ``#!`` may be executed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            content = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755 if content.startswith((b"#!", b"\x7fELF")) else 0o644
            tar.addfile(info, io.BytesIO(content))
        for name, aim in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, aim
            tar.addfile(info)
    return out.getvalue()


@cache
def root_filesystem() -> bytes:
    """Return a root file system with a shell and a few programs, as a container image would be unpacked."""
    files: dict[str, str | bytes] = {
        "etc/os-release": "ID=tiny\nVERSION_ID=1\n",
        "etc/passwd": "root:x:0:0::/:/bin/sh\n",
        "home/.keep": "",
    }
    for name in PROGRAMS:
        path = shutil.which(name)
        assert path is not None
        files[f"bin/{name}"] = _content(path)
        for library in _libraries(path):
            files[library.lstrip("/")] = _content(library)
    return tarball(files, links={"etc/mtab": "/proc/mounts", "usr": ".", "bin/dash": "/bin/sh"})


def python_filesystem(root: Path) -> Path:
    """Make a directory that holds this machine's python3 with its standard library and what they need, and no more."""
    here = Path(sys.base_prefix)
    (root / "usr" / "bin").mkdir(parents=True)
    for name in ("work", "home", "tmp", "etc"):
        (root / name).mkdir()
    program = root / "usr" / "bin" / "python3"
    shutil.copy(Path(sys.executable).resolve(), program)
    library = Path(sysconfig.get_path("stdlib"))
    unwanted = (
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "ensurepip",
        "__pycache__",
        "config-*",
    )
    place = root / "usr" / library.relative_to(here)
    shutil.copytree(library, place, ignore=shutil.ignore_patterns(*unwanted))
    extensions = [str(path) for path in (place / "lib-dynload").glob("*.so")]
    for needed in {library for path in (str(program), *extensions) for library in _libraries(path)}:
        target = root / needed.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(needed, target)
    return root


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _libraries(path: str) -> list[str]:
    said = subprocess.run(["ldd", path], capture_output=True, text=True, check=True, timeout=120).stdout
    return re.findall(r"(/\S+) \(0x", said)
