"""Processes of this machine as Linux tells them in /proc: who lives, who belongs to which grid job, what they
use.

A process is known by its pid and its start time in clock ticks since boot: a pid alone may be somebody else's
by now.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
GONE_STATES: Final = frozenset("ZXx")  # A zombie runs no more; who reaps it is not our business.


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/<pid>/stat (proc(5)): what is needed of it."""

    pid: int
    parent: int
    session: int
    start_ticks: int
    cpu_ticks: int
    rss_bytes: int
    state: str


def parse_stat(line: str) -> Process:
    """Read a line of /proc/<pid>/stat; ValueError when it is none.  The name in it may hold spaces and
    brackets.
    """
    head, _, tail = line.rpartition(")")
    fields = tail.split()
    if len(fields) < 22:
        raise ValueError("this is no line of /proc/<pid>/stat")
    return Process(
        pid=int(head.split(" ", 1)[0]),
        parent=int(fields[1]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        cpu_ticks=sum(map(int, fields[11:15])),
        rss_bytes=int(fields[21]) * PAGE_BYTES,
        state=fields[0],
    )


def read_process(pid: int) -> Process | None:
    """Return the live process with this pid, or None: it has ended or is a zombie."""
    try:
        process = parse_stat((PROC / str(pid) / "stat").read_text(errors="replace"))
    except (OSError, ValueError):
        return None
    return None if process.state in GONE_STATES else process


def is_alive(pid: int, start_ticks: int) -> bool:
    """Return whether exactly this process lives, not another one with its old pid."""
    process = read_process(pid)
    return process is not None and process.start_ticks == start_ticks


def all_processes() -> Iterator[Process]:
    """Give every live process that may be seen, in order of pid."""
    for name in sorted((entry for entry in os.listdir(PROC) if entry.isdigit()), key=int):
        process = read_process(int(name))
        if process is not None:
            yield process


def age_s(start_ticks: int) -> float:
    """Return how long ago a process started; jumps of the wall clock do not matter."""
    uptime_s = float((PROC / "uptime").read_text().split()[0])
    return max(0.0, uptime_s - start_ticks / TICKS_PER_S)


@cache
def boot_id() -> str:
    """Return what names this boot of the machine; empty where the kernel does not tell."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Kinship:
    """Tells which grid job each process belongs to: by session, by parent, or by the mark in its environment.

    A payload may start its own sessions and lose its parents; the mark (`NAME=value` at the start of its
    program) stays.  A process' answer is remembered while it lives, so that environments are read once.
    """

    def __init__(self, variable: str) -> None:
        self._prefix = variable.encode() + b"="
        self._known: dict[tuple[int, int], str] = {}

    def members(self, leaders: dict[int, str], marks: Collection[str]) -> dict[str, list[Process]]:
        """Group the live processes by mark; `leaders` maps the pids of session leaders to marks.

        Only processes of `marks` are given; the caller itself and its other children never are.
        """
        found: dict[str, list[Process]] = {mark: [] for mark in marks}
        processes = {process.pid: process for process in all_processes()}
        known: dict[tuple[int, int], str] = {}
        for process in processes.values():
            key = (process.pid, process.start_ticks)
            if process.pid == os.getpid():
                continue
            known[key] = self._known.get(key) or leaders.get(process.session) or self._mark(process, leaders)
        self._known = known
        for process in processes.values():
            mark = self._inherited(process, processes)
            if mark in found:
                found[mark].append(process)
        return found

    def _inherited(self, process: Process, processes: dict[int, Process]) -> str:
        """Return the mark of the process or of its nearest ancestor that has one."""
        current: Process | None = process
        for _ in range(64):  # Trees are not deeper; a changing /proc could show a ring.
            if current is None or current.pid in (0, 1, os.getpid()):
                return ""
            mark = self._known.get((current.pid, current.start_ticks), "")
            if mark:
                self._known[process.pid, process.start_ticks] = mark
                return mark
            current = processes.get(current.parent)
        return ""

    def _mark(self, process: Process, leaders: dict[int, str]) -> str:
        if process.pid in leaders:
            return leaders[process.pid]
        try:
            environment = (PROC / str(process.pid) / "environ").read_bytes()
        except OSError:  # Another user's, or gone.
            return ""
        for variable in environment.split(b"\0"):
            if variable.startswith(self._prefix):
                return variable[len(self._prefix) :].decode("ascii", "replace")
        return ""


def memory_bytes(processes: Collection[Process]) -> int:
    """Return the memory of these processes with shared pages counted once for each share (PSS), or, where the
    kernel does not tell that, the sum of their resident sets.
    """
    return sum(_pss_bytes(process) for process in processes)


def _pss_bytes(process: Process) -> int:
    try:
        text = (PROC / str(process.pid) / "smaps_rollup").read_text()
    except OSError:
        return process.rss_bytes
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return process.rss_bytes


def send(processes: Collection[Process], number: signal.Signals) -> None:
    """Signal exactly these processes; one whose pid is another's by now is left alone."""
    for process in processes:
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        except OSError:  # A kernel before 5.3: a pid would have to be reused within microseconds.
            if is_alive(process.pid, process.start_ticks):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, number)
            continue
        try:
            # The handle holds on to whoever has the pid now; when that is the one meant, it stays the one.
            if is_alive(process.pid, process.start_ticks):
                with suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
