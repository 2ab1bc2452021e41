"""Kills what must be killed: a task's whole process tree, and everything of this pilot should the pilot itself die.

Three nets, each for what slips through the one before.  A module starts in a session of its own, and its tree is
followed from parent to child.  The pilot is the reaper of its orphans, so a process that leaves session and parent
stays below the pilot, where it is recognised as a stray and killed.  And a small guard process, which ignores the
signals that end a pilot, waits for the end of a pipe: when the pilot is gone, however it went, it kills every process
that was started for the pilot's tasks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.security import random
from iceprod_pilot import processes
from iceprod_pilot.processes import Process

_LOG = get_logger("pilot.guard")

GUARD_VARIABLE: Final = "ICEPROD_GUARD"  # In every payload's environment; what the guard process looks for.
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_KILL_ROUNDS_MAX: Final = (
    50  # A tree that forks faster than it is killed for so long is left to the next sample.
)


def protect_this_process() -> None:
    """Hide this process's memory, environment and descriptors from others of the same user; adopt orphans.

    Best effort: a kernel that refuses leaves the pilot working, with less protection, and the log says so.
    """
    library = ctypes.CDLL(None, use_errno=True)
    for option, value, what in (
        (_PR_SET_DUMPABLE, 0, "memory is not hidden from payloads"),
        (_PR_SET_CHILD_SUBREAPER, 1, "orphans of payloads are not adopted"),
    ):
        if library.prctl(option, value, 0, 0, 0) != 0:
            _LOG.warning("pilot less protected", what=what, errno=ctypes.get_errno())


class Guard:
    """Registers what runs; kills trees.  Thread-safe.  `close` ends the guard process without killing anything.

    `mark` is what payloads carry in `GUARD_VARIABLE`, drawn for this guard alone: pilots of two clusters may share
    a name, a user and a host, and the end of one must not reach the payloads of the other.
    """

    def __init__(self, work_dir: Path, *also_cleared: str) -> None:
        """`also_cleared` are directories that the guard process removes beside the work directory."""
        self.mark: Final = random.new_mark()
        self._lock = threading.Lock()
        self._roots: set[int] = set()  # Process ids of modules' first processes.
        # What the guard process is told with its next line, or by the next sweep: no number is used again so soon.
        self._over = ""
        self._suspects: dict[int, int] = {}
        self._spawning = 0
        self._process: subprocess.Popen[bytes] | None = None
        script = Path(__file__).with_name("guard_process.py")
        argv = [sys.executable, "-I", "-S", str(script), f"{GUARD_VARIABLE}={self.mark}", str(work_dir)]
        argv += [path for path in also_cleared if path.startswith("/")]
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={},
                cwd="/",
            )
        except OSError as fault:
            _LOG.warning("no guard process", fault=fault.strerror)

    def spawn(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Run `start` and take note of the process it gives, which must lead a session of its own."""
        with self._lock:
            self._spawning += 1
        try:
            process = start()
            with self._lock:
                self._roots.add(process.pid)
                self._tell(f"+{process.pid}\n")
            return process
        finally:
            with self._lock:
                self._spawning -= 1

    def ended(self, pid: int) -> None:
        """Forget a module's first process; what it left behind has been killed."""
        with self._lock:
            self._roots.discard(pid)
            if self._process is not None:
                self._over += f"-{pid}\n"

    def tree(self, pid: int) -> list[Process]:
        """Return the processes of the module whose first process is `pid`, itself included if it lives."""
        first = processes.read_process(pid)
        below = processes.descendants(pid)
        return [first, *below] if first else below

    def kill_tree(self, pid: int, *, known: list[Process]) -> None:
        """Kill a module's processes, among them `known` ones that have left its tree, until none is left."""
        for _ in range(_KILL_ROUNDS_MAX):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            below = processes.descendants(os.getpid())
            mine = {process.pid for process in processes.descendants(pid)}
            mine.update(process.pid for process in below if process.session == pid)
            hit = processes.kill(process for process in below if process.pid in mine)
            if not hit + processes.kill(known):
                return

    def sweep(self) -> None:
        """Reap and kill strays: children of this pilot, seen twice, that nobody registered."""
        own = os.getpid()
        with self._lock:
            if self._over:
                self._tell("")
        guard_pid = self._process.pid if self._process else 0
        below = processes.descendants(own)
        with self._lock:
            children = [
                p for p in below if p.parent == own and p.pid != guard_pid and p.pid not in self._roots
            ]
            strays = [p for p in children if self._suspects.get(p.pid) == p.started]
            # A program on a slow file system may take seconds to start, as a child that is not registered yet.
            self._suspects = {} if self._spawning else {p.pid: p.started for p in children}
            strays = [] if self._spawning else strays
        for stray in strays:
            _LOG.info("stray process killed", pid=stray.pid)
            processes.kill([stray])
            with contextlib.suppress(ChildProcessError):
                os.waitpid(stray.pid, os.WNOHANG)

    def close(self) -> None:
        """End the guard process: nothing is left for it to kill."""
        with self._lock:
            process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.write(b"end\n")
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2.0)

    def _tell(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        line, self._over = self._over + line, ""
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except OSError:
            _LOG.warning("guard process is gone")
            self._process = None
