"""Sites join by invitation over real TLS: once, with their own keys, and only the cluster that was meant."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.node_processes import (
    ROOT,
    NodeProcess,
    leads,
    promote,
    status_of,
    task_counts,
    wait_for,
)

HELLO = ROOT / "examples" / "hello" / "hello.yaml"


@pytest.fixture
def founder(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path / "madison", "madison")
    assert node.command("init").returncode == 0
    node.start()
    yield node
    node.end()


def invitation(connection: Connection, site: str) -> str:
    wait_for("the founder leads", lambda: leads(connection))
    line: str = connection.call("Invite", control_pb2.InviteRequest(site=site, lifetime_s=600)).line
    return line.split()[-1]


def test_a_site_joins_catches_up_is_promoted_and_both_hold_the_same(
    founder: NodeProcess, tmp_path: Path
) -> None:
    newcomer = NodeProcess(tmp_path / "geneva", "geneva")
    try:
        with founder.connect() as connection:
            done = newcomer.command("join", invitation(connection, "geneva"))
            assert done.returncode == 0, done.stderr
            newcomer.start()
            wait_for(
                "it has caught up",
                lambda: any(
                    m.site == "geneva" and m.reachable and m.applied_index
                    for m in status_of(connection).members
                ),
            )
            promote(connection, "geneva-1")
            wait_for("both vote", lambda: [m.role for m in status_of(connection).members] == ["voter"] * 2)
            connection.remember_nodes(status_of(connection))
            number = submit_file(connection, HELLO, jobs=4, seed=7).dataset
            wait_for("all is complete", lambda: task_counts(connection, number) == {"complete": 8})
            # Each row shows its node's newest state, so that two rows may be an entry apart.
            wait_for(
                "both hold the same", lambda: len({m.digest for m in status_of(connection).members}) == 1
            )
            assert status_of(connection).digests_equal
        context = founder.connect().context
        with Connection(context, node="geneva-1") as other:
            assert task_counts(other, number) == {"complete": 8}
    finally:
        newcomer.end()


def test_an_invitation_is_good_once_for_one_site_and_one_key(founder: NodeProcess, tmp_path: Path) -> None:
    first, thief = NodeProcess(tmp_path / "geneva", "geneva"), NodeProcess(tmp_path / "thief", "geneva")
    wrong = NodeProcess(tmp_path / "zeuthen", "zeuthen")
    with founder.connect() as connection:
        line = invitation(connection, "geneva")
        refused = wrong.command("join", line)
        assert refused.returncode == 2 and "the invitation is for site geneva" in refused.stderr
        assert first.command("join", line).returncode == 0
        # The same node whose answer was lost: the keys are there, the certificate is not.
        (first.data / "keys" / "node.pem").unlink()
        (first.data / "keys" / "authority.pem").unlink()
        repeated = first.command("join", line)
        assert repeated.returncode == 0, repeated.stderr
        stolen = thief.command("join", line)
        assert stolen.returncode == 4 and "already used" in stolen.stderr
        assert not (thief.data / "keys" / "node.pem").exists()
        cut = thief.command("join", line[:-3])
        assert cut.returncode == 2 and "cut short" in cut.stderr
    assert "token" not in founder.log().lower() or line.split("/")[5] not in founder.log()


def test_a_server_of_another_cluster_is_never_sent_the_token(founder: NodeProcess, tmp_path: Path) -> None:
    """An impostor at the invitation's address shows a certificate of its own cluster of the same name."""
    impostor = NodeProcess(tmp_path / "impostor", "madison", ports=founder.ports)
    assert impostor.command("init").returncode == 0
    newcomer = NodeProcess(tmp_path / "geneva", "geneva")
    with founder.connect() as connection:
        line = invitation(connection, "geneva")
    assert founder.stop() == 0
    impostor.start()
    try:
        wait_for("the impostor serves", lambda: "node started" in impostor.log())
        refused = newcomer.command("join", line)
        assert refused.returncode == 4 and "another cluster" in refused.stderr
    finally:
        impostor.end()
        shutil.rmtree(impostor.directory)
