"""Blobs: which nodes hold a steering document or module, so that others know where to fetch it; and who needs it.

A blob is needed by what was recorded to need it (`use_blob`) and by file records of the same content.  What nothing
needs may be forgotten once it is no longer new; whoever holds it then removes it.  Datasets of a ledger before version
`NAMED_BLOBS` did not name what they need: as long as there is one of them, every blob counts as needed.
"""

from __future__ import annotations

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import RecordBlob
from iceprod_p2p.ledger.commands_blobs import DropBlobs, ForgetBlobs
from iceprod_p2p.ledger.limits import BLOB_GRACE_MS, BLOB_NODES_MAX, BLOBS_AT_ONCE
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.ledger.versions import NAMED_BLOBS


def record_blob(t: Tables, command: RecordBlob, asked: Asked) -> Outcome:
    """Add nodes to those that hold a blob; nodes that have left the cluster are dropped from them."""
    key = keys.BLOB + bytes.fromhex(command.sha256)
    known = t.blobs.get(key)
    if known is not None and known.size_bytes != command.size_bytes:
        return Refused(
            Refusal.CONFLICT, f"the blob has {known.size_bytes} bytes by the record, not {command.size_bytes}"
        )
    before = known.node_ids if known is not None else ()
    nodes = {*command.node_ids, *(node for node in before if t.nodes.get(keys.by_name(keys.NODE, node)))}
    if len(nodes) > BLOB_NODES_MAX:
        return Refused(Refusal.LIMIT, f"at most {BLOB_NODES_MAX} holders of a blob are noted")
    recorded_ms = t.now_ms if t.version >= NAMED_BLOBS else 0
    t.blobs.put(key, r.BlobRecord(command.size_bytes, tuple(sorted(nodes)), recorded_ms))
    return Applied()


def drop_blobs(t: Tables, command: DropBlobs, asked: Asked) -> Outcome:
    """Note that a node holds blobs no more; what it was not said to hold changes nothing."""
    if len(command.sha256) > BLOBS_AT_ONCE:
        return Refused(Refusal.LIMIT, f"at most {BLOBS_AT_ONCE} blobs are dropped at once")
    for sha256 in command.sha256:
        key = keys.BLOB + bytes.fromhex(sha256)
        known = t.blobs.get(key)
        if known is not None and command.node_id in known.node_ids:
            left = tuple(node for node in known.node_ids if node != command.node_id)
            t.blobs.put(key, msgspec.structs.replace(known, node_ids=left))
    return Applied()


def forget_blobs(t: Tables, command: ForgetBlobs, asked: Asked) -> Outcome:
    """Forget blobs that nothing needs and nobody has just recorded."""
    if len(command.sha256) > BLOBS_AT_ONCE:
        return Refused(Refusal.LIMIT, f"at most {BLOBS_AT_ONCE} blobs are forgotten at once")
    kept = []
    for sha256 in command.sha256:
        digest = bytes.fromhex(sha256)
        known = t.blobs.get(keys.BLOB + digest)
        if known is None:
            continue
        if is_needed(t, digest) or known.recorded_ms + BLOB_GRACE_MS > t.now_ms:
            kept.append(f"blob {sha256[:12]} is needed or new")
        else:
            t.blobs.delete(keys.BLOB + digest)
    return Applied(tuple(kept))


def is_needed(t: Tables, digest: bytes) -> bool:
    """Return whether anything recorded needs a blob: a dataset's document, or a file of the same content."""
    if _may_be_unnamed(t):
        return True
    used = t.scan_keys(keys.BLOB_USE + digest, 1)
    return bool(used or t.scan_keys(keys.CONTENT + digest[:16], 1))


def _may_be_unnamed(t: Tables) -> bool:
    """Return whether there is a dataset of which nobody knows what it needs."""
    if t.version < NAMED_BLOBS:
        return True
    cluster = t.cluster
    if cluster is None or not cluster.datasets_unnamed:
        return False
    oldest = t.scan_keys(keys.DATASET, 1)
    return bool(oldest) and keys.number_of(oldest[0][0], 1, 4) <= cluster.datasets_unnamed


def use_blob(t: Tables, digest: bytes, user: bytes) -> None:
    """Keep a blob until `user` (a key of a record that is not there twice) releases it."""
    t.kv.put(keys.BLOB_USE + digest + user, b"")


def release_blob(t: Tables, digest: bytes, user: bytes) -> None:
    """Let a blob go, as far as `user` is concerned."""
    t.kv.delete(keys.BLOB_USE + digest + user)


def use_dataset_blobs(t: Tables, dataset: int, digests: tuple[bytes, ...]) -> None:
    """Keep what a dataset's document names, and the document, while the dataset is known."""
    if t.version < NAMED_BLOBS:
        return
    user = keys.by_dataset(keys.DATASET, dataset)
    t.dataset_blobs.put(keys.by_dataset(keys.DATASET_BLOBS, dataset), digests)
    for digest in digests:
        use_blob(t, digest, user)


def release_dataset_blobs(t: Tables, dataset: int) -> None:
    """Let go what a dataset needed; to be called when it is gone for good."""
    user = keys.by_dataset(keys.DATASET, dataset)
    key = keys.by_dataset(keys.DATASET_BLOBS, dataset)
    for digest in t.dataset_blobs.get(key) or ():
        release_blob(t, digest, user)
    t.dataset_blobs.delete(key)
