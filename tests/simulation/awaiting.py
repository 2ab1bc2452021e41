"""Runs the coroutines of a node's roles in virtual time, without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from types import SimpleNamespace
from typing import Any

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import Command
from iceprod_p2p.raft.machine import encode_proposal
from tests.simulation.disk import LedgerHandle
from tests.simulation.process import Process
from tests.simulation.world import World


class Later:
    """A result that will come; a coroutine may await it."""

    def __init__(self) -> None:
        self._result: Any = None
        self._done = False
        self._waiting: Callable[[], None] | None = None

    def set(self, result: Any) -> None:
        """Give the result; an IceProdError is raised where it is awaited."""
        if not self._done:
            self._result, self._done = result, True
            if self._waiting is not None:
                self._waiting()

    def __await__(self) -> Generator[Later, None, Any]:
        if not self._done:
            yield self
        if isinstance(self._result, IceProdError):
            raise self._result
        return self._result

    def when_done(self, act: Callable[[], None]) -> None:
        """Call `act` once the result is there."""
        self._waiting = act
        if self._done:
            act()


def run(world: World, who: str, coroutine: Coroutine[Any, None, None], finished: Callable[[], None]) -> None:
    """Drive a coroutine that awaits `Later`s only; an IceProdError ends it like a role's step that failed."""

    def step() -> None:
        world.speaker = who
        try:
            later = coroutine.send(None)
        except StopIteration:
            finished()
        except IceProdError:
            finished()
        else:
            later.when_done(step)

    step()


class NodeDoor:
    """`site.consensus.Consensus` on a simulated process, with its checks of every answer."""

    def __init__(self, process: Process, identifier: Callable[[], bytes]) -> None:
        self._process = process
        self._identifier = identifier

    @property
    def is_leader(self) -> bool:
        engine = self._process.engine
        return engine is not None and engine.is_leader

    def view(self) -> LedgerHandle:
        return self._process.disk.image.read_ledger()

    def status(self) -> SimpleNamespace:
        engine = self._process.engine
        return SimpleNamespace(term=engine.core.term if engine is not None else 0)

    def ledger_time_ms(self) -> int:
        """Return the ledger time as this node knows it."""
        with self.view() as kv:
            return queries.ledger_time_ms(kv)

    async def propose(
        self, command: Command, *, actor: str, request_id: bytes | None = None, timeout_s: float = 10.0
    ) -> Any:
        request_id = request_id or self._identifier()
        later = Later()
        body = encode_proposal(request_id, self.ledger_time_ms(), actor, command)
        self._process.propose(request_id, body, timeout_s, later.set)
        return await later

    async def propose_all(
        self,
        commands: Sequence[Command],
        *,
        actor: str,
        request_ids: Sequence[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> list[Any]:
        ids: Sequence[bytes | None] = request_ids or [None] * len(commands)
        return [
            await self.propose(command, actor=actor, request_id=request_id, timeout_s=timeout_s)
            for command, request_id in zip(commands, ids, strict=True)
        ]

    async def barrier(self, timeout_s: float = 5.0) -> int:
        later = Later()
        self._process.read_barrier(timeout_s, later.set)
        index: int = await later
        return index
