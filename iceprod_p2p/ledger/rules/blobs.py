"""Blobs: which nodes hold a steering document or module, so that others know where to fetch it."""

from __future__ import annotations

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import RecordBlob
from iceprod_p2p.ledger.limits import BLOB_NODES_MAX
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked
from iceprod_p2p.ledger.tables import Tables


def record_blob(t: Tables, command: RecordBlob, asked: Asked) -> Outcome:
    """Add nodes to those that hold a blob."""
    key = keys.BLOB + bytes.fromhex(command.sha256)
    known = t.blobs.get(key)
    if known is not None and known.size_bytes != command.size_bytes:
        return Refused(
            Refusal.CONFLICT, f"the blob has {known.size_bytes} bytes by the record, not {command.size_bytes}"
        )
    nodes = {*command.node_ids, *(known.node_ids if known is not None else ())}
    if len(nodes) > BLOB_NODES_MAX:
        return Refused(Refusal.LIMIT, f"at most {BLOB_NODES_MAX} holders of a blob are noted")
    t.blobs.put(key, r.BlobRecord(command.size_bytes, tuple(sorted(nodes))))
    return Applied()
