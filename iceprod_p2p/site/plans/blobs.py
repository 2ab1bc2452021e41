"""What a node does for blobs that everybody needs: replace copies that were lost, and let go what nothing needs.

Every node plans for itself from the same records, so that exactly one holder acts for each blob, without a word between
them: the first of its holders that are well, in an order that spreads the work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class KnownBlob:
    """A recorded blob: the nodes that hold it by the record, whether anything needs it, whether it is new."""

    sha256: str
    node_ids: tuple[str, ...]
    needed: bool
    old: bool


@dataclass(frozen=True, slots=True)
class Push:
    """Give a blob to one of these nodes, the first that takes it, until `count` have taken it."""

    sha256: str
    to: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class BlobPlan:
    """What one node does now."""

    pushes: tuple[Push, ...] = ()
    lost: tuple[str, ...] = ()  # This node is said to hold them and does not.
    kept: tuple[str, ...] = ()  # It holds them and is not said to.
    forgotten: tuple[str, ...] = ()  # Nothing needs them.


def plan_blobs(
    blobs: Iterable[KnownBlob],
    *,
    me: str,
    here: Collection[str],
    well: Sequence[str],
    copies: int,
    forgets: bool,
) -> BlobPlan:
    """Return what node `me` does, which holds the blobs `here`.

    `well` are the nodes of the cluster whose sites are alive; each needed blob should be held by `copies` of them, or
    by all when there are fewer.  With `forgets` this node is the one that lets go what is old and not needed.
    """
    pushes, lost, kept, forgotten = [], [], [], []
    for blob in blobs:
        mine = blob.sha256 in here
        if me in blob.node_ids and not mine:
            lost.append(blob.sha256)
        if mine and me not in blob.node_ids:
            kept.append(blob.sha256)
        if not blob.needed:
            if forgets and blob.old:
                forgotten.append(blob.sha256)
            continue
        holders = [node for node in well if node in blob.node_ids and (node != me or mine)]
        missing = min(copies, len(well)) - len(holders)
        if missing <= 0 or not holders or _ordered(blob.sha256, holders)[0] != me:
            continue
        others = _ordered(blob.sha256, [node for node in well if node not in holders and node != me])
        if others:
            pushes.append(Push(blob.sha256, tuple(others), missing))
    return BlobPlan(tuple(pushes), tuple(lost), tuple(kept), tuple(forgotten))


def _ordered(digest: str, nodes: Iterable[str]) -> list[str]:
    """Return nodes in an order of this blob's own, the same on every node."""
    return sorted(nodes, key=lambda node: sha256(f"{digest} {node}".encode()).digest())
