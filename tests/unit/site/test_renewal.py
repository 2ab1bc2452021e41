"""Keys are made anew step by step: what cannot go on holds up nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands_trust import AddAuthority, RetireAuthority
from iceprod_p2p.ledger.outcome import Refusal, Refused
from iceprod_p2p.security.certificates import to_der
from iceprod_p2p.security.passkeys import new_signing_key, signing_key_to_bytes
from iceprod_p2p.site import renewal
from iceprod_p2p.site.node_keys import NodeKeys, new_authority, save_keys
from iceprod_p2p.site.renewal import KeyRenewal
from tests.unit.site.one_ledger import NOW_MS, OneLedger

HALF_A_LIFE_MS = 46 * 86_400_000  # Of a node's certificate.


class Node:
    """The founder's node, alone."""

    def __init__(self, directory: Path) -> None:
        self.ledger = OneLedger()
        self.held = self.ledger.found()
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


def _listed(node: Node) -> tuple[bytes, ...]:
    with node.view() as kv:
        return tuple(der for site, der in queries.issuing_authorities(kv) if site == "madison")
