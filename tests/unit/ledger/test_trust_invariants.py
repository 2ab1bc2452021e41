"""What the invariants notice of people and authorities: counts, and what is kept of nodes and authorities that left."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest

from iceprod_p2p.ledger import keys, queries
from iceprod_p2p.ledger import records_trust as rt
from iceprod_p2p.ledger.commands import RemoveMember, SetPerson
from iceprod_p2p.ledger.commands_trust import AddAuthority, EndAuthority, RemovePerson
from iceprod_p2p.ledger.invariants import check
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.person import Role
from tests.ledger_in_hand import LedgerInHand

ENCODE = msgspec.msgpack.Encoder().encode


@pytest.fixture
def ledger() -> LedgerInHand:
    ledger = LedgerInHand()
    ledger.found("madison", "desy")
    for name in ("ada", "bo", "cy"):
        assert isinstance(ledger.entry(SetPerson(name, Role.ADMINISTRATOR))[0], Applied)
    return ledger


def test_people_who_come_change_and_go_are_counted(ledger: LedgerInHand) -> None:
    for command in (
        SetPerson("bo", Role.ADMINISTRATOR),
        SetPerson("bo", Role.VIEWER),
        RemovePerson("cy", 1),
        RemovePerson("cy", 2),
        RemovePerson("stranger", 1),
        SetPerson("cy", Role.ADMINISTRATOR),
    ):
        assert isinstance(ledger.do(command, actor="person:ada"), Applied)
        assert check(ledger.kv) == []
    cluster = Tables(ledger.kv).cluster
    assert cluster is not None and (cluster.administrators, cluster.shut_out) == (2, 2)


def test_a_wrong_count_is_noticed(ledger: LedgerInHand) -> None:
    ledger.kv.delete(keys.by_name(keys.PERSON, "ada"))
    assert check(ledger.kv) == [
        "the number of administrators, or of people who were shut out, is not as noted"
    ]


def test_what_a_removed_node_signed_with_is_forgotten_and_noticed_otherwise(ledger: LedgerInHand) -> None:
    assert set(queries.node_authorities(ledger.kv)) == {"n0", "n1"}
    assert isinstance(ledger.entry(RemoveMember("n1"))[0], Applied)
    assert set(queries.node_authorities(ledger.kv)) == {"n0"} and check(ledger.kv) == []
    ledger.kv.put(keys.by_name(keys.NODE_AUTHORITIES, "n1"), ENCODE(rt.NodeAuthorities(bytes(32))))
    assert check(ledger.kv) == ["what a node signs with is kept, but the node is gone"]


def test_an_unused_authority_is_kept_as_such_only_while_it_is_listed(ledger: LedgerInHand) -> None:
    digest = sha256(b"stray").digest()
    listing = AddAuthority("n1", "desy", b"stray")
    assert isinstance(ledger.propose([ledger.proposal(listing, actor="node:n1")])[0], Applied)
    assert queries.unused_authorities(ledger.kv) == {digest} and check(ledger.kv) == []
    assert isinstance(ledger.entry(EndAuthority("desy", digest))[0], Applied)
    assert queries.unused_authorities(ledger.kv) == frozenset() and check(ledger.kv) == []
    ledger.kv.put(keys.UNUSED_AUTHORITY + digest, ENCODE(1))
    assert check(ledger.kv) == ["an authority that is not listed is kept as unused"]


def test_no_command_about_a_person_reads_all_people(
    ledger: LedgerInHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number is bounded by the cluster's, not by one command's: whoever walks through them stops everybody."""
    read: list[bytes] = []
    scan = ledger.kv.scan

    def watched(start: bytes, stop: bytes, **how: bool) -> object:
        read.append(start[:1])
        return scan(start, stop, **how)

    monkeypatch.setattr(ledger, "checked", False)
    monkeypatch.setattr(ledger.kv, "scan", watched)
    for command in (RemovePerson("bo", 1), RemovePerson("stranger", 1), SetPerson("bo", Role.OPERATOR)):
        assert isinstance(ledger.do(command, actor="person:ada"), Applied)
    assert not {keys.PERSON, keys.SHUT_OUT} & set(read)
