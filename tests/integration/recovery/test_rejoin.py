"""A node whose data directory is lost, copied, set back or damaged never votes again under its id, says so, and
comes back under a new one; nothing that was acknowledged is lost.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import ConfigError, Unavailable
from iceprod_p2p.client.connection import Connection
from iceprod_p2p.site.succession import require_none
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.node_processes import run_command, wait_for
from tests.integration.recovery.cluster import REJOINING, Site, Trio

pytestmark = pytest.mark.timeout(600)  # The first one founds the cluster for all.


def replaced(trio: Trio, site: Site, old: str) -> None:
    """The site is back with another node, which votes; the old id is gone."""
    new = site.rejoin()
    assert new != old and new.startswith(f"{site.site}-")
    assert not (site.data / "next").exists()
    site.start()
    status = trio.wait_healthy()
    assert {row.node_id for row in status.members if row.site == site.site} == {new}
    assert old not in {row.node_id for row in status.members}
    assert (site.data / f"raft.of-{old}").exists()


def died_at(site: Site, failpoint: str) -> bool:
    """Let `rejoin` die at a failpoint; false while the others have no quorum, before which it does not come there."""
    done = site.command_with({"ICEPROD_FAILPOINTS": f"{failpoint}=kill"}, "rejoin", "--yes")
    assert done.returncode in (-9, 5), (failpoint, done.stderr)
    return done.returncode == -9


def leads_now(trio: Trio, site: Site) -> None:
    """Hand leadership to a site's node, if it does not lead already."""

    def leads() -> bool:
        leader = trio.leader()
        if leader is not site:
            verb = control_pb2.ControlMemberRequest(node_id=site.present_id, verb="transfer_leader")
            with (
                contextlib.suppress(Unavailable),
                Connection(trio.connect().context, node=leader.present_id) as one,
            ):
                one.call("ControlMember", verb)
        return leader is site

    wait_for(f"{site.site} leads", leads, timeout_s=60)


def test_the_founder_that_leads_comes_back_through_the_others_and_still_admits_sites(trio: Trio) -> None:
    leads_now(trio, trio.founder)
    old = trio.founder.present_id
    trio.founder.kill()
    shutil.rmtree(next(trio.founder.raft.glob("raft-*")))
    trio.founder.rejoin()
    trio.founder.start()
    status = trio.wait_healthy()
    assert old not in {row.node_id for row in status.members}
    line = trio.founder.command("invite", "uppsala")
    assert line.returncode == 0 and "iceprod-invite-1/demo/uppsala" in line.stdout, line.stderr


def test_a_copy_does_not_start_beside_the_original_and_cannot_push_it_out(trio: Trio, tmp_path: Path) -> None:
    site = trio.follower()
    copy = tmp_path / "copy"
    site.stop()
    shutil.copytree(site.directory, copy, ignore=shutil.ignore_patterns("grid", "pilots"))
    site.start()
    config = copy / "site.toml"
    config.write_text(config.read_text().replace(str(site.data), str(copy / "data")))
    trio.wait_healthy()
    refused = run_command("start", "--foreground", "--config", str(config))
    assert refused.returncode == 1 and "is a copy of the files that the node wrote" in refused.stderr
    assert "iceprod-node rejoin" in refused.stderr
    pushed = run_command("rejoin", "--yes", "--config", str(config))
    assert pushed.returncode == 4 and "answers and takes part" in pushed.stderr, pushed.stderr
    trio.wait_healthy()
    assert site.runs


def test_a_directory_restored_from_an_old_copy_is_refused_and_rejoins(trio: Trio, tmp_path: Path) -> None:
    site = trio.follower()
    old = site.present_id
    site.stop()
    shutil.copytree(site.raft, tmp_path / "raft")
    site.start()
    trio.wait_healthy()
    site.kill()
    shutil.rmtree(site.raft)
    shutil.copytree(tmp_path / "raft", site.raft)
    assert "is a copy of the files that the node wrote" in site.refused_start()
    replaced(trio, site, old)


def test_bytes_set_back_in_place_are_seen_by_the_others_and_the_node_rejoins(
    trio: Trio, tmp_path: Path
) -> None:
    """The inodes are the same, so only the others know: it is told, and never votes again."""
    site = trio.follower()
    old = site.present_id
    site.stop()
    before = {path: path.read_bytes() for path in site.raft.glob("raft-*/*") if path.name != "lock.mdb"}
    site.start()
    trio.wait_healthy()
    site.kill()
    for path, content in before.items():
        with path.open("r+b") as file:
            file.write(content)
            file.truncate(len(content))
    seen = site.log_size()
    site.start()
    # By those who saw this start before, or by a leader that names a commit which it had acknowledged.
    wait_for("it is told", lambda: "take part again under a new node id" in site.log()[seen:])
    site.kill()
    assert "may not vote any more" in site.refused_start()
    replaced(trio, site, old)


def test_a_follower_whose_store_is_gone_comes_back_and_votes_whatever_interrupts_it(trio: Trio) -> None:
    site = trio.follower()
    old = site.present_id
    site.kill()
    shutil.rmtree(site.raft)
    assert "there is no node in this data directory" in site.refused_start()
    for name in REJOINING:
        wait_for(f"it died at {name}", lambda name=name: died_at(site, name))
        with pytest.raises(ConfigError, match="was interrupted"):
            require_none(site.data)
    assert "was interrupted" in site.refused_start()
    new = site.rejoin()
    assert new != old and not (site.data / "next").exists()
    site.start()
    status = trio.wait_healthy()
    assert {row.node_id for row in status.members if row.site == site.site} == {new}
    assert any(path.is_file() for path in (site.data / "blobs").rglob("*")), "what it holds stays"


def test_a_site_whose_keys_are_gone_too_comes_back_by_invitation(trio: Trio) -> None:
    site = trio.follower()
    old = site.present_id
    site.kill()
    shutil.rmtree(site.data)
    refused = site.command("rejoin", "--yes")
    assert refused.returncode == 2 and f"iceprod cluster invite {site.site}" in refused.stderr, refused.stderr
    line = trio.founder.command("invite", site.site).stdout.split()[-1]
    new = site.rejoin(line)
    site.start()
    status = trio.wait_healthy()
    assert {row.node_id for row in status.members if row.site == site.site} == {new}
    assert old not in {row.node_id for row in status.members}


def test_without_a_quorum_nothing_is_changed_and_the_remedy_is_named(trio: Trio) -> None:
    site, other = trio.follower(), trio.founder
    old = site.present_id
    site.kill()
    other.kill()
    shutil.rmtree(site.raft)
    refused = site.command("rejoin", "--yes")
    assert refused.returncode == 5 and "iceprod-node restore" in refused.stderr, refused.stderr
    assert site.present_id == old
    other.start()
    site.rejoin()
    trio.wait_healthy()
