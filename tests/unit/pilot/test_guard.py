"""When a pilot dies, however it dies, nothing that it started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from iceprod_pilot import processes

PILOT = """
import subprocess, sys, time
from pathlib import Path
from iceprod_pilot.guard import GUARD_VARIABLE, Guard, protect_this_process
protect_this_process()
here = Path(sys.argv[1])
guard = Guard(here / "work")
start = ["sh", "-c", f"echo $$ > {here}/first; setsid sh -c 'echo $$ > {here}/second; sleep 240' & sleep 240"]
env = {GUARD_VARIABLE: guard.mark, "ICEPROD_PILOT": "p", "PATH": "/usr/bin:/bin"}
guard.spawn(lambda: subprocess.Popen(start, env=env, start_new_session=True))
print("started", flush=True)
time.sleep(240)
"""


def wait_until(true: object, what: str) -> None:
    end_s = time.monotonic() + 120
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end_s, what
        time.sleep(0.02)


def gone(pid: int) -> bool:
    process = processes.read_process(pid)
    return process is None or process.state in "ZX"


def start(here: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start a pilot in `here`; return it and its payload's processes, one in a session of its own."""
    (here / "work").mkdir(parents=True)
    pilot = subprocess.Popen([sys.executable, "-c", PILOT, str(here)], stdout=subprocess.PIPE)
    assert pilot.stdout is not None and pilot.stdout.readline() == b"started\n"
    wait_until(lambda: (here / "second").exists() and (here / "second").read_text(), "no payload started")
    payload = [int((here / name).read_text()) for name in ("first", "second")]
    assert not any(gone(pid) for pid in payload)
    return pilot, payload


def test_the_end_of_a_pilot_does_not_reach_another_of_its_name(tmp_path: Path) -> None:
    one, ones = start(tmp_path / "one")
    other, others = start(tmp_path / "other")
    try:
        one.kill()
        one.wait()
        wait_until(lambda: all(gone(pid) for pid in ones), "payload processes outlived their pilot")
        wait_until(lambda: not (tmp_path / "one" / "work").exists(), "the guard did not finish")
        assert not any(gone(pid) for pid in others)
    finally:
        other.kill()
        other.wait()
    wait_until(lambda: all(gone(pid) for pid in others), "payload processes outlived their pilot")


def test_a_killed_pilot_takes_its_payloads_and_its_directory_along(tmp_path: Path) -> None:
    pilot, payload = start(tmp_path)
    os.kill(pilot.pid, signal.SIGKILL)
    pilot.wait()
    wait_until(lambda: all(gone(pid) for pid in payload), "payload processes outlived their pilot")
    wait_until(lambda: not (tmp_path / "work").exists(), "the work directory was not cleared")


def test_others_of_the_same_user_cannot_look_into_a_pilot(tmp_path: Path) -> None:
    code = (
        "import ctypes, sys, time\n"
        "from iceprod_pilot.guard import protect_this_process\n"
        "protect_this_process()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), ctypes.c_int.in_dll(ctypes.CDLL(None), 'errno').value"
        " if False else '', flush=True)\n"
        "time.sleep(240)\n"
    )
    pilot = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert pilot.stdout is not None and pilot.stdout.readline().strip() == b"0"  # PR_GET_DUMPABLE
        # The kernel gives the files of a process that may not be dumped to root, whoever runs it.
        assert os.stat(f"/proc/{pilot.pid}/environ").st_uid == 0
    finally:
        pilot.kill()
        pilot.wait()
