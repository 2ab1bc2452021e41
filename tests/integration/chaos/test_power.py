"""A true power cut: what was not flushed to the disk is gone, or half there; what was acknowledged is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster, MemberProcess, until
from tests.integration.chaos.history import merge_traces, read_trace
from tests.integration.chaos.judge import judged
from tests.integration.chaos.power import Disk, disks, need_a_power_switch
from tests.integration.chaos.speech import Gone
from tests.integration.node_processes import ROOT, NodeProcess, run_command, task_counts, wait_for

pytestmark = [pytest.mark.timeout(600)]
HELLO = ROOT / "examples" / "hello" / "hello.yaml"
SEED = int(os.environ.get("CHAOS_SEED", "1"))
CUTS = int(os.environ.get("CHAOS_CUTS", "3"))  # Of each kind.


@pytest.fixture(autouse=True)
def switch() -> None:
    need_a_power_switch()


def test_the_disk_forgets_what_was_never_synced_and_keeps_what_was(tmp_path: Path) -> None:
    """The harness sees what it claims to see."""
    disk = Disk(tmp_path, tmp_path / "mounted", size_mib=64)
    try:
        kept, lost = disk.at / "kept", disk.at / "lost"
        with kept.open("wb") as file:
            file.write(b"k" * 100_000)
            os.fsync(file.fileno())
        directory = os.open(disk.at, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        lost.write_bytes(b"l" * 100_000)
        disk.cut(1)
        disk.detach()
        disk.attach()
        assert kept.read_bytes() == b"k" * 100_000
        assert not lost.exists() or lost.read_bytes() != b"l" * 100_000
    finally:
        disk.detach()


async def lose_power(members: Sequence[MemberProcess], disks: dict[str, Disk], seed: int) -> int:
    """Cut the power of these machines, and start them again from what their disks have kept."""
    lost = 0
    for member in members:
        lost += await asyncio.to_thread(disks[member.name].cut, seed)
    for member in members:
        await member.kill()
        await asyncio.to_thread(disks[member.name].detach)
    for member in members:
        await asyncio.to_thread(disks[member.name].attach)
    started = await asyncio.gather(*(member.start() for member in members), return_exceptions=True)
    for fault in started:
        if fault is not None:
            raise fault
    return lost


async def test_members_whose_power_is_cut_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """One machine, then all of them at once, again and again, under load."""
    chance = random.Random(SEED)
    names = ("a", "b", "c")
    with disks(tmp_path, names) as power:
        cluster = ChaosCluster(tmp_path, names, log_keep_entries=300, compact_entries_max=100)
        try:
            await cluster.start()
            clients = Clients(cluster, seed=SEED)
            clients.begin(submitters=12, sites=6, text_bytes=300, pause_s=0.01)
            sectors = 0
            for number in range(CUTS):
                for machines in ([cluster.members[chance.choice(names)]], list(cluster.members.values())):
                    await cluster.leader()
                    await asyncio.sleep(chance.uniform(0.5, 1.5))
                    sectors += await lose_power(machines, power, SEED * 1_000 + number)
            acknowledged = await judged(cluster, clients, least=10 * CUTS)
        finally:
            await cluster.stop()
    print(
        f"{acknowledged} calls acknowledged in {2 * CUTS} power cuts ({sectors} unsynced sectors lost), 0 lost"
    )


async def test_members_that_never_sync_are_seen_to_lose_what_they_acknowledged(tmp_path: Path) -> None:
    """The same cut, and a store that does not wait for its disk: the harness sees the loss."""
    names = ("a", "b", "c")
    with disks(tmp_path, names) as power:
        cluster = ChaosCluster(tmp_path, names)
        cluster.sync = False
        try:
            await cluster.start()
            clients = Clients(cluster, seed=SEED)
            clients.begin(submitters=12, sites=6, text_bytes=300)

            async def enough() -> bool:
                return len(clients.history.acknowledged) > 50

            await until("something is acknowledged", enough)
            # Nobody asks for more: what comes after the cut could make up for what was lost.
            stopping = asyncio.create_task(clients.stop())
            with contextlib.suppress(Gone):  # A store of which half is missing may also refuse to open.
                await lose_power(list(cluster.members.values()), power, SEED)

            async def something_is_lost() -> bool:
                """Too few have come back, or they have applied something else where there was something before."""
                members = cluster.members.values()
                traces = {m.name: list(read_trace(m.directory / "applied.trace")) for m in members}
                return sum(m.up for m in members) < 2 or bool(merge_traces(traces)[1])

            await until("something is lost: is the power really cut?", something_is_lost)
            await stopping
        finally:
            await cluster.stop()


def test_a_site_whose_power_is_cut_keeps_its_keys_its_files_and_what_it_was_told(tmp_path: Path) -> None:
    """A whole node, its pilots and its batch system, on one machine that loses power during productions."""
    chance = random.Random(SEED)
    disk = Disk(tmp_path / "disk", tmp_path / "machine", size_mib=768)
    node = NodeProcess(tmp_path / "machine" / "madison", "madison", site_grace_s=5, idle_end_s=3)
    node.log_path = tmp_path / "node.log"  # What it said is the test's, not the machine's.
    disk.sync()  # Its configuration is the operator's.
    try:
        assert node.command("init").returncode == 0
        config = disk.at / "other" / "site.toml"
        words = ("--site", "zeuthen", "--cluster", "demo", "--data-dir", str(disk.at / "other" / "data"))
        assert run_command("init", "--config", str(config), *words).returncode == 0
        disk.cut(SEED)  # Right after `init` has ended: all of it was promised.
        disk.detach()
        disk.attach()
        assert run_command("config", "check", "--config", str(config)).returncode == 0
        numbers = []
        sectors = 0
        for number in range(CUTS - 1):
            node.start()
            with node.connect(give_up_s=60) as connection:
                numbers.append(submit_file(connection, HELLO, jobs=3, seed=number).dataset)
                wait_for("something is done", lambda: done_tasks(connection, numbers[-1]) > 0, timeout_s=150)
                time.sleep(chance.uniform(0.0, 0.5))
                done = sum(done_tasks(connection, one) for one in numbers)
            sectors += disk.cut(SEED + number)
            node.end()
            disk.detach()
            disk.attach()
        node.start()
        with node.connect(give_up_s=60) as connection:
            assert sum(done_tasks(connection, one) for one in numbers) >= done
            for number in numbers:
                wait_for(
                    f"dataset {number} is complete",
                    lambda number=number: task_counts(connection, number) == {"complete": 6},
                    timeout_s=180,
                )
                request = control_pb2.VerifyFilesRequest(dataset=str(number), job=-2)
                replies = list(connection.stream("VerifyFiles", request))
                assert replies and all(reply.good for reply in replies)
            assert list(connection.call("CheckCluster", control_pb2.CheckClusterRequest()).violations) == []
    finally:
        node.end()
        disk.detach()


def done_tasks(connection: Connection, number: int) -> int:
    """How many tasks of a dataset are complete."""
    return task_counts(connection, number).get("complete", 0)
