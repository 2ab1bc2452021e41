"""Ports for servers that are started later, and again."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from iceprod_cli import free_ports as module
from iceprod_cli.free_ports import free_ports


def test_ports_are_free_different_and_never_those_that_the_system_gives_to_others() -> None:
    ports = free_ports(20) + free_ports(20)
    assert len(set(ports)) == 40
    with socket.create_server(("127.0.0.1", 0)) as anybody:
        assert max(ports) < anybody.getsockname()[1]
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


def forget(*ports: int) -> None:
    """Let this process be given them again."""
    for port in ports:
        claim = module._given.pop(port)
        assert claim is not None
        claim.close()


def test_a_port_that_was_given_to_another_process_is_not_given_while_that_one_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, free = free_ports(2)
    forget(given, free)
    program = f"""\
import sys
from iceprod_cli import free_ports
print(free_ports._claim({given}), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "True\n"
        candidates = iter((given, given, free))
        monkeypatch.setattr(module, "_candidate", lambda: next(candidates))
        assert free_ports(1) == [free]
        other.stdin.close()
        other.wait(60)
    candidates = iter((given,))
    assert free_ports(1) == [given]


def test_a_port_that_somebody_has_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_ports(2)
    forget(taken, free)
    candidates = iter((taken, taken, free))
    monkeypatch.setattr(module, "_candidate", lambda: next(candidates))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_ports(1) == [free]


def test_a_system_that_gives_nearly_all_ports_away_chooses_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "range").write_text("1024\t65535\n")
    monkeypatch.setattr(module, "RANGE", tmp_path / "range")
    assert len(set(free_ports(3))) == 3
