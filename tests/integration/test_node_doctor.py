"""What a node says of its own health, and the unit that a supervisor runs it by."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.node_processes import NodeProcess, leads, wait_for


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path / "madison", "madison")
    assert node.command("init").returncode == 0
    yield node
    node.end()


def findings(node: NodeProcess, *, code: int = 0) -> list[dict[str, Any]]:
    done = node.command("doctor", "--json")
    assert done.returncode == code, (done.stdout, done.stderr)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def clocks_of(node: NodeProcess) -> list[dict[str, Any]]:
    """What the doctor says of clocks: nothing while the other node has not answered."""
    return [finding for finding in findings(node) if finding["what"] == "clocks"]


def bad(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [finding for finding in found if finding["verdict"] == "BAD"]


def test_a_sound_node_is_found_sound_before_it_starts_and_while_it_runs(node: NodeProcess) -> None:
    stopped = findings(node)
    assert {finding["what"] for finding in stopped} >= {
        "files",
        "certificates",
        "disk",
        "ports",
        "batch system",
    }
    assert any("is free" in finding["words"] for finding in stopped if finding["what"] == "ports")
    node.start()
    with node.connect() as connection:
        wait_for("it leads", lambda: leads(connection))
    assert all("answers" in finding["words"] for finding in findings(node) if finding["what"] == "ports")
    assert "ok    certificates: this node: 89 days left" in node.command("doctor").stdout.replace(
        "90 days", "89 days"
    )


def test_the_clocks_of_two_nodes_are_compared(node: NodeProcess, tmp_path: Path) -> None:
    other = NodeProcess(tmp_path / "geneva", "geneva")
    try:
        node.start()
        with node.connect() as connection:
            wait_for("it leads", lambda: leads(connection))
        assert other.command("join", node.command("invite", "geneva").stdout.split()[-1]).returncode == 0
        silent = [finding for finding in findings(node) if finding["what"] == "peers"]
        assert [(finding["verdict"], "geneva-1" in finding["words"]) for finding in silent] == [
            ("warn", True)
        ]
        other.start()
        with other.connect(node) as connection:
            wait_for("it knows the leader", lambda: leads(connection))
        for asked, about in ((node, "geneva-1"), (other, "madison-1")):
            clocks = wait_for("the other one answers", lambda asked=asked: clocks_of(asked))
            assert [finding["verdict"] for finding in clocks] == ["ok"]
            assert f"the clock of {about} differs by" in clocks[0]["words"]
    finally:
        other.end()


def test_each_fault_is_named_with_what_to_do_and_the_others_are_still_looked_for(node: NodeProcess) -> None:
    key = node.data / "keys" / "node.key"
    key.chmod(0o644)
    (node.data / "authority").chmod(0o755)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.ports[0]))
        taken.listen()
        found = bad(findings(node, code=1))
    assert {
        "what": "files",
        "verdict": "BAD",
        "words": f"{key} has mode 0644",
        "remedy": f"chmod 600 {key}",
    } in found
    remedies = {finding["remedy"] for finding in found}
    assert f"chmod 700 {node.data / 'authority'}" in remedies
    assert any(f"cannot listen on {node.address}" in finding["words"] for finding in found)
    lines = node.command("doctor").stdout.splitlines()
    assert any(line.startswith("BAD   files: ") for line in lines)
    (node.data / "keys" / "node.pem").unlink()
    key.chmod(0o600)
    assert "belongs to no cluster" in str(bad(findings(node, code=1)))


def test_the_unit_runs_this_configuration_without_privileges_and_leaves_local_pilots_alone(
    node: NodeProcess,
) -> None:
    unit = node.command("systemd-unit", "--user", "iceprod").stdout
    lines = unit.splitlines()
    assert f"--config {node.config}" in unit
    for line in (
        "User=iceprod",
        "KillMode=process",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "UMask=0077",
        "SystemCallFilter=@system-service @mount",
    ):
        assert line in lines
    writable = next(line for line in lines if line.startswith("ReadWritePaths="))
    assert str(node.data) in writable.split("=")[1].split()
    node.config.write_text(node.text().replace('plugin = "local"', 'plugin = "slurm"'))
    elsewhere = node.command("systemd-unit").stdout.splitlines()
    assert {"KillMode=mixed", "RestrictNamespaces=yes", "SystemCallFilter=@system-service"} <= set(elsewhere)
    refused = node.command("systemd-unit", "--user", "root; reboot")
    assert refused.returncode == 2 and "cannot stand in a unit file" in refused.stderr
