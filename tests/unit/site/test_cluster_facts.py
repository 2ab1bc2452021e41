"""What a node keeps of the ledger in memory: who is refused is read again only when that changed."""

from __future__ import annotations

from typing import Any

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.ledger import queries, versions
from iceprod_p2p.ledger.commands import RemoveMember, RevokeCertificate, SetPerson
from iceprod_p2p.ledger.commands_trust import RemovePerson
from iceprod_p2p.model.person import Role
from iceprod_p2p.site.cluster_facts import ClusterFacts
from tests.unit.site.one_ledger import CLUSTER, NOW_MS, OneLedger, root_of


@pytest.mark.parametrize(("version", "reads"), [(versions.VERSION_MOST, 1), (2, 41)])
def test_those_who_are_shut_out_are_read_once_and_not_four_times_a_second(
    version: int, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below version 3 of the ledger nothing tells that they changed."""
    ledger, facts, counted = _facts(version, monkeypatch)
    for number in range(20):
        ledger.must(RemovePerson(f"gone-{number}", 1))
    for _ in range(41):
        assert len(facts.fresh().trust.shut_out) == 20
    assert len(counted) == reads


def test_every_new_refusal_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, facts, _ = _facts(versions.VERSION_MOST, monkeypatch)
    assert not facts.fresh().trust.shut_out and not facts.fresh().trust.revoked
    ledger.must(RemovePerson("bo", 7))
    assert facts.fresh().trust.shut_out == {"bo": (True, 7)}
    ledger.must(SetPerson("bo", Role.VIEWER), actor="person:ada")
    assert facts.fresh().trust.shut_out == {"bo": (False, 7)}
    ledger.must(RevokeCertificate(bytes(32)))
    assert facts.fresh().trust.revoked == {bytes(32).hex()}
    ledger.admit("desy-1", "desy")
    ledger.must(RemoveMember("desy-1"))
    assert facts.fresh().removed == {"desy-1"}


def _facts(version: int, monkeypatch: pytest.MonkeyPatch) -> tuple[OneLedger, ClusterFacts, list[Any]]:
    ledger, counted = OneLedger(), []
    roots = root_of(ledger.found(version=version))
    read = queries.shut_out

    def counting(kv: Any) -> Any:
        counted.append(kv)
        return read(kv)

    monkeypatch.setattr(queries, "shut_out", counting)
    clock = ManualClock(wall_ms=NOW_MS)
    return ledger, ClusterFacts(ledger, cluster=CLUSTER, roots=lambda: roots, clock=clock), counted  # type: ignore[arg-type,return-value]
