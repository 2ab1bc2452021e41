"""Wall clocks jump by minutes and by a day, forwards and back: no lease ends too early, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import pytest

from iceprod_p2p.client.connection import Connection
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.chaos import node_with_clock
from tests.integration.chaos.clients import Clients
from tests.integration.chaos.clocks import WallClock, need_clocks_to_set
from tests.integration.chaos.cluster import ROOT, ChaosCluster, MemberProcess, until
from tests.integration.chaos.judge import judged
from tests.integration.chaos.working_node import LONG_S, Work, WorkingNode, assert_complete
from tests.integration.node_processes import leads, task_counts, wait_for

pytestmark = [pytest.mark.timeout(600)]
DAY_S = 86_400
JUMPS_S = (240, -240, DAY_S, -DAY_S)


async def test_the_ledgers_time_follows_no_wall_clock_and_nothing_is_lost(tmp_path: Path) -> None:
    """The leader's clock jumps, then everybody's, each its own way; a member is restarted in another day."""
    need_clocks_to_set()
    cluster = ChaosCluster(tmp_path, ("a", "b", "c"))
    clock = {name: WallClock(tmp_path / f"{name}.clock") for name in cluster.members}
    began_s = time.monotonic()  # The ledger's time begins a little later.
    try:
        await asyncio.gather(
            *(m.start(environment=clock[m.name].environment()) for m in cluster.members.values())
        )
        await cluster.leader()
        clients = Clients(cluster, seed=3)
        clients.begin(submitters=4, sites=6, pause_s=0.02)
        for number, jump_s in enumerate(JUMPS_S):
            leader = await cluster.leader()
            clock[leader.name].jump(jump_s)
            for name, other in clock.items():
                if number % 2 and name != leader.name:
                    other.jump(-jump_s)
            for name, member in cluster.members.items():
                await until(f"{name} goes by its own clock", partial(goes_by, member, clock[name]))
            before = len(clients.history.acknowledged)

            async def goes_on(before: int = before) -> bool:
                return len(clients.history.acknowledged) > before + 5

            await until("work goes on", goes_on)
        member = cluster.members["b"]
        await member.kill()
        clock["b"].jump(240)
        await member.start(environment=clock["b"].environment())
        for one in clock.values():
            one.jump(0)
        acknowledged = await judged(cluster, clients)
        state = await cluster.members["a"].ask("state", check=False)
        elapsed_ms = (time.monotonic() - began_s) * 1_000
    finally:
        await cluster.stop()
    print(f"{acknowledged} calls acknowledged while clocks jumped by up to a day, 0 lost")
    assert state["time_ms"] < elapsed_ms + 20_000, "the ledger's time ran ahead: leases would end too early"


async def goes_by(member: MemberProcess, clock: WallClock) -> bool:
    """Whether a member's clock says what it was set to say."""
    wall_ms = (await member.ask("clock"))["wall_ms"]
    return abs(wall_ms - time.time() * 1_000 - clock.offset_s * 1_000) < 10_000


def test_a_site_whose_clock_is_set_by_minutes_loses_no_task_it_holds(tmp_path: Path) -> None:
    """A node with pilots at work: leases of seconds, a clock that is minutes wrong both ways."""
    clock = WallClock(tmp_path / "clock")
    node = WorkingNode(tmp_path / "madison", "madison", slots=1, idle_end_s=3, site_grace_s=60)
    node.program = node_with_clock.__name__
    try:
        assert node.command("init").returncode == 0
        node.start(environment={"PYTHONPATH": str(ROOT), node_with_clock.VARIABLE: str(tmp_path / "clock")})
        with node.connect(give_up_s=60) as connection:
            wait_for("it leads", lambda: leads(connection), timeout_s=60)
            work = Work(node)
            work.submit(jobs=2, nap_s=LONG_S)
            number = work.submitted[-1].result(120)
            wait_for("both run", lambda: task_counts(connection, number) == {"processing": 2}, timeout_s=150)
            for jump_s in (240, -240, 0):
                clock.jump(jump_s)
                time.sleep(3.0)  # Some heartbeats, and looks at pilots, by the new time.
            work.wake()
            numbers = assert_complete(node, work)
            for number in numbers:
                assert attempts(connection, number) == {0}, "a task that was at work was taken away"
    finally:
        node.end()


def attempts(connection: Connection, number: int) -> set[int]:
    """How often the tasks of a dataset were begun anew."""
    request = control_pb2.ListTasksRequest(dataset=str(number), after_job=-1)
    return {task.attempt for task in connection.call("ListTasks", request).tasks}
