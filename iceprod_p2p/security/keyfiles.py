"""Files that hold keys and certificates: written whole or not at all, and readable by their owner alone.

Directories are 0700, keys and secrets 0600, certificates 0644.  A key that others could read is refused,
not used.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import ConfigError, Unavailable
from iceprod_p2p.base.failpoints import passing

_FILE_BYTES_MAX: Final = 64 * 1024  # Keys, chains and secrets are far smaller.


def make_private_directory(path: Path) -> None:
    """Make `path` (and its parents) with mode 0700, durably; ConfigError when it exists and others may enter."""
    try:
        new = [level for level in (path, *path.parents) if not level.exists()]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for level in new:
            sync_directory(level.parent)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as fault:
        raise ConfigError(
            f"cannot make the directory {path}: {fault.strerror}",
            remedy="choose another directory, or make one there that this account may write",
        ) from fault
    if mode & 0o077:
        raise ConfigError(
            f"the directory {path} has mode {mode:04o}, so others may enter", remedy=f"chmod 700 {path}"
        )


def write_secret(path: Path, content: bytes) -> None:
    """Write `content` to `path` with mode 0600, durably and atomically; Unavailable when the disk refuses."""
    _write(path, content, 0o600)


def write_public(path: Path, content: bytes) -> None:
    """Write `content` to `path` with mode 0644, durably and atomically; Unavailable when the disk refuses."""
    _write(path, content, 0o644)


def read_secret(path: Path) -> bytes:
    """Read a file that only its owner may read; ConfigError when it is missing, too large, or open to
    others.
    """
    content, mode = _read(path)
    if mode & 0o077:
        raise ConfigError(f"{path} has mode {mode:04o}, so others may read it", remedy=f"chmod 600 {path}")
    return content


def read_public(path: Path) -> bytes:
    """Read a certificate file; ConfigError when it is missing, too large, or writable by others."""
    content, mode = _read(path)
    if mode & 0o022:
        raise ConfigError(f"{path} has mode {mode:04o}, so others may change it", remedy=f"chmod 644 {path}")
    return content


def _read(path: Path) -> tuple[bytes, int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as fault:
        raise ConfigError(f"cannot read {path}: {fault.strerror}") from fault
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise ConfigError(f"{path} is not a plain file")
        content = _read_all(descriptor, _FILE_BYTES_MAX + 1)
    except OSError as fault:
        raise ConfigError(f"cannot read {path}: {fault.strerror}") from fault
    finally:
        os.close(descriptor)
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigError(f"{path} holds more than {_FILE_BYTES_MAX} bytes, so it is no key or certificate")
    return content, stat.S_IMODE(state.st_mode)


def _read_all(descriptor: int, bytes_max: int) -> bytes:
    content = b""
    while len(content) < bytes_max and (part := os.read(descriptor, bytes_max - len(content))):
        content += part
    return content


def _write(path: Path, content: bytes, mode: int) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        scratch.unlink(missing_ok=True)  # Left behind by a process that was killed.
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)  # Whatever the umask is.
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        passing("file.rename.before")
        os.replace(scratch, path)
        passing("file.rename.after")
        sync_directory(path.parent)
    except OSError as fault:
        scratch.unlink(missing_ok=True)
        raise Unavailable(
            f"cannot write {path}: {fault.strerror}", remedy="make room or mend the permissions, then repeat"
        ) from fault


def sync_directory(path: Path) -> None:
    """Put the entries of a directory on the disk: names made or changed in it outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
