"""The cluster's root key behind a passphrase: the node runs without it, and admits sites only with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.node_processes import NodeProcess, leads, run_command, wait_for

PASSPHRASE = "seven words that nobody else would say"
VARIABLE = "ICEPROD_ROOT_PASSPHRASE_FILE"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path / "madison", "madison")
    yield node
    node.end()


def test_an_encrypted_root_admits_sites_only_while_it_is_unlocked(
    node: NodeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o644)
    refused = node.command("init", "--root-passphrase-file", str(secret))
    assert refused.returncode == 2 and "chmod 600" in refused.stderr
    assert not node.data.exists()
    secret.chmod(0o600)
    assert node.command("init", "--root-passphrase-file", str(secret)).returncode == 0
    assert b"ENCRYPTED" in (node.data / "authority" / "root.key").read_bytes()
    node.start()
    with node.connect() as connection:
        wait_for("it leads", lambda: leads(connection))
    locked = node.command("invite", "geneva")
    assert locked.returncode == 5 and f"start the node with {VARIABLE}" in locked.stderr
    assert node.stop() == 0

    monkeypatch.setenv(VARIABLE, str(secret))
    node.start()
    with node.connect() as connection:
        wait_for("it leads", lambda: leads(connection))
    line = node.command("invite", "geneva").stdout.split()[-1]
    other = tmp_path / "geneva"
    other.mkdir()
    joined = run_command(
        "join", line, "--data-dir", str(other / "data"), "--config", str(other / "site.toml")
    )
    assert joined.returncode == 0, joined.stderr
    assert PASSPHRASE not in node.log()


def test_a_wrong_passphrase_starts_nothing(
    node: NodeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "passphrase"
    for text, code in (("short\n", 2), (PASSPHRASE, 0)):
        with open(secret, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
        assert node.command("init", "--root-passphrase-file", str(secret)).returncode == code
    secret.write_text("another passphrase\n")
    monkeypatch.setenv(VARIABLE, str(secret))
    refused = node.command("start", "--foreground")
    assert refused.returncode == 2 and "passphrase is wrong" in refused.stderr
