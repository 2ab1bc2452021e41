"""Who waits for the outcome of which request, on the event loop: one future for a whole call, however many commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from iceprod_p2p.base.errors import IceProdError, Unavailable


def settle(future: asyncio.Future[Any], result: Any) -> None:
    """Answer one caller, unless it has gone; an IceProdError is raised there."""
    if future.done():
        return
    if isinstance(result, IceProdError):
        future.set_exception(result)
    else:
        future.set_result(result)


class _Call:
    """One caller: it goes on when all its requests have outcomes, or the first of them has failed."""

    __slots__ = ("future", "left", "outcomes", "until_s")

    def __init__(self, future: asyncio.Future[list[Any]], count: int, until_s: float) -> None:
        self.future = future
        self.outcomes: list[Any] = [None] * count
        self.left = count
        self.until_s = until_s

    def answer(self, place: int, result: Any) -> None:
        if self.future.done():  # The caller has gone, or knows of a failure.
            return
        if isinstance(result, IceProdError):
            self.future.set_exception(result)
            return
        self.outcomes[place] = result
        self.left -= 1
        if not self.left:
            self.future.set_result(self.outcomes)


class Callers:
    """All callers of one node; used on its event loop only."""

    def __init__(self) -> None:
        # By request id: the calls that wait for it, each with the place of its outcome.
        self._waiting: dict[bytes, list[tuple[_Call, int]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, request_ids: Sequence[bytes], until_s: float) -> asyncio.Future[list[Any]]:
        """Return a future of the outcomes in this order; after `until_s` (loop time) `give_up` may end it."""
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        call = _Call(future, len(request_ids), until_s)
        for place, request_id in enumerate(request_ids):
            self._waiting.setdefault(request_id, []).append((call, place))
        return future

    def resolve(self, done: Sequence[tuple[bytes, Any]]) -> None:
        """Hand out outcomes, or what went wrong, by request id."""
        for request_id, result in done:
            for call, place in self._waiting.pop(request_id, ()):
                call.answer(place, result)

    def give_up(self, now_s: float) -> None:
        """Answer those whom the Raft thread should have answered long ago, and forget who has gone."""
        silent = Unavailable("this node's Raft thread does not answer", remedy="ask another node")
        for request_id, waiting in list(self._waiting.items()):
            for call, place in waiting:
                if now_s >= call.until_s:
                    call.answer(place, silent)
            kept = [(call, place) for call, place in waiting if not call.future.done()]
            if kept:
                self._waiting[request_id] = kept
            else:
                del self._waiting[request_id]

    def fail(self, error: IceProdError) -> None:
        """End everybody's wait."""
        waiting, self._waiting = self._waiting, {}
        for calls in waiting.values():
            for call, place in calls:
                call.answer(place, error)
