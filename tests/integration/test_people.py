"""People over real nodes: they log in with a password, do what their role lets them, and are shut out
everywhere within seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import NotAllowed
from iceprod_p2p.client.contexts import load_context
from iceprod_p2p.security.certificates import chain_from_pem, expires_ms
from iceprod_p2p.security.identity import identity_of
from tests.integration.command_line import CommandLine, Said
from tests.integration.node_processes import COMMAND_S, ROOT, NodeProcess, leads, status_of, wait_for

HELLO = str(ROOT / "examples" / "hello" / "hello.yaml")
PASSWORD = "correct horse battery"
REVOKED_WITHIN_S = 10.0
ROLES = ("viewer", "production", "operator", "administrator")


@dataclass
class Cluster:
    """A founder, a joined node, and people with a configuration directory each."""

    founder: NodeProcess
    other: NodeProcess
    directory: Path

    def admin(self, *arguments: str, code: int = 0) -> Said:
        """Run `iceprod` as the first administrator."""
        return CommandLine(self.directory / "admin", f"{self.founder.data / 'admin'}/")(*arguments, code=code)

    def account(self, name: str, password: str = PASSWORD) -> str:
        """Make an account and return the arguments of the login line that was printed."""
        command = [sys.executable, "-m", "iceprod_p2p.daemon", "account", "add", name, "--password-stdin"]
        done = subprocess.run(
            [*command, "--config", str(self.founder.config)],
            input=password + "\n",
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=True,
        )
        return done.stdout.partition("iceprod login ")[2].strip()

    def login(self, name: str, *arguments: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        """Run `iceprod login ARGUMENTS` as a process."""
        return subprocess.run(
            [sys.executable, "-m", "iceprod_cli.main", "login", "--password-stdin", *arguments],
            input=password + "\n",
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(self.directory),
                "ICEPROD_CONFIG": str(self.home(name)),
            },
        )

    def home(self, name: str) -> Path:
        """The configuration directory of a person."""
        return self.directory / name

    def person(self, name: str, node: str = "") -> CommandLine:
        """`iceprod` as a person who has logged in."""
        return CommandLine(self.home(name), node=node)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("people")
    founder, other = (
        NodeProcess(directory / "madison", "madison"),
        NodeProcess(directory / "geneva", "geneva"),
    )
    try:
        assert founder.command("init").returncode == 0
        founder.start()
        with founder.connect() as connection:
            wait_for("the founder leads", lambda: leads(connection))
        line = founder.command("invite", "geneva").stdout.split()[-1]
        joined = other.command("join", line)
        assert joined.returncode == 0, joined.stderr
        other.start()
        wait_for("the newcomer serves", lambda: "node started" in other.log())
        with founder.connect() as connection:
            wait_for(
                "the newcomer follows",
                lambda: all(row.reachable and row.applied_index for row in status_of(connection).members),
            )
        yield Cluster(founder, other, directory)
    finally:
        founder.end()
        other.end()


def test_a_person_logs_in_with_a_key_made_here_and_again_without_the_address(cluster: Cluster) -> None:
    line = cluster.account("paul")
    assert line.startswith(f"paul@127.0.0.1:{cluster.founder.ports[1]} --fingerprint ")
    done = cluster.login("paul", *line.split())
    assert done.returncode == 0, done.stderr
    assert "logged in as paul on cluster demo for 12h00m, no role yet" in done.stdout
    directory = cluster.home("paul") / "contexts" / "demo"
    assert {path.stat().st_mode & 0o077 for path in directory.iterdir()} == {0}
    context = load_context(f"{directory}/")
    certificate = chain_from_pem(context.tls.certificate_chain_pem)[0]
    assert identity_of(certificate).uri == "iceprod://people.demo/paul"
    assert 11.9 < (expires_ms(certificate) / 1_000 - time.time()) / 3_600 <= 12
    assert {node.site for node in context.nodes} == {"madison", "geneva"}
    assert cluster.person("paul")("whoami", "-o", "json").document["name"] == "paul"
    assert "no role" in cluster.person("paul")("dataset", "list", code=4).error()

    cluster.admin("person", "add", "paul", "production", "--group", "simprod")
    again = cluster.login("paul")
    assert again.returncode == 0 and "role production" in again.stdout, again.stderr
    assert load_context(f"{directory}/").tls.private_key_pem != context.tls.private_key_pem
    cluster.person("paul")("logout")
    assert not directory.exists()


def test_who_does_not_know_the_password_or_the_root_gets_nothing(cluster: Cluster) -> None:
    line = cluster.account("eve").split()
    for password in ("", "wrong horse battery", PASSWORD.upper(), "x" * 1_500):
        done = cluster.login("eve", *line, password=password)
        assert (done.returncode, done.stdout) == (4, "")
        assert "wrong name or password" in done.stderr and "Traceback" not in done.stderr
    unknown = cluster.login("eve", f"nobody@{line[0].partition('@')[2]}", *line[1:])
    assert unknown.returncode == 4 and "wrong name or password" in unknown.stderr
    strange = cluster.login("eve", line[0], "--fingerprint", "0" * 64)
    assert strange.returncode == 4 and "another cluster" in strange.stderr
    bare = cluster.login("eve", "eve")
    assert bare.returncode == 3 and "--fingerprint" in bare.stderr
    assert not (cluster.home("eve") / "contexts").exists()


def test_five_wrong_passwords_in_a_row_bring_a_pause_for_that_name_alone(cluster: Cluster) -> None:
    line, other = cluster.account("mallory").split(), cluster.account("olga").split()
    for _ in range(5):
        assert "wrong name" in cluster.login("mallory", *line, password="guessed password").stderr
    assert "in a row" in cluster.login("mallory", *line).stderr
    assert cluster.login("olga", *other).returncode == 0


def test_a_login_begun_at_a_node_that_does_not_vouch_for_people_ends_at_the_one_that_does(
    cluster: Cluster,
) -> None:
    fingerprint = cluster.account("grace").split()[-1]
    done = cluster.login("grace", f"grace@127.0.0.1:{cluster.other.ports[1]}", "--fingerprint", fingerprint)
    assert done.returncode == 0 and "logged in as grace" in done.stdout, done.stderr
    refused = subprocess.run(
        [
            sys.executable,
            "-m",
            "iceprod_p2p.daemon",
            "account",
            "list",
            "--config",
            str(cluster.other.config),
        ],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert refused.returncode == 2 and "does not vouch for people" in refused.stderr


# What needs which role, as a person would type it; each works from that role on, and is refused before it.
BOUNDARIES = (
    ("viewer", ("dataset", "list")),
    ("viewer", ("cluster", "status", "-o", "json")),
    ("viewer", ("person", "list")),
    ("production", ("submit", HELLO, "--jobs", "1")),
    ("operator", ("audit", "--limit", "1")),
    ("operator", ("site", "resume", "geneva")),
    ("operator", ("cluster", "check")),
    ("administrator", ("cluster", "invite", "utrecht")),
    ("administrator", ("person", "role", "boundary-viewer", "viewer")),
    ("administrator", ("person", "revoke", "nobody-at-all", "--yes")),
)


def test_each_role_may_do_its_own_and_what_is_before_it_on_every_node(cluster: Cluster) -> None:
    for role in ROLES:
        name = f"boundary-{role}"
        line = cluster.account(name).split()
        cluster.admin("person", "add", name, role)
        assert cluster.login(name, *line).returncode == 0
    for role in ROLES:
        for needed, words in BOUNDARIES:
            allowed = ROLES.index(role) >= ROLES.index(needed)
            # Only the founder's node invites and revokes; a refusal comes from any.
            node = "" if allowed and words[0] in ("cluster", "person") else "geneva"
            code = (3 if "revoke" in words else 0) if allowed else 4
            said = cluster.person(f"boundary-{role}", node)(*words, code=code)
            if not allowed:
                assert f"needs the role {needed}" in said.error(), (role, words)


def test_production_works_on_its_own_and_its_groups_datasets_alone(cluster: Cluster) -> None:
    for name, role, group in (
        ("ann", "production", "g1"),
        ("bob", "production", "g1"),
        ("cid", "production", "g2"),
    ):
        line = cluster.account(name).split()
        cluster.admin("person", "add", name, role, "--group", group)
        assert cluster.login(name, *line).returncode == 0
    # No site may run it, so that it is not over before it is suspended.
    submission = ("submit", HELLO, "--jobs", "1", "--name", "ann-alone", "--exclude", "madison,geneva")
    cluster.person("ann")(*submission)
    cluster.person("ann")("dataset", "suspend", "ann-alone")
    assert "belongs to ann" in cluster.person("cid")("dataset", "resume", "ann-alone", code=4).error()
    cluster.admin("person", "role", "cid", "operator")
    cluster.person("cid")("dataset", "resume", "ann-alone")


def test_a_removed_person_is_out_on_every_node_within_ten_seconds_and_stays_out(cluster: Cluster) -> None:
    name = _new("trudy")
    line = cluster.account(name).split()
    cluster.admin("person", "add", name, "operator")
    for _ in range(2):  # Two certificates, on two machines.
        assert cluster.login(name, *line).returncode == 0
    nodes = ("madison", "geneva")
    for node in nodes:
        cluster.person(name, node)("site", "list")
    cluster.person(name)("submit", HELLO, "--jobs", "1", "--name", f"of-{name}")
    said = cluster.admin("person", "remove", name, "--reason", "left", "--yes")
    assert f"every certificate of {name} is refused" in said.stdout
    began_s = time.monotonic()
    for node in nodes:
        wait_for(
            f"{node} refuses",
            lambda node=node: "revoked" in _tried(cluster, name, node),
            timeout_s=REVOKED_WITHIN_S,
        )
    assert time.monotonic() - began_s < REVOKED_WITHIN_S
    assert cluster.login(name, *line).returncode == 4
    wait_for("the account is gone", lambda: name not in cluster.founder.command("account", "list").stdout)
    audit = cluster.admin("audit", "--limit", "500", "-o", "json").document
    removals = [row["actor"] for row in audit if row["what"].startswith(f"RemovePerson name={name} ")]
    assert removals == ["person:admin"]


def test_datasets_of_who_left_stay_theirs_until_they_are_given_away(cluster: Cluster) -> None:
    name = _new("walter")
    line = cluster.account(name).split()
    cluster.admin("person", "add", name, "production")
    assert cluster.login(name, *line).returncode == 0
    dataset = f"of-{name}"
    cluster.person(name)("submit", HELLO, "--jobs", "1", "--name", dataset)
    cluster.admin("person", "remove", name, "--yes")
    assert cluster.admin("dataset", "show", dataset, "-o", "json").document["owner"] == name
    assert "no person" in cluster.admin("dataset", "set", dataset, "--owner", "zoe", code=3).error()
    cluster.admin("dataset", "set", dataset, "--owner", "admin")
    assert cluster.admin("dataset", "show", dataset, "-o", "json").document["owner"] == "admin"


def test_who_is_let_in_again_needs_a_certificate_made_since(cluster: Cluster) -> None:
    name = _new("victor")
    line = cluster.account(name).split()
    cluster.admin("person", "add", name, "viewer")
    assert cluster.login(name, *line).returncode == 0
    cluster.admin("person", "remove", name, "--yes")
    wait_for("victor is out", lambda: "revoked" in _tried(cluster, name, "geneva"))
    wait_for("the account is gone", lambda: name not in cluster.founder.command("account", "list").stdout)
    cluster.admin("person", "add", name, "viewer")
    wait_for("and known again", lambda: "log in again" in _tried(cluster, name, "madison"))
    time.sleep(1.1)  # Certificates count in seconds.
    line = cluster.account(name).split()
    assert cluster.login(name, *line).returncode == 0
    cluster.person(name)("site", "list")


def test_the_last_administrator_cannot_be_made_less_nor_revoke_themselves(cluster: Cluster) -> None:
    name = _new("peter")
    cluster.admin("person", "add", name, "production")
    people = {row["name"]: row["role"] for row in cluster.admin("person", "list", "-o", "json").document}
    for other, role in people.items():
        if role == "administrator" and other != "admin":
            cluster.admin("person", "role", other, "viewer")
    admin = CommandLine(cluster.directory / "admin", f"{cluster.founder.data / 'admin'}/")
    assert "only administrator" in admin("person", "role", "admin", "viewer", code=1).error()
    assert "themselves" in admin("person", "revoke", "admin", "--yes", code=2).error()
    assert "known already" in admin("person", "add", name, "viewer", code=1).error()
    assert "no person" in admin("person", "role", "zoe", "viewer", code=3).error()
    assert json.loads(admin("whoami", "-o", "json").stdout)["role"] == "administrator"


def _new(name: str) -> str:
    """A name that nobody has borne, also when a test is tried again."""
    return f"{name}-{time.monotonic_ns()}"


def _tried(cluster: Cluster, name: str, node: str) -> str:
    try:
        return cluster.person(name, node)("site", "list", code=4).stderr
    except (AssertionError, NotAllowed):
        return ""
