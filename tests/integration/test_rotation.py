"""Certificates of nodes, sites, people and the root made anew over real nodes at work: no call fails meanwhile."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.contexts import load_context
from iceprod_p2p.security.certificates import chain_from_pem, fingerprint
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.command_line import CommandLine
from tests.integration.node_processes import COMMAND_S, ROOT, NodeProcess, leads, status_of, wait_for

HELLO = str(ROOT / "examples" / "hello" / "hello.yaml")
PROGRAM = (sys.executable, "-m")
SITES = ("madison", "zeuthen", "uppsala")
PILOT_CERTIFICATE_S = 10
PERSON_CERTIFICATE_H = 0.003  # Eleven seconds.
pytestmark = pytest.mark.timeout(600)


class ShortLived(NodeProcess):
    """A node whose pilots and people get certificates for seconds: what takes days elsewhere is seen at once."""

    def text(self) -> str:
        """The configuration."""
        short = f"pilot_certificate_s = {PILOT_CERTIFICATE_S}\n[queue]"
        people = f"[people]\ncertificate_h = {PERSON_CERTIFICATE_H}\n"
        return super().text().replace("[queue]", short, 1) + people


@dataclass
class Callers:
    """Calls to every node, one after the other, on connections old and new, with whatever the context holds then."""

    founder: NodeProcess
    calls: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(site,)) for site in SITES]
        for thread in self._threads:
            thread.start()

    def _run(self, site: str) -> None:
        kept = self._connection(site)
        kept_since_s = time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() - kept_since_s > 5:  # As a person's program that runs for a while.
                kept.close()
                kept, kept_since_s = self._connection(site), time.monotonic()
            fresh = self._connection(site)
            for connection in (kept, fresh):
                try:
                    connection.call("ListSites", control_pb2.ListSitesRequest())
                except IceProdError as failure:
                    self.failures.append(f"{site} {'kept' if connection is kept else 'fresh'}: {failure}")
                self.calls[site] += 1
            fresh.close()
            self._stop.wait(0.05)
        kept.close()

    def _connection(self, site: str) -> Connection:
        # No second try and no other node: a single failure is seen.
        return Connection(load_context(f"{self.founder.data / 'admin'}/"), node=site, give_up_s=0)

    def end(self) -> None:
        """Let the last calls end."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    directory = tmp_path_factory.mktemp("rotation")
    made: list[NodeProcess] = [ShortLived(directory / site, site, slots=1) for site in SITES]
    founder = made[0]
    try:
        assert founder.command("init").returncode == 0
        founder.start()
        with founder.connect() as connection:
            wait_for("the founder leads", lambda: leads(connection))
        for node in made[1:]:
            line = founder.command("invite", node.site).stdout.split()[-1]
            joined = node.command("join", line)
            assert joined.returncode == 0, joined.stderr
            node.start()
        admin = CommandLine(directory / "config", f"{founder.data / 'admin'}/")
        for node in made[1:]:
            admin("cluster", "promote", node.node_id, "--wait", "60")
        yield made
    finally:
        for node in made:
            node.end()


def _shown(node: NodeProcess) -> x509.Certificate:
    """The certificate that a node shows now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", node.ports[1]), timeout=10) as plain,
        context.wrap_socket(plain) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def _issuer(node: NodeProcess) -> str:
    return _shown(node).issuer.rfc4514_string()


def _roots(node: NodeProcess) -> tuple[str, ...]:
    return tuple(map(fingerprint, chain_from_pem((node.data / "keys" / "root.pem").read_bytes())))


def test_nodes_sites_people_and_the_root_are_made_anew_under_load_and_no_call_fails(
    nodes: list[NodeProcess], tmp_path: Path
) -> None:
    founder = nodes[0]
    admin = CommandLine(tmp_path, f"{founder.data / 'admin'}/")
    with founder.connect() as connection:

        def vouching() -> list[control_pb2.MemberStatus]:
            rows = list(status_of(connection).members)
            return rows if all(row.reachable and row.people_days >= 0 for row in rows) else []

        for row in wait_for("every voter vouches for people", vouching):
            assert row.certificate_days in (89, 90) and row.authority_days in (729, 730)
            assert row.root_days in (3_649, 3_650) and row.roots == 1
    admin("cluster", "status", "-o", "json")  # The context learns of the other nodes.
    name = f"under-load-{time.monotonic_ns()}"  # It may be tried again in the same cluster.
    admin("submit", HELLO, "--jobs", "2000", "--name", name)
    asked_before, refused_before = _asked(admin), _refused(nodes)
    callers = Callers(founder)
    try:
        before = [fingerprint(_shown(node)) for node in nodes]
        for node in nodes:
            admin("cluster", "rotate", "node", node.node_id)
        for node, mark in zip(nodes, before, strict=True):
            wait_for(
                f"{node.site} shows a new certificate", lambda n=node, m=mark: fingerprint(_shown(n)) != m
            )

        issuers = [_issuer(node) for node in nodes]
        for node in nodes:
            admin("cluster", "rotate", "site", node.site)
        for node, issuer in zip(nodes, issuers, strict=True):
            wait_for(f"{node.site} has a new authority", lambda n=node, i=issuer: _issuer(n) != i)

        old_root, issuers = _roots(founder), [_issuer(node) for node in nodes]
        admin("cluster", "rotate", "root", "--yes")
        for node, issuer in zip(nodes, issuers, strict=True):
            wait_for(
                f"{node.site} has an authority of the new root",
                lambda n=node, i=issuer: _issuer(n) != i,
            )
        for node in nodes:
            wait_for(
                f"{node.site} believes the new root alone",
                lambda n=node: len(_roots(n)) == 1 and _roots(n) != old_root,
                timeout_s=90,
            )
        done = int(admin("dataset", "show", name, "-o", "json").document["tasks"]["complete"])
        wait_for(
            "pilots go on under the new root",
            lambda: (
                int(admin("dataset", "show", name, "-o", "json").document["tasks"]["complete"])
                >= min(done + 20, 2000)
            ),
        )
    finally:
        callers.end()
    assert callers.failures == []
    assert all(callers.calls[site] > 30 for site in SITES), callers.calls
    renewed = sum(node.log().count("pilot certificate renewed") for node in nodes)
    assert renewed >= len(nodes)  # Their pilots worked on through all of it.
    assert all("pilot is ending" not in node.log() for node in nodes)
    assert _asked(admin) - asked_before == 7  # Each is in the audit, with who asked.
    assert _refused(nodes) == refused_before


def _asked(admin: CommandLine) -> int:
    rows = admin("audit", "--limit", "10000", "-o", "json").document
    return sum(row["what"].startswith("AskRenewal") and row["actor"] == "person:admin" for row in rows)


def _refused(nodes: list[NodeProcess]) -> list[str]:
    return [line for node in nodes for line in node.log().splitlines() if "call refused" in line]


def test_people_log_in_at_another_voter_while_the_founders_node_is_down(
    nodes: list[NodeProcess], tmp_path: Path
) -> None:
    founder, other = nodes[0], nodes[1]
    admin = CommandLine(tmp_path, f"{founder.data / 'admin'}/")
    wait_for("the voter has its authority", (other.data / "authority" / "people.key").exists)
    name = f"hanna-{time.monotonic_ns()}"
    made = subprocess.run(
        [
            *PROGRAM,
            "iceprod_p2p.daemon",
            "account",
            "add",
            name,
            "--password-stdin",
            "--config",
            other.config,
        ],
        input="correct horse battery\n",
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=True,
    )
    admin("person", "add", name, "viewer")
    line = made.stdout.partition("iceprod login ")[2].split()
    founder.stop()
    try:
        environ = {**os.environ, "ICEPROD_CONFIG": str(tmp_path / "hanna")}

        def log_in() -> bool:
            done = subprocess.run(
                [*PROGRAM, "iceprod_cli.main", "login", "--password-stdin", *line],
                input="correct horse battery\n",
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
                env=environ,
            )
            return done.returncode == 0

        def is_let_in() -> bool:
            """The certificate lasts for seconds: log in and go to every node again, should they have passed."""
            if not log_in():
                return False
            context = load_context(f"{tmp_path / 'hanna' / 'contexts' / 'demo'}/")
            try:
                for site in (other.site, nodes[2].site):  # Every node accepts what one voter vouches for.
                    with Connection(context, node=site) as connection:
                        assert connection.call("WhoAmI", control_pb2.WhoAmIRequest()).name == name
            except IceProdError:
                return False
            return True

        wait_for("a login without the founder", is_let_in, timeout_s=120)
    finally:
        founder.start()
    with Connection(load_context(admin.context), node=founder.site, give_up_s=60) as connection:
        connection.call("WhoAmI", control_pb2.WhoAmIRequest())  # It is up again, for whoever comes next.


def test_what_a_removed_node_leaves_behind_is_ended_by_an_administrator_and_nothing_that_is_in_use(
    nodes: list[NodeProcess], tmp_path: Path
) -> None:
    founder, other, lost = nodes
    admin = CommandLine(tmp_path, f"{founder.data / 'admin'}/")

    def rows(scope: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = admin("cluster", "authorities", scope, "-o", "json").document
        return found

    wait_for(
        "every node tells what it signs with",
        lambda: all(
            any(row["standing"] == "used" and row["node_ids"] == [node.node_id] for row in rows(node.site))
            for node in nodes
        ),
        timeout_s=60,
    )
    [used] = [row["authority"] for row in rows(other.site) if row["standing"] == "used"]
    refused = admin("cluster", "end-authority", other.site, used[:16], "--yes", code=1).error()
    assert f"node {other.node_id} signs with it" in refused
    people = [row["authority"] for row in rows("people") if row["node_ids"] == [founder.node_id]]
    own = admin("cluster", "end-authority", "people", people[-1], "--yes", code=1).error()
    assert "who would be shut out with it" in own or "vouches with it" in own

    lost.end()
    admin("cluster", "remove", lost.node_id, "--yes")
    assert rows(lost.site) and all(row["standing"] == "left" for row in rows(lost.site))
    for row in rows(lost.site):
        admin("cluster", "end-authority", lost.site, row["authority"], "--reason", "lost", "--yes")
    assert rows(lost.site) == []
    audit = admin("audit", "--limit", "10000", "-o", "json").document
    assert any("EndAuthority" in row["what"] and row["actor"] == "person:admin" for row in audit)
