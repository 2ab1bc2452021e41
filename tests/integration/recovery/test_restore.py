"""A cluster that lost two of three for good begins anew from a backup, or from what the last node has; the others
rejoin, what was acknowledged is there, and nobody with an old directory counts.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iceprod_p2p.base.config import load
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.site.restoring import check_backup
from iceprod_p2p.store.backup_file import open_backup
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.node_processes import status_of, task_counts, wait_for
from tests.integration.recovery.cluster import HELLO, Trio

pytestmark = pytest.mark.timeout(600)  # The first one founds the cluster for all.


def iceprod(trio: Trio, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `iceprod` as the administrator."""
    command = [sys.executable, "-m", "iceprod_cli.main", "--context", f"{trio.founder.data / 'admin'}/"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)


def alone_with(trio: Trio, site: str) -> Connection:
    """A connection to one site's node and no other."""
    restored = trio.sites[site]
    connection = Connection(trio.connect().context, node=restored.present_id, give_up_s=40)
    wait_for("it leads", lambda: status_of(connection).leader == restored.present_id, timeout_s=60)
    return connection


def test_a_backup_is_whole_holds_no_keys_and_is_never_overwritten(trio: Trio, tmp_path: Path) -> None:
    file = tmp_path / "cluster.backup"
    done = iceprod(trio, "cluster", "backup", str(file))
    assert done.returncode == 0, done.stderr
    assert "cluster demo, up to entry" in done.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    assert b"PRIVATE" not in content and not list(tmp_path.glob(".*"))
    for site in trio.sites.values():
        for key in (site.data / "keys").glob("*.key"):
            secret = key.read_bytes()
            assert secret not in content and secret[:32] not in content
    with open_backup(file) as reader:
        header = reader.check()
        assert {node.site for node in header.nodes} == set(trio.sites) and header.index > 0
    again = iceprod(trio, "cluster", "backup", str(file))
    assert again.returncode == 2 and "exists already" in again.stderr
    assert file.read_bytes() == content


def test_a_restore_is_refused_while_a_majority_lives_and_for_what_is_no_backup(
    trio: Trio, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.backup"
    assert iceprod(trio, "cluster", "backup", str(file)).returncode == 0
    site = trio.follower()
    running = site.command("restore", "--yes", str(file))
    assert running.returncode == 2 and "stop it first" in running.stderr
    site.stop()
    unasked = site.command("restore", str(file))
    assert unasked.returncode == 2 and "add --yes" in unasked.stderr
    lives = site.command("restore", "--yes", str(file))
    assert lives.returncode == 2 and "a majority of it lives" in lives.stderr, lives.stderr
    assert "iceprod-node rejoin" in lives.stderr
    assert not (site.data / "next").exists(), "nothing of it is left, so the node may start as it was"
    content = file.read_bytes()
    for name, changed, words in (
        ("cut", content[:-40], "cut short"),
        ("flipped", content[:-200] + bytes([content[-200] ^ 1]) + content[-199:], "damaged"),
        ("newer", content[:15] + b"\0\0\0\x02" + content[19:], "of format 2"),
        ("other", b"something else", "not a backup"),
    ):
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(IceProdError, match=words):
            check_backup(load(site.config), tmp_path / name)


def test_after_the_loss_of_two_of_three_a_backup_brings_back_what_it_holds(
    trio: Trio, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.backup"
    assert iceprod(trio, "cluster", "backup", str(file)).returncode == 0
    before = {name: site.present_id for name, site in trio.sites.items()}
    for site in trio.sites.values():
        site.kill()
    # The node of geneva is set aside whole: it comes back later, as if somebody had found its machine again.
    geneva, zeuthen = trio.sites["geneva"], trio.sites["zeuthen"]
    shutil.rmtree(zeuthen.raft)
    killed = trio.founder.command_with(
        {"ICEPROD_FAILPOINTS": "node.restore.before=kill"}, "restore", "--yes", str(file)
    )
    assert killed.returncode == -9
    done = trio.founder.command("restore", "--yes", str(file))
    assert done.returncode == 0, done.stderr
    assert f"in the place of {before['madison']}" in done.stdout
    trio.founder.start()
    with alone_with(trio, "madison") as connection:
        assert trio.is_whole(connection)
        assert not connection.call("CheckCluster", control_pb2.CheckClusterRequest()).violations
        index = status_of(connection).members[0].applied_index
        # An old node comes back beside it: it has no quorum, is no member, and changes nothing here.
        seen = geneva.log_size()
        geneva.start()
        wait_for("it serves", lambda: "node started" in geneva.log()[seen:])
        wait_for("the new epoch goes on", lambda: status_of(connection).members[0].applied_index > index + 5)
        assert [row.node_id for row in status_of(connection).members] == [trio.founder.present_id]
        assert status_of(connection).epoch == 2
        geneva.kill()
        for site in (geneva, zeuthen):
            site.rejoin()
            site.start()
        status = trio.wait_healthy()
        assert not {row.node_id for row in status.members} & set(before.values())
        number = submit_file(connection, HELLO, jobs=1, seed=8).dataset
        assert number == trio.dataset + 1, "the ledger goes on where the backup ended"


def test_the_last_node_of_three_keeps_everything_that_was_acknowledged_with_it(
    trio: Trio, tmp_path: Path
) -> None:
    """Its log may hold entries that it never heard to be committed: they are in its backup."""
    survivor = trio.follower()
    with trio.connect() as connection:
        number = submit_file(connection, HELLO, jobs=1, seed=9).dataset
        with Connection(connection.context, node=survivor.present_id, give_up_s=60) as its:
            assert task_counts(its, number), "it may have been acknowledged by the two others alone"
        for site in trio.sites.values():
            site.kill()
    file = tmp_path / "survivor.backup"
    killed = survivor.command_with({"ICEPROD_FAILPOINTS": "backup.rename.before=kill"}, "backup", str(file))
    assert killed.returncode == -9 and not file.exists()
    done = survivor.command("backup", str(file))
    assert done.returncode == 0, done.stderr
    restored = survivor.command("restore", "--yes", str(file))
    assert restored.returncode == 0, restored.stderr
    survivor.start()
    for site in trio.sites.values():
        if site is not survivor:
            site.rejoin("--through", f"127.0.0.1:{survivor.ports[1]}")
            site.start()
    trio.wait_healthy()
    with trio.connect() as connection:
        listed = connection.call("ListDatasets", control_pb2.ListDatasetsRequest())
        assert number in {row.dataset for row in listed.datasets}
        trio.remember(connection)
