"""What earlier programs wrote opens, is what it was, and goes on; what later ones write is refused by name.

`python -m tests.golden_formats` says how the next format is added.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.invariants import check
from iceprod_p2p.model.site import Member
from iceprod_p2p.raft import backup
from iceprod_p2p.raft.engine import Engine
from iceprod_p2p.raft.founding import check_state
from iceprod_p2p.raft.journal import Base
from iceprod_p2p.raft.machine import ledger_machine
from iceprod_p2p.raft.promises import PEER, SESSION_KEY, Remembered, Session, unseal
from iceprod_p2p.store import backup_file, verify
from iceprod_p2p.store.environment import Environment, look_into
from iceprod_p2p.store.errors import StoreFormat
from iceprod_p2p.store.format import FORMAT, FORMAT_KEY
from tests.golden_formats import GOLDEN, NODE, described, entry

FORMATS = sorted(GOLDEN.iterdir(), key=lambda path: int(path.name))


@pytest.fixture(params=FORMATS, ids=lambda path: f"format-{path.name}")
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the examples of one format."""
    shutil.copytree(request.param, tmp_path / "example")
    return tmp_path / "example"


def expected(example: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((example / "expected.json").read_text())
    return found


def test_there_are_examples_of_every_format_that_this_program_writes() -> None:
    written = {int(path.name) for path in FORMATS}
    assert FORMAT in written, (
        "the format has changed: run `python -m tests.golden_formats`, commit what it writes"
    )
    headers = {example.joinpath("cluster.backup").read_bytes()[15:19] for example in FORMATS}
    assert backup_file.FORMAT.to_bytes(4, "big") in headers


def test_a_store_is_sound_and_holds_what_it_held(example: Path) -> None:
    assert verify.verify_store(example / "store").faults == []
    with look_into(example / "store", is_live=False) as (snapshot, _, _):
        assert described(snapshot) == expected(example)
        assert check_state(snapshot, NODE) == 5
        assert check(snapshot.ledger) == []
        session, peer = snapshot.meta.get(SESSION_KEY), snapshot.meta.get(PEER + b"geneva-1")
        assert session is not None and unseal("session", session, Session) == Session(3, 77)
        assert peer is not None and unseal("peer", peer, Remembered).acked == 4


class NoWayOut:
    """There is nobody else."""

    def send(self, node_id: str, frame: bytes) -> None:
        raise AssertionError("it is the only member")

    def members_changed(self, members: Sequence[Member]) -> None:
        """Nobody needs a link."""


def test_a_node_goes_on_from_a_store(example: Path) -> None:
    store = Environment(example / "store", sync=False, may_be_copy=True)
    clock, machine = ManualClock(), ledger_machine()
    engine = Engine(
        NODE,
        store=store,
        sender=NoWayOut(),
        apply=machine.apply,
        read_members=machine.members,
        changes_members=lambda body: False,
        clock=clock,
        random=random.Random(1),
        on_results=lambda done: None,
        on_reads=lambda done: None,
    )
    for _ in range(300):
        clock.advance(0.01)
        engine.tick()
    assert engine.failed is None and engine.is_leader
    assert engine.core.applied > expected(example)["applied"]
    with store.read() as snapshot:
        assert check(snapshot.ledger) == []
    engine.close()
    store.close()


def test_a_backup_is_whole_and_a_cluster_begins_from_it(example: Path, tmp_path: Path) -> None:
    with backup_file.open_backup(example / "cluster.backup") as reader:
        header = reader.check()
    told = expected(example)
    assert (header.index, header.log_digest, reader.tally.digest.hex()) == (
        told["applied"],
        told["log_digest"],
        told["pairs_sha256"],
    )
    store = Environment(tmp_path / "restored", sync=False)
    with backup_file.open_backup(example / "cluster.backup") as reader:
        backup.restore(
            store,
            "new-1",
            reader.pairs(),
            Base(header.index, header.term, bytes.fromhex(header.log_digest)),
            entry(9),
            apply=apply,
            incarnation=b"i" * 16,
        )
    with store.read() as snapshot:
        assert check_state(snapshot, "new-1") == 1
        assert queries.applied_index(snapshot.ledger) == header.index + 1
    store.close()


def test_a_later_format_is_refused_by_name(example: Path) -> None:
    store = Environment(example / "store", sync=False, may_be_copy=True)
    transaction = store.write()
    transaction.meta.put(FORMAT_KEY, b"%d" % (FORMAT + 1))
    transaction.commit()
    store.close()
    words = f"has format {FORMAT + 1}, but this program reads format {FORMAT}"
    with pytest.raises(StoreFormat, match=words):
        verify.verify_store(example / "store")
    with pytest.raises(StoreFormat, match=words):
        Environment(example / "store", may_be_copy=True)
    path = example / "cluster.backup"
    content = path.read_bytes()
    path.write_bytes(content[:15] + (backup_file.FORMAT + 1).to_bytes(4, "big") + content[19:])
    with pytest.raises(BadInput, match=f"of format {backup_file.FORMAT + 1}"), backup_file.open_backup(path):
        pass
