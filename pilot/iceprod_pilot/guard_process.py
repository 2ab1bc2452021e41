"""The guard process: waits until its pilot is gone, kills what the pilot had started, clears its work directory.

Run as ``python -I -S guard_process.py NAME=VALUE DIRECTORY...`` with a pipe as standard input, on which the pilot says
``+PID`` and ``-PID`` for the sessions of its modules, and ``end`` when there is nothing left to do.  It imports the
standard library alone, so that it starts at once and holds little memory.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

ROUNDS_MAX = 100
PAUSE_S = 0.05


def main() -> int:
    """Wait for the end of standard input, then kill; returns 0."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    marker, directories = sys.argv[1].encode(), sys.argv[2:]
    sessions: set[int] = set()
    for line in sys.stdin:
        word = line.strip()
        if word == "end":
            return 0
        if word[1:].isdigit():
            (sessions.add if word[0] == "+" else sessions.discard)(int(word[1:]))
    for _ in range(ROUNDS_MAX):
        if not kill_all(marker, sessions):
            break
        time.sleep(PAUSE_S)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(sys.argv[2]))  # The pilot's work directory, when nothing else is in it.
    return 0


def kill_all(marker: bytes, sessions: set[int]) -> int:
    """Send SIGKILL to every process of these sessions or with this variable in its environment; return how many."""
    hit = 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            if is_ours(int(name), marker, sessions):
                os.kill(int(name), signal.SIGKILL)
                hit += 1
        except (OSError, ValueError):
            continue  # It has just ended, or belongs to somebody else.
    return hit


def is_ours(pid: int, marker: bytes, sessions: set[int]) -> bool:
    """Return whether a process that still runs was started for a task of the pilot."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    fields = text[text.rfind(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return False
    if int(fields[3]) in sessions:
        return True
    with open(f"/proc/{pid}/environ", "rb") as file:
        return marker in file.read().split(b"\0")


if __name__ == "__main__":
    raise SystemExit(main())
