"""The list of authorities: who signs with which, in pages, and named by the beginning of their digests."""

from __future__ import annotations

from hashlib import sha256

import pytest

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.ledger.commands_trust import AddAuthority
from iceprod_p2p.model.identity import PEOPLE
from iceprod_p2p.security.certificates import to_der
from iceprod_p2p.site.authorities import find_authority, list_authorities
from iceprod_p2p.wire.pb import control_pb2
from tests.unit.site.one_ledger import NOW_MS, OneLedger


@pytest.fixture
def ledger() -> OneLedger:
    made = OneLedger()
    keys = made.found()
    assert keys.people is not None
    made.must(AddAuthority("madison-1", "madison", b"no certificate"))
    made.must(AddAuthority("madison-1", PEOPLE, to_der(keys.people.certificate)))
    return made


def _rows(ledger: OneLedger, **how: object) -> list[control_pb2.AuthorityRow]:
    request = control_pb2.ListAuthoritiesRequest(**how)  # type: ignore[arg-type]
    return list(list_authorities(ledger.kv, request, now_ms=NOW_MS).rows)


def test_each_authority_is_shown_with_those_that_sign_with_it(ledger: OneLedger) -> None:
    shown = {(row.scope, row.standing, tuple(row.node_ids), row.days > 0) for row in _rows(ledger)}
    assert shown == {
        ("madison", "used", ("madison-1",), True),
        ("madison", "never used", (), False),
        ("people", "used", ("madison-1",), True),
        ("root", "stands", (), True),
    }
    assert {row.scope for row in _rows(ledger, scope="madison")} == {"madison"}


def test_the_list_comes_in_pages_that_leave_nothing_out(ledger: OneLedger) -> None:
    after, seen = "", []
    for _ in range(4):
        request = control_pb2.ListAuthoritiesRequest(after=after, limit=1)
        page = list_authorities(ledger.kv, request, now_ms=NOW_MS)
        seen += [row.authority for row in page.rows]
        after = page.next_after
    assert not after and sorted(seen) == sorted(row.authority for row in _rows(ledger)) and len(seen) == 4


def test_an_authority_is_named_by_the_beginning_of_its_digest_in_its_scope(ledger: OneLedger) -> None:
    digest = sha256(b"no certificate")
    assert find_authority(ledger.kv, "madison", digest.hexdigest()[:8]).digest == digest.digest()
    for scope, prefix in (
        ("madison", "0" * 8),
        (PEOPLE, digest.hexdigest()),
        ("nowhere", "0" * 64),
        ("", "0" * 8),
    ):
        with pytest.raises(NotFound, match="0 authorities of"):
            find_authority(ledger.kv, scope, prefix)
    for scope, prefix in (("madison", ""), ("madison", "f" * 7), ("madison", "F" * 8), ("madison", "f" * 65)):
        with pytest.raises(BadInput, match="hexadecimal"):
            find_authority(ledger.kv, scope, prefix)
    with pytest.raises(BadInput, match="a root ends by itself"):
        find_authority(ledger.kv, "root", "0" * 8)
