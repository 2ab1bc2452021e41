"""A node whose cluster has gone on to a later ledger version does not start with an older program, and says why."""

from __future__ import annotations

from pathlib import Path

import msgspec

from iceprod_p2p.ledger import keys, versions
from iceprod_p2p.ledger.records import Progress
from iceprod_p2p.store.environment import Environment
from tests.integration.node_processes import NodeProcess


def test_a_program_that_is_too_old_says_so_in_one_sentence_and_changes_nothing(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "madison", "madison")
    done = node.command("init")
    assert done.returncode == 0, done.stderr
    later = versions.VERSION_MOST + 1
    store = Environment(node.data / "raft")
    transaction = store.write()
    raw = transaction.ledger.get(keys.PROGRESS)
    assert raw is not None
    progress = msgspec.structs.replace(msgspec.msgpack.decode(raw, type=Progress), version=later)
    transaction.ledger.put(keys.PROGRESS, msgspec.msgpack.encode(progress))
    transaction.commit()
    store.close()
    done = node.command("start", "--foreground")
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert f"the cluster's ledger is at version {later}, but this program reads version" in said
    assert "install the release that the other nodes run" in said and "Traceback" not in said
