"""Creating a node's state, once: the first node of a cluster, or one that will join.

A store without an identity is refused by the engine, so a data directory that was wiped never comes back
to life under its old id: its node must join again with a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iceprod_p2p.base.errors import BadInput, IntegrityError
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.raft.journal import (
    IDENTITY_KEY,
    KEY,
    NO_DIGEST,
    STATE_KEY,
    HardState,
    Identity,
    Journal,
    Row,
    digest_after,
    pack_row,
    read_identity,
    seal,
)
from iceprod_p2p.raft.ports import Apply, KeyValue, Snapshot, Store, Transaction
from iceprod_p2p.raft.promises import check_not_retired, retire
from iceprod_p2p.raft.syncobj import REGULAR


def found(
    store: Store, node_id: str, genesis_entry: bytes, *, apply: Apply, incarnation: bytes = b""
) -> list[Any]:
    """Write a new cluster's first entry (index 1, term 1), committed and applied; return its outcomes.

    `genesis_entry` must make this node a voter (and hold the people and settings to begin with).
    `incarnation` are random bytes that tell this data directory from any other of the same name.
    BadInput when the store has an owner already.
    """
    command = REGULAR + genesis_entry

    def write(transaction: Transaction) -> list[Any]:
        row = Row(1, digest_after(NO_DIGEST, 1, command), command)
        transaction.log.put(KEY.pack(1), pack_row(1, row))
        transaction.meta.put(STATE_KEY, seal(HardState(term=1, vote=node_id, commit=1, applied=1)))
        return list(apply(transaction.ledger, 1, 1, genesis_entry))

    return _create(store, Identity(node_id, incarnation), write)


def prepare_joiner(store: Store, node_id: str, *, incarnation: bytes = b"") -> None:
    """Make the store of a node that will join: empty, and fed by the leader once it is a member."""
    _create(store, Identity(node_id, incarnation), lambda transaction: [])


def owner_of(store: Store) -> str | None:
    """Return the node id whose state this store holds, or None for a fresh one."""
    with store.read() as snapshot:
        identity = read_identity(snapshot.meta)
    return None if identity is None else identity.node_id


def mark_retired(store: Store, reason: str) -> None:
    """Write down that no later start on this store may take part; StoreError when the disk refuses."""
    transaction = store.write()
    retire(transaction, reason)
    transaction.commit()


def check_owner(meta: KeyValue, node_id: str) -> Identity:
    """Return whose store this is; IntegrityError unless it is this node's and may take part."""
    identity = read_identity(meta)
    if identity is None:
        raise IntegrityError(
            "there is no node in this data directory",
            remedy="found a cluster or join one first; if its store was lost: iceprod-node rejoin",
        )
    if identity.node_id != node_id:
        raise IntegrityError(
            f"this data directory belongs to node {identity.node_id}, not {node_id}",
            remedy="start the node with its own data directory",
        )
    check_not_retired(meta)
    return identity


def check_state(snapshot: Snapshot, node_id: str) -> int:
    """Read everything that a node needs to start; return how many entries its log keeps.

    IntegrityError names the first record that is damaged, another owner, or why it may not vote any more.
    """
    check_owner(snapshot.meta, node_id)
    journal = Journal(snapshot, cache_bytes=0)
    return journal.last_index - journal.base.index


def _create(store: Store, identity: Identity, write: Callable[[Transaction], list[Any]]) -> list[Any]:
    owner = owner_of(store)
    if owner is not None:
        raise BadInput(f"this data directory belongs to node {owner} already", remedy="use another directory")
    transaction = store.write()
    try:
        transaction.meta.put(IDENTITY_KEY, seal(identity))
        outcomes = write(transaction)
        passing("raft.create.before")
        transaction.commit()
        passing("raft.create.after")
    except BaseException:
        transaction.abort()
        raise
    return outcomes
