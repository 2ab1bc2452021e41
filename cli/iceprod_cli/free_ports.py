"""Ports for servers of this machine that shall know them before they start, and keep them when they start again."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Final

from iceprod_p2p.security.random import Jitter

LEAST: Final = 15_000  # Below are the ports of services that people know by number.
ROOM_LEAST: Final = 2_000
RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: Final[dict[int, socket.socket | None]] = {}  # And what says so to other processes.


def free_ports(count: int) -> list[int]:
    """Return so many ports of 127.0.0.1 on which nobody listens now.

    None is given twice in one process, nor, on Linux, to two processes that live at once: what was given is often
    listened on only a while later.
    They lie below those that the system gives to every outgoing connection and to whoever asks for any port:
    one of those would be taken now and then while its owner is not there yet, or starts again.
    """
    found: list[int] = []
    while len(found) < count:
        port = _candidate()
        if port not in _given and _is_free(port) and _claim(port):
            found.append(port)
    return found


def _candidate() -> int:
    end = _systems_first()
    if (
        end - LEAST < ROOM_LEAST
    ):  # The system gives away nearly everything: its own choice is as good as ours.
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    return LEAST + int(Jitter().random() * (end - LEAST))


def _systems_first() -> int:
    """Return the first port that the system gives away by itself."""
    try:
        return int(RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768  # Linux as it comes; others begin higher.


def _claim(port: int) -> bool:
    """Keep a port for this process while it lives; false when another process does.

    By a name that the kernel forgets with the process (unix(7), abstract sockets).
    """
    if sys.platform != "linux":
        _given[port] = None
        return True
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0iceprod-port-{port}")
    except OSError:
        claim.close()
        return False
    _given[port] = claim
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
