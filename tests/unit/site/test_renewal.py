"""Keys are made anew step by step: what cannot go on holds up nothing else."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import RaiseVersion, RenewNode
from iceprod_p2p.ledger.commands_trust import AddAuthority, AskRenewal, RetireAuthority
from iceprod_p2p.ledger.outcome import Refusal, Refused
from iceprod_p2p.ledger.rows import RootRow
from iceprod_p2p.ledger.versions import VERSION_MOST
from iceprod_p2p.model.identity import PEOPLE
from iceprod_p2p.model.trust import Renewal
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import to_der
from iceprod_p2p.security.passkeys import new_signing_key, signing_key_to_bytes
from iceprod_p2p.site import renewal
from iceprod_p2p.site.node_keys import NodeKeys, new_authority, save_keys
from iceprod_p2p.site.renewal import KeyRenewal
from tests.unit.site.one_ledger import NOW_MS, OneLedger

HALF_A_LIFE_MS = 46 * 86_400_000  # Of a node's certificate.


class Node:
    """The founder's node, alone."""

    def __init__(self, directory: Path, *, version: int = VERSION_MOST) -> None:
        self.ledger = OneLedger()
        self.held = self.ledger.found(version=version)
        self.refuses: type[Any] | None = None
        self.clock = ManualClock(wall_ms=NOW_MS)
        self.administrators_looked_at = 0
        save_keys(directory, self.held, signing_key_to_bytes(new_signing_key()))
        self.renewal = KeyRenewal(
            self,
            data_dir=directory,
            consensus=self,  # type: ignore[arg-type]
            nodes=tuple,
            peers=None,  # type: ignore[arg-type]
            ask=None,  # type: ignore[arg-type]
            introduce=self._introduce,
            pilot_lifetime_ms=1_000,
            person_lifetime_ms=1_000,
            vouches=True,
            clock=self.clock,
        )

    def keys(self) -> NodeKeys:
        return self.held

    def take_keys(self, keys: NodeKeys) -> None:
        self.held = keys

    async def _introduce(self) -> None:
        pass

    def view(self) -> Any:
        return self.ledger.view()

    async def propose(self, command: Any, **how: Any) -> Any:
        if self.refuses is not None and isinstance(command, self.refuses):
            return Refused(Refusal.WRONG_STATE, "the cluster is at an older version")
        return await self.ledger.propose(command, **how)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(tmp_path)

    def looked_at(*_: Any, **__: Any) -> None:
        made.administrators_looked_at += 1

    monkeypatch.setattr(renewal, "renew_administrator", looked_at)
    monkeypatch.setattr(renewal, "FRESH_S", 0.0)
    return made


async def test_an_authority_that_cannot_end_yet_holds_up_no_other_certificate(node: Node) -> None:
    """As with an older version of the ledger, where no authority can be retired."""
    assert node.held.root is not None
    left_behind = new_authority(node.held.root, "madison", now_ms=NOW_MS)
    await node.propose(
        AddAuthority("madison-1", "madison", to_der(left_behind.certificate)), actor="node:madison-1"
    )
    await node.renewal.step()
    node.refuses = RetireAuthority
    node.clock.advance(HALF_A_LIFE_MS / 1_000)
    before = node.held.certificate
    await node.renewal.step()
    assert node.held.certificate != before, "its own certificate is past half of its life"
    assert node.administrators_looked_at == 2
    assert any("older version" in problem for problem in node.renewal.problems())
    node.refuses = None
    await node.renewal.step()
    assert node.renewal.problems() == []
    assert to_der(left_behind.certificate) not in _listed(node)


@pytest.mark.parametrize("scope", ["", "madison", "people"])
async def test_what_is_listed_and_is_no_certificate_keeps_no_node_from_renewing(
    node: Node, scope: str
) -> None:
    await node.propose(AddAuthority("madison-1", scope, b"none", b"none"), actor="node:madison-1")
    node.clock.advance(HALF_A_LIFE_MS / 1_000)
    before = node.held.certificate
    await node.renewal.step()
    assert node.held.certificate != before and node.renewal.problems() == []


async def test_an_authority_that_never_signed_anything_keeps_no_root_from_ending(node: Node) -> None:
    assert node.held.root is not None
    lost = _join(node, "desy-1", "desy")
    stray = new_authority(node.held.root, "desy", now_ms=NOW_MS)
    node.ledger.must(AddAuthority("desy-1", "desy", to_der(stray.certificate)), actor="node:desy-1")
    node.ledger.must(AskRenewal(Renewal.ROOT))
    for _ in range(3):  # The new root, what is below it, the end of what was.
        await node.renewal.step()
        node.clock.advance(10)
    await node.renewal.step()
    assert len(_roots(node)) == 2, "what desy-1 signs with stands below the old root"
    following = new_authority(node.held.root, "desy", now_ms=NOW_MS)
    node.ledger.must(AddAuthority("desy-1", "desy", to_der(following.certificate)), actor="node:desy-1")
    node.ledger.must(_signs_with(node, "desy-1", following), actor="node:desy-1")
    node.ledger.must(RetireAuthority("desy-1", "desy", to_der(lost.certificate)), actor="node:desy-1")
    await node.renewal.step()
    assert len(_roots(node)) == 1


async def test_nobody_else_begins_to_vouch_for_people_before_the_founder_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade none is listed, and the founder's counts unlisted: the first other one would shut it out."""
    monkeypatch.setattr(renewal, "renew_administrator", lambda *_, **__: None)
    monkeypatch.setattr(renewal, "FRESH_S", 0.0)
    node = Node(tmp_path, version=1)
    founder = node.held.people
    node.held = replace(node.held, people=None)  # As on every node but the founder's.
    node.ledger.must(RaiseVersion())
    await node.renewal.step()
    assert _people(node) == () and node.held.people is None
    node.ledger.must(AskRenewal(Renewal.PEOPLE, "madison-1"))
    await node.renewal.step()
    assert len(_people(node)) == 1, "an administrator asked for it by name"

    founded = Node(tmp_path / "founder", version=1)
    founder = founded.held.people
    assert founder is not None
    founded.ledger.must(RaiseVersion())
    await founded.renewal.step()
    assert _people(founded) == (to_der(founder.certificate),), "the founder's own is listed by itself"


async def test_what_a_lost_node_left_behind_ends_by_itself(node: Node) -> None:
    assert node.held.root is not None
    await node.renewal.step()
    left_behind = new_authority(node.held.root, PEOPLE, now_ms=NOW_MS)
    node.ledger.must(AddAuthority("madison-1", PEOPLE, to_der(left_behind.certificate)))
    await node.renewal.step()
    assert to_der(left_behind.certificate) in _people(node), "whom it vouched for stay in for their time"
    node.clock.advance(10)
    await node.renewal.step()
    assert node.held.people is not None
    assert _people(node) == (to_der(node.held.people.certificate),)


async def test_what_another_node_of_the_site_signs_with_is_left_to_it(node: Node) -> None:
    sibling = _join(node, "madison-2", "madison")
    await node.renewal.step()
    node.clock.advance(10)
    await node.renewal.step()
    assert to_der(sibling.certificate) in _listed(node) and node.renewal.problems() == []
    assert node.held.root is not None
    following = new_authority(node.held.root, "madison", now_ms=NOW_MS)
    node.ledger.must(
        AddAuthority("madison-2", "madison", to_der(following.certificate)), actor="node:madison-2"
    )
    node.ledger.must(_signs_with(node, "madison-2", following), actor="node:madison-2")
    await node.renewal.step()
    node.clock.advance(10)
    await node.renewal.step()
    assert to_der(following.certificate) in _listed(node)
    assert to_der(sibling.certificate) not in _listed(node), "it was left behind"


def _join(node: Node, node_id: str, site: str) -> Authority:
    """Admit a further node, with an authority of its own."""
    assert node.held.root is not None
    authority = new_authority(node.held.root, site, now_ms=NOW_MS)
    node.ledger.admit(node_id, site, authority=to_der(authority.certificate))
    return authority


def _signs_with(node: Node, node_id: str, authority: Authority) -> RenewNode:
    with node.view() as kv:
        row = queries.node(kv, node_id)
    assert row is not None
    return RenewNode(row.member, bytes(32), authority=sha256(to_der(authority.certificate)).digest())


def _roots(node: Node) -> tuple[RootRow, ...]:
    with node.view() as kv:
        return queries.roots(kv)


def _people(node: Node) -> tuple[bytes, ...]:
    with node.view() as kv:
        return tuple(der for _, der in queries.people_authorities(kv))


def _listed(node: Node) -> tuple[bytes, ...]:
    with node.view() as kv:
        return tuple(der for site, der in queries.issuing_authorities(kv) if site == "madison")
