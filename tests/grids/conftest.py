"""What tests of grids share: a place where nodes and pilots are an ordinary user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.grids.daemons import private_directory
from tests.grids.users import USER, user_ids
from tests.integration.production import ROOT

OWN_PYTHON = os.path.realpath(sys.executable)  # Tests put something else in its place.
PACKAGES = Path(click.__file__).parents[1]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory where nodes are the user's: what `sys.executable` starts becomes that user."""
    uid, gid = user_ids(USER)
    directory = private_directory("production")
    become = directory / "python"
    paths = os.pathsep.join([str(ROOT), f"{ROOT}/cli", f"{ROOT}/pilot", str(PACKAGES)])
    become.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{paths}" HOME=/tmp\n'
        f'exec setpriv --reuid={uid} --regid={gid} --clear-groups {reachable_python(uid, gid)} "$@"\n'
    )
    become.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(become))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def reachable_python(uid: int, gid: int) -> str:
    """Return this interpreter, or the machine's of the same version where this one lies in somebody's home."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for path in (OWN_PYTHON, shutil.which(name, path="/usr/bin:/usr/local/bin")):
        line = [path or "", "-c", "import sys; sys.exit(0)"]
        try:
            done = subprocess.run(line, user=uid, group=gid, extra_groups=[], timeout=60, cwd="/")
        except OSError:
            continue
        if done.returncode == 0 and path:
            return path
    pytest.skip(f"user {USER} can run no {name}")
