"""The local grid's supervisor: one process per spool that starts queued grid jobs, keeps their limits, notes
ends.

    python -m iceprod_p2p.grids.local_supervisor <spool>

The plugin starts it when needed, in a session of its own, and it does not depend on the node: queued grid
jobs start and limits hold while the node is down.  It ends some seconds after the last grid job.  When it is
killed, the grid jobs go on and their shells write the exit codes; the next plugin call starts another one,
which knows the running ones by pid and start time; only starts and limits rest in between.  A job starts at
most once, whatever dies when: its shell creates `running` exclusively (see `local_spool`).
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Final

from iceprod_p2p.base.clock import Clock, SystemClock, utc_iso
from iceprod_p2p.grids.local_spool import Spool, SpoolOptions
from iceprod_p2p.grids.local_watch import Supervisor

LOCK_PATIENCE_S: Final = 10.0


def supervise(spool: Spool, options: SpoolOptions, clock: Clock) -> None:
    """Work until there has been nothing to do for `linger_s` seconds.

    Before it ends it closes the FIFO and looks again: a submission either finds no reader and starts a
    supervisor, or was on disk before that look.
    """
    supervisor = Supervisor(spool, options, clock)
    bell, ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    while True:
        wake = os.open(spool.wake, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        idle_until_s = clock.monotonic_s() + options.linger_s
        while clock.monotonic_s() < idle_until_s:
            try:
                supervisor.turn()
            except OSError as broken:  # A full disk: all is read again from the spool at the next turn.
                sys.stderr.write(f"{utc_iso(clock.wall_ms())} {spool.root}: {broken}\n")
                time.sleep(supervisor.options.interval_s)
            if not supervisor.idle:
                idle_until_s = clock.monotonic_s() + supervisor.options.linger_s
            ready, _, _ = select.select([wake, bell], [], [], min(supervisor.options.interval_s, 1.0))
            for source in ready:
                os.read(source, 65_536)
        os.close(wake)
        supervisor.turn()
        if supervisor.idle:
            return


def main(arguments: list[str]) -> int:
    """Supervise one spool; 0 when it is done or another supervisor is at work there."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m iceprod_p2p.grids.local_supervisor SPOOL\n")
        return 2
    spool = Spool(Path(arguments[0]))
    clock = SystemClock()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with open(spool.lock, "a") as lock:
        patience_until_s = clock.monotonic_s() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if _is_listening(spool) or clock.monotonic_s() > patience_until_s:
                    return 0
                time.sleep(0.05)
        options = spool.read_options()
        if options is None:
            sys.stderr.write(f"{spool.root}: options.json is missing or of another version\n")
            return 1
        supervise(spool, options, clock)
    return 0


def _is_listening(spool: Spool) -> bool:
    """Return whether the holder of the lock reads the FIFO: then nothing is left to do here."""
    try:
        os.close(os.open(spool.wake, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
