"""A node announces the ledger versions that its program reads, once, whenever the ledger has others."""

from __future__ import annotations

import pytest

from iceprod_p2p.ledger import versions
from iceprod_p2p.ledger.commands import AnnounceVersions
from iceprod_p2p.ledger.records import NodeRecord
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.site.releases import announce_versions
from tests.unit.site.one_ledger import OneLedger


def record(ledger: OneLedger) -> NodeRecord:
    found = Tables(ledger.kv).nodes.get(b"\x02m1")
    assert found is not None
    return found


async def test_a_new_release_is_announced_once_and_an_old_one_takes_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, now = OneLedger(), versions.VERSION_MOST
    ledger.found(site="madison", node_id="m1")
    await announce_versions(ledger, record(ledger))
    assert ledger.proposed == [], "the founder said it when it founded"
    with monkeypatch.context() as patch:
        patch.setattr(versions, "VERSION_MOST", versions.VERSION_MOST + 1)
        await announce_versions(ledger, record(ledger))
        await announce_versions(ledger, record(ledger))
        assert ledger.proposed == [AnnounceVersions("m1", 1, now + 1)]
    await announce_versions(ledger, record(ledger))
    assert ledger.proposed[1:] == [AnnounceVersions("m1", 1, now)]
