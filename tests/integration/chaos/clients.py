"""Clients of a chaos cluster: people who submit, sites that claim, start and report; every call is recorded.

A call without an answer is repeated, with the same request id, at another member, so every history also tests
that a repeat changes nothing.  Nobody waits for ever: `stop` leaves what has no answer yet unknown.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from iceprod_p2p.ledger.codec import decode_outcome, encode_command
from iceprod_p2p.ledger.commands import (
    Claim,
    Command,
    FailTask,
    FinishTask,
    StartTasks,
    SubmitDataset,
    TaskRef,
    TaskStart,
)
from iceprod_p2p.ledger.outcome import Applied, Grant, Outcome
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.resources import Offer, Usage
from iceprod_p2p.model.states import FailReason
from tests.integration.chaos.cluster import ChaosCluster, MemberProcess
from tests.integration.chaos.history import Call, History
from tests.integration.chaos.speech import Gone

SHAPES = (TaskShape("generate"), TaskShape("detect", (0,)))
ANSWER_S = 3.0
DAY_MS = 86_400_000


class Clients:
    """Everybody who asks something of a cluster, with one history."""

    def __init__(self, cluster: ChaosCluster, *, seed: int) -> None:
        self.cluster = cluster
        self.history = History()
        self.random = random.Random(seed)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def begin(
        self, *, submitters: int = 4, sites: int = 6, text_bytes: int = 100, pause_s: float = 0.0
    ) -> None:
        """Start so many people and so many volunteers of sites."""
        for number in range(submitters):
            self._tasks.append(asyncio.create_task(self._submit(number, text_bytes, pause_s)))
        members = list(self.cluster.members.values())
        for number in range(sites):
            site = members[number % len(members)].site
            self._tasks.append(asyncio.create_task(self._work(site, pause_s)))

    async def stop(self) -> None:
        """No new calls; those under way get a few seconds to be answered."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        self._tasks.clear()

    async def call(self, command: Command, actor: str, *, give_up_s: float = 20.0) -> Outcome | None:
        """Ask until there is an answer; None when there is none in time (it may still have been applied)."""
        call = Call(self.random.randbytes(16), command, time.monotonic())
        self.history.calls.append(call)
        body = encode_command(command)
        end_s = call.began_s + give_up_s
        while time.monotonic() < end_s and not (self._stopping and call.tries > 4):
            member = self._some_member()
            call.tries += 1
            try:
                answer = await member.ask(
                    "propose",
                    command=body,
                    actor=actor,
                    request_id=call.request_id,
                    timeout_s=ANSWER_S,
                )
            except Gone:
                await asyncio.sleep(0.05)
                continue
            if "outcome" in answer:
                call.outcome, call.ended_s = decode_outcome(answer["outcome"]), time.monotonic()
                return call.outcome
            await asyncio.sleep(0.05)
        return None

    def _some_member(self) -> MemberProcess:
        members: Sequence[MemberProcess] = list(self.cluster.members.values())
        return self.random.choice([member for member in members if member.up] or members)

    async def _submit(self, number: int, text_bytes: int, pause_s: float) -> None:
        while not self._stopping:
            text = self.random.randbytes(text_bytes // 2).hex()
            dataset = SubmitDataset(
                f"{number:064x}", self.random.randrange(1, 4), SHAPES, 7, "ada", description=text[:512]
            )
            await self.call(dataset, "node:submitter")
            await asyncio.sleep(pause_s)

    async def _work(self, site: str, pause_s: float) -> None:
        while not self._stopping:
            outcome = await self.call(Claim(site, (Offer("cpu", 4),), 4), f"node:{site}")
            if not isinstance(outcome, Applied) or not outcome.grants:
                await asyncio.sleep(0.2)
                continue
            await self._run(site, outcome.grants)
            await asyncio.sleep(pause_s)

    async def _run(self, site: str, grants: Sequence[Grant]) -> None:
        """Hand a claim to a pilot and report each task: most end well, some fail."""
        holder = self.random.randbytes(32)
        refs = [TaskRef(grant.dataset, grant.job, grant.task, grant.attempt) for grant in grants]
        starts = tuple(
            TaskStart(ref, self.random.randbytes(16), "key-a", holder, "pilot", "host", DAY_MS)
            for ref in refs
        )
        started = await self.call(StartTasks(site, starts), f"node:{site}")
        if not isinstance(started, Applied):
            return
        for grant in started.grants:
            ref = TaskRef(grant.dataset, grant.job, grant.task, grant.attempt)
            if self.random.random() < 0.1:
                await self.call(
                    FailTask(ref, holder, site, FailReason.PAYLOAD, "it broke", 1), f"node:{site}"
                )
                continue
            file = FileEntry(f"out.{ref.task}", 5, self.random.randbytes(32).hex())
            finish = FinishTask(
                ref, holder, site, {"events": float(ref.job)}, (file,), Usage(1_000, 900, 50, 10)
            )
            await self.call(finish, f"node:{site}")
