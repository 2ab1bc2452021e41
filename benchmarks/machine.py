"""What machine this is: without it a number says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from benchmarks.numbers import median


def describe(directory: Path) -> list[str]:
    """Return the machine in a few lines; `directory` is where the stores of the run lie."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return [
        f"- {_processor()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {platform.release()};"
        f" load when the run began: {load:.1f}",
        f"- stores on {_file_system(directory)}; one write of 4 KiB and fdatasync: {_fdatasync_ms(directory):.2f} ms",
        f"- Python {platform.python_version()}, grpcio {version('grpcio')}, lmdb {version('lmdb')},"
        f" pysyncobj {version('pysyncobj')}, msgspec {version('msgspec')}",
        f"- {time.strftime('%Y-%m-%d')}",
    ]


def anonymous_bytes(pid: int | str = "self") -> int:
    """Return the anonymous memory (RssAnon) of a process: what the page cache cannot take back."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1_024
    return 0


def environment() -> Mapping[str, str]:
    """Return the environment of child processes: this repository first, no proxies between loopback ports."""
    root = str(Path(__file__).resolve().parent.parent)
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}


def python() -> str:
    """Return the interpreter for child processes."""
    return sys.executable


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "an unknown file system"


def _fdatasync_ms(directory: Path) -> float:
    path = directory / "fdatasync"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(64):
            began_s = time.perf_counter()
            file.write(bytes(4_096))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began_s) * 1e3)
    path.unlink()
    return median(times)
