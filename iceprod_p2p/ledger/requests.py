"""Request memory: the first outcome of each request, so that a retry changes nothing and gets the same answer.

Outcomes are kept for a horizon of ledger time; under a flood the oldest go earlier.  A request made before
what was forgotten is refused EXPIRED, for nobody can tell any more whether it is new.
"""

from __future__ import annotations

from typing import Final

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.codec import decode_outcome
from iceprod_p2p.ledger.commands import Proposal
from iceprod_p2p.ledger.limits import REQUEST_BYTES_MAX, REQUEST_HORIZON_MS, REQUEST_OVERHEAD_BYTES
from iceprod_p2p.ledger.outcome import Outcome, Refusal, Refused
from iceprod_p2p.ledger.tables import Tables

PAGES_PER_ENTRY: Final = 2  # Two old entries go for each new one, so the memory shrinks back after a flood.
_encode: Final = msgspec.msgpack.Encoder().encode
_page: Final = msgspec.msgpack.Decoder(r.RequestPage).decode


def first_outcome(t: Tables, proposal: Proposal) -> Outcome | None:
    """Return what a request got before, or the refusal of one that is too old or from the future.

    None if it is new.
    """
    remembered = t.kv.get(keys.REQUEST + proposal.request_id)
    if remembered is not None:
        return decode_outcome(remembered)
    if proposal.made_at_ms <= t.progress.forgotten_ms:
        return Refused(
            Refusal.EXPIRED, "the request is older than the ledger remembers: look first, then ask anew"
        )
    if proposal.made_at_ms > t.progress.time_ms:
        return Refused(Refusal.MALFORMED, "the request was made at a ledger time that has not come yet")
    return None


class Memory:
    """What one entry makes the ledger remember."""

    __slots__ = ("_bytes", "_ids", "_t")

    def __init__(self, t: Tables) -> None:
        self._t = t
        self._ids: list[bytes] = []
        self._bytes = 0

    def remember(self, request_id: bytes, outcome: bytes) -> None:
        """Keep the encoded outcome of a request."""
        self._t.kv.put(keys.REQUEST + request_id, outcome)
        self._ids.append(request_id)
        self._bytes += len(outcome) + len(request_id) + REQUEST_OVERHEAD_BYTES

    def close(self, index: int) -> None:
        """Note the entry's requests together, and forget old entries.

        Beyond the horizon, or when there are too many.
        """
        t, progress = self._t, self._t.progress
        if self._ids:
            page = r.RequestPage(t.now_ms, self._bytes, b"".join(self._ids))
            t.kv.put(keys.by_index(keys.REQUEST_PAGE, index), _encode(page))
            progress.request_bytes += self._bytes
        oldest = t.scan_keys(keys.REQUEST_PAGE, PAGES_PER_ENTRY)
        for key, raw in oldest:
            page = _page(raw)
            past = page.applied_ms + REQUEST_HORIZON_MS < t.now_ms
            if not past and progress.request_bytes <= REQUEST_BYTES_MAX:
                return
            for start in range(0, len(page.request_ids), 16):
                t.kv.delete(keys.REQUEST + page.request_ids[start : start + 16])
            t.kv.delete(key)
            progress.request_bytes -= page.size_bytes
            progress.forgotten_ms = page.applied_ms
