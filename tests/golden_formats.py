"""Writes small examples of everything that a node keeps on its disk: `python -m tests.golden_formats`.

    tests/golden/formats/N/store/          LMDB: ledger, log and meta of a node
    tests/golden/formats/N/cluster.backup  a backup of the same tables
    tests/golden/formats/N/expected.json   what a reader must find in them

N is `store.format.FORMAT`.  An example is written once, by the program that brought its format, and never again: later
programs must open it as it is (`tests/unit/store/test_formats.py`).  Whoever changes how something is stored raises
`FORMAT` (or `backup_file.FORMAT`), teaches the program to read both, and runs this to add the new one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft.backup import position
from iceprod_p2p.raft.founding import found
from iceprod_p2p.raft.journal import Journal, seal
from iceprod_p2p.raft.promises import PEER, SESSION_KEY, Remembered, Session
from iceprod_p2p.raft.snapshots import pairs_digest
from iceprod_p2p.raft.syncobj import REGULAR
from iceprod_p2p.security.certificates import to_der
from iceprod_p2p.site.backups import TABLES_END, header_of
from iceprod_p2p.site.node_keys import found_keys
from iceprod_p2p.store.backup_file import new_backup, write_backup
from iceprod_p2p.store.directory import write_current
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.store.format import FORMAT
from tests.ledger_in_hand import PAIR, STEERING

GOLDEN = Path(__file__).parent / "golden" / "formats"
NODE = "madison-1"
NOW_MS = 1_800_000_000_000


def entry(number: int, *commands: Any) -> bytes:
    """One entry of the log with these commands, by the administrator."""
    proposals = [
        c.Proposal(bytes([number, place]) * 8, 0, "person:admin", command)
        for place, command in enumerate(commands)
    ]
    return encode_entry(proposals)


def genesis() -> bytes:
    """The founding, as `iceprod-node init` writes it."""
    keys, _ = found_keys(cluster="ice", site="madison", node_id=NODE, now_ms=NOW_MS)
    assert keys.root is not None
    member = Member(NODE, "madison", "127.0.0.1:4410", MemberRole.VOTER)
    proposals = [
        c.Proposal(bytes([0, place]) * 8, 0, f"node:{NODE}", command)
        for place, command in enumerate(
            (
                c.FoundCluster("ice", to_der(keys.root.certificate)),
                c.AddNode(
                    member, to_der(keys.authority.certificate), bytes(32), NODE, keys.signer.public_key
                ),
                c.SetPerson("admin", Role.ADMINISTRATOR),
            )
        )
    ]
    return encode_entry(proposals)


def write(directory: Path) -> None:
    """Write the examples of the present format; AssertionError when they are there."""
    assert not directory.exists(), f"{directory} is there: an example is never written anew"
    with tempfile.TemporaryDirectory() as scratch:
        store = Environment(Path(scratch) / "store")
        found(store, NODE, genesis(), apply=apply, incarnation=b"incarnation 16 b")
        for number in range(1, 7):
            _append(store, number)
        transaction = store.write()
        transaction.meta.put(SESSION_KEY, seal(Session(3, 77)))
        transaction.meta.put(PEER + b"geneva-1", seal(Remembered(b"other", 2, 5, 1, 4, 1, 3)))
        transaction.commit()
        directory.mkdir(parents=True)
        with store.read() as snapshot, new_backup(directory / "cluster.backup") as file:
            clock = ManualClock(wall_ms=NOW_MS)
            header = header_of(snapshot.ledger, position(snapshot), made_by=NODE, clock=clock)
            for piece in write_backup(header, snapshot.ledger.scan(b"\x00", TABLES_END)):
                file.write(piece)
            expected = described(snapshot)
        copy = store.copy()
        (made,) = (Path(scratch) / "store" / "scratch").iterdir()
        target = directory / "store" / "raft-000001"
        target.mkdir(parents=True)
        shutil.copy(made / "data.mdb", target / "data.mdb")
        write_current(directory / "store", target.name)
        copy.close()
        store.close()
    (directory / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


def described(snapshot: Any) -> dict[str, Any]:
    """What a reader finds in a store."""
    journal = Journal(snapshot, cache_bytes=0)
    total, count = pairs_digest(snapshot)
    detail = queries.dataset(snapshot.ledger, 1)
    return {
        "applied": queries.applied_index(snapshot.ledger),
        "state_digest": queries.state_digest(snapshot.ledger).hex(),
        "log": [journal.base.index, journal.last_index],
        "log_digest": (journal.digest_at(journal.last_index) or b"").hex(),
        "term": journal.state.term,
        "members": [[member.node_id, str(member.role)] for member in queries.members(snapshot.ledger)],
        "jobs": detail.row.jobs if detail is not None else 0,
        "pairs": count,
        "pairs_sha256": total.hex(),
    }


def _append(store: Environment, number: int) -> None:
    """Append and apply one entry, and drop the oldest ones."""
    command: Any = {
        1: c.SubmitDataset(STEERING, 3, PAIR, 1, "admin"),
        2: c.AddJobs(1, 2),
        3: c.Invite(bytes(32), "geneva"),
    }.get(number, c.Tick(1, 1_000 * number))
    with store.read() as snapshot:
        journal = Journal(snapshot, cache_bytes=1 << 20)
    transaction = store.write()
    journal.open(transaction)
    body = entry(number, command)
    index = journal.append(1, REGULAR + body)
    apply(transaction.ledger, index, 1, body)
    journal.state.commit = journal.state.applied = index
    if number == 5:
        journal.drop_to(2)
    journal.save()
    transaction.commit()


if __name__ == "__main__":
    write(GOLDEN / str(FORMAT))
