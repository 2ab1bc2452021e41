"""Reads every record of the ledger again and again, slowly: damage is found before somebody needs the record.

The checksum of each is compared where it is read (`store.transactions`); a node that finds one damaged ends its
Raft part by name, for ever, and comes back with the state of the others under a new id.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from itertools import islice
from typing import Final, Protocol

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.raft.promises import SetBack
from iceprod_p2p.store.errors import StoreBroken

PAGE: Final = 2_000  # A few milliseconds; ten million records take some hours.
TABLES_END: Final = b"\xff" * 512
log = get_logger("scrub")


class Raft(Protocol):
    """The part of a node's Raft that is used here."""

    def view(self) -> AbstractContextManager[KeyValue]:
        """Give one short read snapshot."""
        ...

    def end(self, cause: IceProdError) -> None:
        """End the Raft part by name."""
        ...


class Scrub:
    """A role; `rounds` counts how often everything was read."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._after = b""
        self.rounds = 0

    async def step(self) -> None:
        """Read the next page."""
        try:
            self._after = await asyncio.to_thread(self._page, self._after)
        except StoreBroken as damage:
            log.error("damaged record", why=damage.message)
            self._raft.end(SetBack(damage.message, remedy=damage.remedy))
            return
        self.rounds += not self._after

    def _page(self, after: bytes) -> bytes:
        """Return the last key read; empty at the end of the tables."""
        with self._raft.view() as kv:
            keys = [key for key, _ in islice(kv.scan(after + b"\x00", TABLES_END), PAGE)]
        return keys[-1] if len(keys) == PAGE else b""
