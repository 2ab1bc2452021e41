"""Damage of a node's own store: found and named by its doctor, at its start, while it runs, and by the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from iceprod_p2p.base.config import load
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.ledger import keys, queries
from iceprod_p2p.site.doctor_store import look_at_modes, look_at_store
from iceprod_p2p.site.findings import Finding, Verdict
from iceprod_p2p.store.environment import Environment, look_into
from tests.integration.node_processes import wait_for
from tests.integration.recovery.cluster import Site, Trio

pytestmark = pytest.mark.timeout(600)  # The first one founds the cluster for all.


def data_file(site: Site) -> Path:
    (path,) = site.raft.glob("raft-*/data.mdb")
    return path


def stored(site: Site, table: str) -> bytes:
    """The bytes of one record as they are on the disk: of the cluster's in the ledger, or of the log's last."""
    with look_into(site.raft, is_live=False) as (snapshot, _, _):
        if table == "ledger":
            value = snapshot.ledger.get(keys.CLUSTER)
            assert value is not None
            return value
        *_, (_, row) = snapshot.log.scan(b"", b"\xff" * 9)
        return row


def flip(path: Path, where: bytes) -> None:
    """Flip one bit in every place of a file that holds these bytes, in place."""
    content = path.read_bytes()
    at = content.find(where)
    assert at >= 0
    with path.open("r+b", buffering=0) as file:
        while at >= 0:  # These bytes alone: a node that runs may have written others meanwhile.
            place = at + len(where) // 2
            file.seek(place)
            file.write(bytes([content[place] ^ 4]))
            at = content.find(where, at + 1)


def complaints(site: Site) -> list[Finding]:
    """What the doctor finds bad in the node's store."""
    config = load(site.config)
    try:
        found = [*look_at_store(config), *look_at_modes(config.node.data_dir)]
    except IceProdError as fault:
        found = [Finding(Verdict.BAD, "store", fault.message, fault.remedy)]
    return [finding for finding in found if finding.verdict is Verdict.BAD]


def come_back(trio: Trio, site: Site) -> None:
    old = site.present_id
    assert site.rejoin() != old
    site.start()
    trio.wait_healthy()


def test_damaged_pages_records_and_logs_are_named_and_nothing_starts_on_them(trio: Trio) -> None:
    site = trio.follower()
    assert complaints(site) == [], "a node that runs is read beside its writer"
    site.stop()
    assert complaints(site) == []
    path = data_file(site)
    sound = path.read_bytes()

    def restored() -> None:
        with path.open("r+b") as file:
            file.write(sound)
            file.truncate(len(sound))

    for table, words in (("ledger", "of the ledger is damaged"), ("log", "of the log is damaged")):
        flip(path, stored(site, table))
        (complaint,) = complaints(site)
        assert words in complaint.words and "iceprod-node rejoin" in complaint.remedy, complaint
        said = site.refused_start()
        assert words in said and "rejoin" in said, said
        if table == "ledger":
            restored()
    (site.data / "blobs").chmod(0o722)
    (complaint,) = look_at_modes(site.data)
    assert "others may change it" in complaint.words and complaint.remedy.startswith("chmod go-w")
    (site.data / "blobs").chmod(0o700)
    come_back(trio, site)


def test_damage_under_a_running_node_is_found_by_reading_and_ends_its_part(trio: Trio) -> None:
    site = trio.follower()
    seen = site.log_size()

    def in_its_pages() -> bytes | None:
        with look_into(site.raft, is_live=True) as (snapshot, _, _):
            return snapshot.ledger.get(keys.by_dataset(keys.SHAPES, trio.dataset))

    flip(data_file(site), wait_for("the dataset is in a checkpoint", in_its_pages, timeout_s=60))
    wait_for(
        "it is found", lambda: "may not vote any more" in site.log()[seen:] or "damaged" in site.log()[seen:]
    )
    wait_for("the part has ended", lambda: "raft part ended" in site.log()[seen:])
    site.kill()
    assert "damaged" in site.refused_start()
    come_back(trio, site)


def test_a_node_with_another_state_is_told_apart_by_the_majority(trio: Trio) -> None:
    site = trio.follower()
    site.stop()
    store = Environment(site.raft)
    transaction = store.write()
    value, digest = transaction.ledger.get(keys.PROGRESS), queries.state_digest(transaction.ledger)
    assert value is not None and value.count(digest) == 1
    transaction.ledger.put(keys.PROGRESS, value.replace(digest, digest[::-1]))
    transaction.commit()
    store.close()
    seen = site.log_size()
    site.start()
    wait_for("it is told", lambda: "not that of the majority" in site.log()[seen:], timeout_s=90)
    site.kill()
    assert "not that of the majority" in site.refused_start()
    come_back(trio, site)
