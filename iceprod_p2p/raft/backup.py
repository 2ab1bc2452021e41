"""Where in the log a store's tables are, and a store that begins with the tables of a backup."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from iceprod_p2p.base.errors import IntegrityError
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.raft.journal import (
    BASE_KEY,
    IDENTITY_KEY,
    KEY,
    LOG_END,
    STATE_KEY,
    Base,
    HardState,
    Identity,
    Row,
    digest_after,
    pack_row,
    seal,
    unpack_row,
    unseal,
)
from iceprod_p2p.raft.ports import Apply, Snapshot, Store, Transaction
from iceprod_p2p.raft.proposals import EMPTY_ENTRY
from iceprod_p2p.raft.syncobj import REGULAR

PAIRS_PER_TRANSACTION: Final = 10_000


def position(snapshot: Snapshot) -> Base:
    """Return the last entry that the tables hold: index, term, and the log's digest up to it.

    IntegrityError when the store holds no state, or a damaged one.
    """
    sealed, sealed_base = snapshot.meta.get(STATE_KEY), snapshot.meta.get(BASE_KEY)
    if sealed is None:
        raise IntegrityError("this store holds nothing of a cluster yet")
    index = unseal("state", sealed, HardState).applied
    base = Base() if sealed_base is None else unseal("base", sealed_base, Base)
    if index == base.index:
        return base
    value = snapshot.log.get(KEY.pack(index))
    if value is None:
        raise IntegrityError(f"entry {index} of the log is missing")
    row = unpack_row(index, value)
    return Base(index, row.term, row.digest)


def apply_rest(transaction: Transaction, *, apply: Apply) -> Base:
    """Apply what the log holds beyond the tables, committed or not, and return the position then.

    For a survivor of a lost majority: whatever was acknowledged with its vote is in its log, perhaps without
    that it ever heard so.  An entry that nobody acknowledged may be among it, and is then done after all.
    """
    at = position(transaction)
    rest = list(
        transaction.log.scan(KEY.pack(at.index + 1), LOG_END)
    )  # Nothing is written while it is walked.
    for key, value in rest:
        (index,) = KEY.unpack(key)
        row = unpack_row(index, value)
        if index != at.index + 1 or row.digest != digest_after(at.digest, row.term, row.command):
            raise IntegrityError(f"entry {index} does not follow from the log before it")
        entry = row.command[1:] if row.command[:1] == REGULAR else EMPTY_ENTRY
        apply(transaction.ledger, index, row.term, entry)
        at = Base(index, row.term, row.digest)
    return at


def restore(
    store: Store,
    node_id: str,
    pairs: Iterable[tuple[bytes, bytes]],
    at: Base,
    first_entry: bytes,
    *,
    apply: Apply,
    incarnation: bytes,
) -> list[Any]:
    """Fill an empty store with the tables of a backup, and begin a log after them; return the outcomes.

    `first_entry` is entry `at.index + 1` of term `at.term + 1`, committed and applied; it must make this node
    the only voter.  Nothing counts before the last transaction: a store without an identity is refused.
    """
    walk = iter(pairs)
    while page := list(islice(walk, PAIRS_PER_TRANSACTION)):
        transaction = store.write()
        for key, value in page:
            transaction.ledger.put(key, value)
        transaction.commit()
    passing("node.restore.before")
    index, term = at.index + 1, at.term + 1
    command = REGULAR + first_entry
    transaction = store.write()
    try:
        outcomes = list(apply(transaction.ledger, index, term, first_entry))
        row = Row(term, digest_after(at.digest, term, command), command)
        transaction.log.put(KEY.pack(index), pack_row(index, row))
        transaction.meta.put(BASE_KEY, seal(at))
        state = HardState(term=term, vote=node_id, commit=index, applied=index)
        transaction.meta.put(STATE_KEY, seal(state))
        transaction.meta.put(IDENTITY_KEY, seal(Identity(node_id, incarnation)))
        transaction.commit()
    except BaseException:
        transaction.abort()
        raise
    return outcomes
