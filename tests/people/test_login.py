"""People of a directory and holders of tokens log in at a real node, with the roles that their groups give."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.security.certificates import chain_from_pem, fingerprint
from tests.integration.command_line import CommandLine
from tests.integration.node_processes import COMMAND_S, NodeProcess, leads, wait_for
from tests.people.directory_system import PASSWORD, SUFFIX, DirectorySystem
from tests.people.issuer import AUDIENCE, Issuer


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    running = Issuer(tmp_path_factory.mktemp("issuer"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def node(
    directory_system: DirectorySystem, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path_factory.mktemp("people") / "madison", "madison")
    node.config.write_text(
        f"""{node.text()}
[directory]
url = "{directory_system.url}"
ca_file = "{directory_system.ca_file}"
user_dn = "uid={{name}},ou=people,{SUFFIX}"
group_base = "ou=groups,{SUFFIX}"
[directory.roles]
simprod = "production"
operators = "operator"
[tokens]
issuer = "{issuer.url}"
audience = "{AUDIENCE}"
ca_file = "{issuer.ca_file}"
[tokens.roles]
simprod = "production"
"""
    )
    try:
        assert node.command("init").returncode == 0
        node.start()
        with node.connect() as connection:
            wait_for("it leads", lambda: leads(connection))
        yield node
    finally:
        node.end()


def login(
    node: NodeProcess, home: Path, name: str, *arguments: str, said: str
) -> subprocess.CompletedProcess[str]:
    """Run `iceprod login` for the first time at a machine."""
    root = chain_from_pem((node.data / "keys" / "root.pem").read_bytes())[0]
    where = (f"{name}@127.0.0.1:{node.ports[1]}", "--fingerprint", fingerprint(root))
    return subprocess.run(
        [sys.executable, "-m", "iceprod_cli.main", "login", *where, *arguments],
        input=said + "\n",
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        env={**os.environ, "ICEPROD_CONFIG": str(home)},
    )


def test_a_person_of_the_directory_has_the_role_of_the_group_and_loses_it_with_the_membership(
    node: NodeProcess, directory_system: DirectorySystem, tmp_path: Path
) -> None:
    done = login(node, tmp_path, "mary", "--password-stdin", said=PASSWORD)
    assert done.returncode == 0 and "role operator" in done.stdout, done.stderr
    whoami = CommandLine(tmp_path)("whoami", "-o", "json").document
    assert (whoami["name"], whoami["role"]) == ("mary", "operator")
    assert CommandLine(tmp_path)("audit", "--limit", "1").code == 0
    for name, password, why in (
        ("mary", "wrong horse battery", "wrong name or password"),
        ("mary", "", "wrong name or password"),
        ("nobody", PASSWORD, "wrong name or password"),
        ("ann", PASSWORD, "in no group that has a role here"),
    ):
        refused = login(node, tmp_path / "other", name, "--password-stdin", said=password)
        assert refused.returncode == 4 and why in refused.stderr, refused
        assert "Traceback" not in refused.stderr
    directory_system.stop()
    try:
        away = login(node, tmp_path / "other", "mary", "--password-stdin", said=PASSWORD)
        assert away.returncode == 5 and "directory server cannot be asked" in away.stderr, away
        assert CommandLine(tmp_path)("dataset", "list").code == 0, "who is in stays in"
    finally:
        directory_system.start()
    log = node.log()
    assert PASSWORD not in log and "login refused" in log and "login cannot be checked" in log


def test_the_founders_accounts_go_before_the_directory(node: NodeProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "iceprod_p2p.daemon", "account", "add", "paul", "--password-stdin"]
    subprocess.run(
        [*command, "--config", str(node.config)],
        input="another password\n",
        text=True,
        timeout=COMMAND_S,
        check=True,
    )
    assert login(node, tmp_path, "paul", "--password-stdin", said=PASSWORD).returncode == 4
    done = login(node, tmp_path, "paul", "--password-stdin", said="another password")
    assert done.returncode == 0 and "no role yet" in done.stdout, done.stderr


def test_a_token_opens_the_door_for_its_own_subject_alone(
    node: NodeProcess, issuer: Issuer, tmp_path: Path
) -> None:
    token = issuer.token(sub="grace")
    done = login(node, tmp_path, "grace", "--token-file", "-", said=token)
    assert done.returncode == 0 and "role production" in done.stdout, done.stderr
    assert CommandLine(tmp_path)("whoami", "-o", "json").document["role"] == "production"
    stolen = login(node, tmp_path / "other", "admin", "--token-file", "-", said=token)
    assert stolen.returncode == 4 and "the token is of grace, not of admin" in stolen.stderr, stolen
    late = login(
        node, tmp_path / "other", "grace", "--token-file", "-", said=issuer.token(sub="grace", exp=1)
    )
    assert late.returncode == 4 and "expired" in late.stderr, late
    assert token not in node.log()
