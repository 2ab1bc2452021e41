"""The processes of this machine as /proc shows them: who descends from whom, what they use, and how to end them.

Linux only.  A process is named by id and start time together, because ids are used again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment.  `started` is in clock ticks since boot."""

    pid: int
    parent: int
    session: int
    started: int
    state: str
    cpu_ms: int
    resident_bytes: int


def read_process(pid: int) -> Process | None:
    """Return one process; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The command's name may hold anything, parentheses and spaces included: fields begin after the last one.
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 22:
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        state=fields[0].decode("ascii", "replace"),
        cpu_ms=(int(fields[11]) + int(fields[12])) * 1_000 // _TICKS_PER_S,
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
    )


def all_processes() -> list[Process]:
    """Return every process that can be seen."""
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def descendants(pid: int) -> list[Process]:
    """Return everything below `pid`, without itself; parents before their children.

    Cost: the tree alone, where the kernel lists children; else every process of the machine.
    """
    found: list[Process] = []
    seen = {pid}
    front = [pid]
    while front:
        parent = front.pop()
        children = _children(parent)
        if children is None:
            return _descendants_by_scan(pid)
        for child in children:
            process = read_process(child) if child not in seen else None
            if process is not None:
                seen.add(child)
                found.append(process)
                front.append(child)
    return found


def _children(pid: int) -> list[int] | None:
    """Return the children of a process, none when it is gone; None when this kernel does not list children."""
    children: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children.extend(int(word) for word in file.read().split())
        except FileNotFoundError:
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return None
        except OSError:
            continue
    return children


def _descendants_by_scan(pid: int) -> list[Process]:
    by_parent: dict[int, list[Process]] = {}
    for process in all_processes():
        by_parent.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    front = [pid]
    while front:
        below = by_parent.pop(front.pop(), [])
        found.extend(below)
        front.extend(process.pid for process in below)
    return found


def is_same(process: Process) -> bool:
    """Return whether the process still lives (a zombie does not)."""
    now = read_process(process.pid)
    return now is not None and now.started == process.started and now.state not in "ZX"


def kill(processes: Iterable[Process]) -> int:
    """Send SIGKILL to each that is still the one meant; return to how many."""
    sent = 0
    for process in processes:
        if is_same(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)
                sent += 1
    return sent


def resident_peak_mib(pid: int) -> int:
    """Return the largest resident size that `pid` itself has had, in MiB; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) // 1_024
    except OSError:
        pass
    return 0
