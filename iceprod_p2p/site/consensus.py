"""What the services ask of the replicated ledger, and the few lines that everybody needs around it."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from typing import Protocol

from iceprod_p2p.base.errors import NotAllowed, NotFound, Refused
from iceprod_p2p.ledger.commands import Command
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal


class Consensus(Protocol):
    """The part of `raft.node.RaftNode` that services and roles use; tests give them a ledger without Raft."""

    async def propose(
        self, command: Command, *, actor: str, request_id: bytes | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        """Return the outcome once the command is applied on this node; Unavailable when that is not known in
        time.
        """
        ...

    def view(self) -> AbstractContextManager[KeyValue]:
        """Give one short read snapshot, on any thread."""
        ...

    async def barrier(self, timeout_s: float = 5.0) -> int:
        """Return an index up to which everything acknowledged before the call is applied here."""
        ...

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        ...


def applied(outcome: Outcome, *, remedy: str = "") -> Applied:
    """Return what was applied; a refusal becomes the exception that callers at the edge expect."""
    if isinstance(outcome, Applied):
        return outcome
    detail = outcome.detail or str(outcome.code)
    if outcome.code is Refusal.NOT_FOUND:
        raise NotFound(detail, remedy=remedy)
    if outcome.code is Refusal.NOT_ALLOWED:
        raise NotAllowed(detail, remedy=remedy)
    raise Refused(str(outcome.code), detail, remedy=remedy)


def stable_request_id(*parts: object) -> bytes:
    """Return 16 bytes that are the same for the same parts: a repeat of a call is then one request."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.sha256(b"iceprod request\0" + text.encode("utf-8", "surrogatepass")).digest()[:16]


__all__ = ["Consensus", "applied", "stable_request_id"]
