"""What the callers ask of the ledger: its own commands, as the services of a node propose them."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from typing import Final

from iceprod_p2p.ledger.commands import Claim, Command, FinishTask, RecordBlob, StartTasks, TaskRef, TaskStart
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.model.resources import Offer, Usage
from iceprod_p2p.raft.node import RaftNode

CLAIM_TASKS: Final = 256  # Claimed at once, as a volunteer with free slots does.
STOCK_LOW: Final = 512  # Claimed tasks that the callers of one node have before them.
STATISTICS: Final = {"events": 1_000.0, "energy_sum_GeV": 123_456.75}
USAGE: Final = Usage(1_000, 900, 50, 10)
EXPIRES_MS: Final = 10**12


class Recording:
    """The light command: one blob record of about 200 bytes, as large as the peer's values."""

    def __init__(self, node: RaftNode) -> None:
        self._node = node
        self._actor = f"node:{node.node_id}"

    async def prepare(self) -> None:
        """Nothing is needed."""

    async def call(self, batch: int) -> None:
        """Record `batch` blobs."""
        commands = [RecordBlob(os.urandom(32).hex(), 4_096, ("node-a", "node-b")) for _ in range(batch)]
        await propose_all(self._node, commands, self._actor)


class Running:
    """Transitions of tasks: started by one call, finished by the caller's next, with statistics and use.

    Tasks are claimed in bulk beside the callers, as the volunteer does; claims are carried out within the
    measured time and not counted.
    """

    def __init__(self, node: RaftNode, site: str) -> None:
        self._node = node
        self._site = site
        self._actor = f"node:{node.node_id}"
        self._holder = os.urandom(32)
        self._stock: deque[TaskRef] = deque()
        self._started: deque[list[TaskRef]] = deque()
        self._claiming: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Claim the first tasks."""
        while len(self._stock) < 2 * STOCK_LOW:
            await self._claim()

    async def call(self, batch: int) -> None:
        """Start `batch` tasks, or finish as many that were started."""
        if self._started and len(self._started[0]) == batch:
            refs = self._started.popleft()
            finishes = [FinishTask(ref, self._holder, self._site, STATISTICS, (), USAGE) for ref in refs]
            await propose_all(self._node, finishes, self._actor)
            return
        refs = [await self._take() for _ in range(batch)]
        starts = [StartTasks(self._site, (self._start(ref),)) for ref in refs]
        await propose_all(self._node, starts, self._actor)
        self._started.append(refs)

    def _start(self, ref: TaskRef) -> TaskStart:
        return TaskStart(ref, os.urandom(16), "key-a", self._holder, "pilot-1", "worker-1", EXPIRES_MS)

    async def _take(self) -> TaskRef:
        if len(self._stock) < STOCK_LOW and (self._claiming is None or self._claiming.done()):
            self._claiming = asyncio.create_task(self._claim())
        while not self._stock:
            await asyncio.sleep(0.001)
        return self._stock.popleft()

    async def _claim(self) -> None:
        offers = (Offer("std", CLAIM_TASKS),)
        outcome = await self._node.propose(Claim(self._site, offers, CLAIM_TASKS), actor=self._actor)
        assert isinstance(outcome, Applied) and outcome.grants, outcome
        self._stock.extend(TaskRef(g.dataset, g.job, g.task, g.attempt) for g in outcome.grants)


Work = Recording | Running


async def propose_all(node: RaftNode, commands: Sequence[Command], actor: str) -> None:
    """Propose commands together; AssertionError when one was refused: a refusal costs less than the work."""
    for outcome in await node.propose_all(commands, actor=actor):
        assert isinstance(outcome, Applied), outcome
