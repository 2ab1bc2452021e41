"""Copies that are read again: what the ledger does not take down is said."""

from __future__ import annotations

from typing import Any

import pytest

from iceprod_p2p.ledger.outcome import Applied, Refusal, Refused
from iceprod_p2p.site.verification import Verification
from iceprod_p2p.wire.pb import control_pb2

GOOD, OTHER = "a" * 64, "b" * 64


class Ledger:
    """Takes down copies in sites' stores; with `version` 1 none at URLs, as a cluster that is being upgraded."""

    def __init__(self, version: int) -> None:
        self.version = version

    async def propose(self, command: Any, *, actor: str) -> Applied | Refused:
        if command.url and self.version < 2:
            return Refused(Refusal.WRONG_STATE, "needs ledger version 2, but the cluster is at 1")
        return Applied()


class Copies:
    """What is found, in the store and by URL."""

    def __init__(self, found: str) -> None:
        self.found = found

    async def read(self, url: str) -> str:
        return self.found

    async def verify(self, sha256: str) -> str:
        return self.found


@pytest.mark.parametrize("found", [GOOD, OTHER])
@pytest.mark.parametrize("version", [1, 2])
async def test_what_could_not_be_recorded_is_said_with_its_reason(version: int, found: str) -> None:
    copies: Any = Copies(found)
    ledger: Any = Ledger(version)
    nobody: Any = None
    verification = Verification(
        site="north",
        node_id="north-1",
        raft=ledger,
        files=copies,
        peers=nobody,
        cluster=nobody,
        urls=copies,
    )
    row = control_pb2.FileRow(dataset=1, job=2, name="events", sha256=GOOD)
    outside = await verification._verify_url(row, "https://store.example/events")
    inside = await verification._verify(row)
    assert outside.good is inside.good is (found == GOOD)
    assert inside.unrecorded == ""
    assert outside.unrecorded == ("" if version == 2 else "needs ledger version 2, but the cluster is at 1")
