"""Being somebody else for a while: batch systems that run nothing as root are spoken to by a user."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "gridtest"  # Made when it is not there, and left there.


def user_ids(name: str) -> tuple[int, int]:
    """Return user and group of an account that is made when it is not there; needs root."""
    line = ("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/bin/sh", name)
    for _ in range(10):  # Another process may make it at the same time, and lock us out for that.
        try:
            entry = pwd.getpwnam(name)
            break
        except KeyError:
            done = subprocess.run(line, capture_output=True, text=True, timeout=30)
            time.sleep(0.2 if done.returncode else 0)
    else:
        raise AssertionError(f"{' '.join(line)}: {done.stderr}")
    return entry.pw_uid, entry.pw_gid


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Make this process, and what it starts, that user's; root remains within reach."""
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


@contextmanager
def as_user_in(directory: Path) -> Iterator[Path]:
    """Be the tests' user, with a directory to work in that is made if need be and open to everybody."""
    account = user_ids(USER)
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)
    with as_user(*account):
        yield directory


@contextmanager
def as_root_again() -> Iterator[None]:
    """Be root within `as_user`; nothing changes for root."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        yield
        return
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
    try:
        yield
    finally:
        os.setresgid(gid, gid, 0)
        os.setresuid(uid, uid, 0)
