"""The site's stock: attempts that it has claimed and no pilot has, with what is being handed out set aside.

Read from the ledger whenever it has changed, at most every few milliseconds; exchanges that wait for work are
woken in the order in which they came, as many as there is work for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.site.plans.orders import Candidate, Room, choose


class Stock:
    """Used on the event loop only.  `read` gives the site's claimed attempts in the ledger's order."""

    def __init__(self, read: Callable[[], Sequence[Candidate]]) -> None:
        self._read = read
        self._waiting: list[Candidate] = []
        self._reserved: set[TaskRef] = set()
        self._waiters: dict[asyncio.Future[None], None] = {}  # In the order in which they came.

    def refresh(self) -> None:
        """Read the ledger again, and wake as many waiting exchanges as there are tasks."""
        self._waiting = list(self._read())
        self._wake(len(self._waiting) - len(self._reserved))

    @property
    def tasks(self) -> list[Candidate]:
        """Claimed attempts that nobody is being given."""
        return [entry for entry in self._waiting if entry.ref not in self._reserved]

    def take(self, room: Room) -> list[Candidate]:
        """Choose what fits `room` and set it aside until `release`."""
        # A large stock is looked through as far as the pilot's room goes, and no copy is made of it.
        chosen = choose((entry for entry in self._waiting if entry.ref not in self._reserved), room)
        self._reserved.update(entry.ref for entry in chosen)
        return chosen

    def release(self, refs: Iterable[TaskRef], *, gone: bool) -> None:
        """End the setting aside; `gone` when they were handed out, else they may be given to others."""
        refs = set(refs)
        self._reserved -= refs
        if gone:
            self._waiting = [entry for entry in self._waiting if entry.ref not in refs]
        else:
            self._wake(len(refs))

    async def wait(self, timeout_s: float) -> None:
        """Return when there may be work, or after `timeout_s`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await asyncio.wait_for(waiter, timeout_s)
        except TimeoutError:
            return
        finally:
            self._waiters.pop(waiter, None)

    @property
    def waiters(self) -> int:
        """How many exchanges wait for work now."""
        return len(self._waiters)

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiters:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            if not waiter.done():
                waiter.set_result(None)
                count -= 1
