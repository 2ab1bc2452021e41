"""What the services ask of the replicated ledger, and the few lines that everybody needs around it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from struct import Struct
from typing import Final, Protocol

from iceprod_p2p.base.errors import NotAllowed, NotFound, Refused
from iceprod_p2p.ledger.commands import Command, TaskRef
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal

_TASK_PLACE: Final = Struct(">IIH")
TURN_S: Final = 8.0  # Ledger time must pass between two changes of the voters: a tick or two.
TURN_PAUSE_S: Final = 0.25


class Consensus(Protocol):
    """The part of `raft.node.RaftNode` that services and roles use; tests give them a ledger without Raft."""

    async def propose(
        self, command: Command, *, actor: str, request_id: bytes | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        """Return the outcome once the command is applied on this node; Unavailable when that is not known in
        time.
        """
        ...

    async def propose_all(
        self,
        commands: Sequence[Command],
        *,
        actor: str,
        request_ids: Sequence[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> list[Outcome]:
        """Return the outcomes of several commands, in order, as so many calls of `propose`; Unavailable when
        any is not known in time.
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


async def propose_in_turn(
    consensus: Consensus, command: Command, *, actor: str, request_id: bytes, wait_s: float = TURN_S
) -> Outcome:
    """Propose a change of the voters, and again while the one before it is under way, for up to `wait_s`.

    The same `request_id` gives the same outcome again, however often it took.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    attempt = 0
    while True:
        outcome = await consensus.propose(
            command, actor=actor, request_id=stable_request_id("turn", request_id.hex(), attempt)
        )
        busy = not isinstance(outcome, Applied) and outcome.code is Refusal.BUSY
        if not busy or loop.time() > until_s:
            return outcome
        attempt += 1
        await asyncio.sleep(TURN_PAUSE_S)


def stable_request_id(*parts: object) -> bytes:
    """Return 16 bytes that are the same for the same parts: a repeat of a call is then one request."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.sha256(b"iceprod request\0" + text.encode("utf-8", "surrogatepass")).digest()[:16]


def stable_task_request_id(ref: TaskRef, *parts: object) -> bytes:
    """Return 16 bytes that are the same for the same task and parts, and lie beside those of its neighbours.

    Pilots report on tasks that were handed out side by side, so the ledger's memory of their requests is written
    to few pages.  The last 6 bytes tell what is asked about one task; nobody but its holders may ask.
    """
    place = _TASK_PLACE.pack(ref.dataset & 0xFFFFFFFF, ref.job & 0xFFFFFFFF, ref.task & 0xFFFF)
    return place + stable_request_id(ref.dataset, ref.job, ref.task, ref.attempt, *parts)[:6]


__all__ = ["Consensus", "applied", "propose_in_turn", "stable_request_id", "stable_task_request_id"]
