"""Disks whose power can be cut: ext4 on a loop device, on a cache that forgets what was never flushed (`disk_server`).

Needs root, /dev/fuse, loop devices and mkfs.ext4; `needed` says what is missing.  Nothing else of the machine is
touched: images and mount points lie in the test's own directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMAND_S = 60.0
UNMOUNT_S = 20.0  # Then it is taken away under whoever still holds it.


def need_a_power_switch() -> None:
    """Skip the test aloud where no disk can be made whose power can be cut."""
    if os.geteuid() != 0:
        pytest.skip("a true power cut needs root, for mounting a file system of its own")
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            pytest.skip(f"a true power cut needs {device}, which this machine does not have")
    for command in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(command) is None:
            pytest.skip(f"a true power cut needs {command}")


class Disk:
    """One disk, mounted at `at`; its image outlives every power cut."""

    def __init__(self, directory: Path, at: Path, *, size_mib: int = 192) -> None:
        self.at = at
        self._image = directory / "image"
        self._fuse = directory / "fuse"
        self._server: subprocess.Popen[str] | None = None
        for path in (self._fuse, at):
            path.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(size_mib << 20)
        _run(
            "mkfs.ext4",
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            str(self._image),
        )
        self.sectors_lost = 0
        self.attach()

    def attach(self) -> None:
        """Give it power, and mount what is on it: ext4 replays its journal, as at any boot."""
        self._server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.integration.chaos.disk_server",
                str(self._image),
                str(self._fuse),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n", "the disk's server did not start"
        _run("mount", "-o", "loop,noatime", str(self._fuse / "disk"), str(self.at))
        self.at.chmod(0o700)

    def cut(self, seed: int) -> int:
        """Cut the power now, and return how many sectors that were written and never flushed are lost."""
        _, lost = map(int, self._command(f"cut {seed}").split())
        self.sectors_lost += lost
        return lost

    def sync(self) -> None:
        """Put everything on the disk, as a test does with what is not the program's to keep."""
        _run("sync", "-f", str(self.at))

    def fill(self) -> None:
        """Leave no room on it, until `make_room`."""
        with (self.at / "ballast").open("ab", buffering=0) as ballast:
            for size_bytes in (1 << 20, 1 << 16, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(bytes(size_bytes))

    def make_room(self) -> None:
        """Take away what `fill` left."""
        (self.at / "ballast").unlink()

    def slow(self, flush_s: float) -> None:
        """Let every flush take so long."""
        self._command(f"slow {flush_s}")

    def detach(self) -> None:
        """Take the disk away; nobody may use it any more.  Harmless when repeated."""
        for path in (self.at, self._fuse):
            end_s = time.monotonic() + UNMOUNT_S
            while os.path.ismount(path):
                done = subprocess.run(
                    ["umount", str(path)], capture_output=True, text=True, timeout=COMMAND_S
                )
                if done.returncode and time.monotonic() > end_s:
                    subprocess.run(["umount", "-l", str(path)], timeout=COMMAND_S, check=False)
                time.sleep(0.05 if done.returncode else 0.0)
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(10)
            self._server.kill()
            self._server.wait()
            self._server = None

    def _command(self, line: str) -> str:
        assert self._server is not None and self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()
        return self._server.stdout.readline()


@contextlib.contextmanager
def disks(root: Path, names: Sequence[str]) -> Iterator[dict[str, Disk]]:
    """A disk for each member, mounted where its store will be."""
    made: dict[str, Disk] = {}
    try:
        for name in names:
            made[name] = Disk(root / f"disk-{name}", root / name / "raft")
        yield made
    finally:
        for disk in made.values():
            disk.detach()


def _run(*line: str) -> None:
    done = subprocess.run(line, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == 0, f"{' '.join(line)}: {done.stderr}"
