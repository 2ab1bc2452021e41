"""What the node promises its callers beside the engine: an end to every wait, and request ids that lie together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.ledger.commands import RecordBlob
from iceprod_p2p.raft import node as node_module
from iceprod_p2p.raft.founding import prepare_joiner
from iceprod_p2p.raft.machine import ledger_machine
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.security.random import new_ordered_request_id
from iceprod_p2p.store.environment import Environment


class NoLinks:
    def attach(self, **callbacks: Any) -> None: ...

    def send(self, node_id: str, frame: bytes) -> None: ...

    def members_changed(self, members: Any) -> None: ...

    async def stop(self) -> None: ...


async def test_a_caller_is_answered_even_if_the_raft_thread_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "GRACE_S", 0.05)
    environment = Environment(tmp_path)
    prepare_joiner(environment, "node-a")
    node = RaftNode("node-a", environment=environment, links=NoLinks(), machine=ledger_machine())
    await node.start()
    engine = node._engine
    assert engine is not None
    monkeypatch.setattr(engine, "tick", lambda: None)
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="does not answer"):
        await node.propose(RecordBlob("7" * 64, 1, ("node-a",)), actor="node:node-a", timeout_s=0.1)
    assert asyncio.get_running_loop().time() - began_s < 60
    assert node.status().proposals_waiting == 0
    await node.stop()
    environment.close()


def test_request_ids_of_one_moment_lie_side_by_side_and_differ() -> None:
    ids = [new_ordered_request_id(1_700_000_000_000 + number // 10) for number in range(1_000)]
    assert len(set(ids)) == 1_000 and {len(made) for made in ids} == {16}
    assert [made[:6] for made in ids] == sorted(made[:6] for made in ids)
    assert len(new_ordered_request_id(-1)) == 16, "a clock before 1970 makes an id all the same"
