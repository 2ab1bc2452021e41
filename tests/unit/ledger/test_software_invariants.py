"""What the invariants notice of software: its number, and that its tarballs are kept, no longer than it is known."""

from __future__ import annotations

from hashlib import sha256

import pytest

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger.commands_software import PublishSoftware, RetireSoftware
from iceprod_p2p.ledger.invariants import check
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.software import Build, parse_platform
from tests.ledger_in_hand import LedgerInHand

BUILD = Build(parse_platform("linux-x86_64"), sha256(b"tarball").hexdigest(), 7)
KEY = keys.software("icetray", "1", "linux-x86_64")
USE = keys.BLOB_USE + bytes.fromhex(BUILD.sha256) + KEY


@pytest.fixture
def ledger() -> LedgerInHand:
    ledger = LedgerInHand()
    ledger.found("madison")
    assert isinstance(ledger.entry(PublishSoftware("icetray", "1", BUILD, "ada"))[0], Applied)
    return ledger


def test_a_published_build_is_sound_and_so_is_a_forgotten_one(ledger: LedgerInHand) -> None:
    assert check(ledger.kv) == [] and ledger.kv.get(USE) is not None
    assert isinstance(ledger.entry(RetireSoftware("icetray", "1", forget=True))[0], Applied)
    assert check(ledger.kv) == [] and ledger.kv.get(USE) is None


def test_each_way_to_lose_its_tarball_is_noticed(ledger: LedgerInHand) -> None:
    ledger.kv.delete(USE)
    assert check(ledger.kv) == ["a build of software whose blob nothing keeps"]


def test_a_build_that_is_gone_is_noticed(ledger: LedgerInHand) -> None:
    ledger.kv.delete(KEY)
    assert check(ledger.kv) == [
        "a blob is kept for software that is gone",
        "the number of builds of software is not as noted",
    ]
    assert Tables(ledger.kv).cluster is not None
