"""Keys and tables of the ledger."""

from __future__ import annotations

from iceprod_p2p.ledger.keyvalue import KEY_BYTES_MAX, KeyValue

__all__ = ["KEY_BYTES_MAX", "KeyValue"]
