"""A real member dies at each named place around a durable step, under load, and comes back: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from iceprod_p2p.base import failpoints
from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster, MemberProcess, until
from tests.integration.chaos.judge import judged
from tests.integration.chaos.speech import Gone

pytestmark = [pytest.mark.timeout(1_200)]
KEEP = 40  # Entries of the log: a member that was away for a second needs a snapshot.
ALWAYS = (  # Every member passes these under load.
    "raft.tick.begin",
    "raft.append.before",
    "raft.append.after",
    "raft.apply.before",
    "raft.apply.after",
    "raft.members.after",
    "raft.compact.after",
    "raft.commit.before",
    "raft.commit.after",
    "raft.release.after",
    "store.flush.before",
    "store.checkpoint.before",
    "store.checkpoint.after",
)
FOLLOWING = ("raft.append.before", "raft.append.after")  # Of those, what no leader passes.
BEHIND = (  # A member passes these that was away for long.
    "raft.snapshot.page.after",
    "raft.snapshot.install.before",
    "raft.snapshot.swap.before",
    "raft.snapshot.swap.after",
    "store.current.before",
    "store.rename.before",
    "store.rename.after",
    "store.current.after",
)
LEADING = ("raft.snapshot.copy.before", "raft.snapshot.copy.after")
CUT_OFF = ("raft.truncate.before", "raft.truncate.after")
VOTING = ("raft.vote.after",)


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ChaosCluster]:
    made = ChaosCluster(
        tmp_path, ("a", "b", "c"), log_keep_entries=KEEP, log_keep_bytes=15_000, compact_entries_max=10
    )
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def armed(member: MemberProcess, name: str, passes: int = 1) -> None:
    """Restart a member with one failpoint on."""
    await member.kill()
    with contextlib.suppress(Gone):  # It passes the place before it serves.
        await member.start(environment={failpoints.VARIABLE: f"{name}=kill:{passes}"})


async def died(member: MemberProcess, name: str, *, within_s: float = 180.0) -> None:
    """Wait for the member's death at the failpoint, and start it again without."""

    async def dead() -> bool:
        return _is_dead(member)

    await until(f"{member.name} has died at {name}", dead, within_s=within_s)
    assert await member.ended() == -signal.SIGKILL
    assert f"failpoint {name}: kill" in member.last_words()
    await member.start()


async def left_behind(
    cluster: ChaosCluster, member: MemberProcess, *, armed_one: MemberProcess | None = None
) -> None:
    """Keep a member away until the others no longer hold what it lacks, or the armed one has died before that."""
    last = 0

    async def known() -> bool:
        """Somebody has said what is committed."""
        nonlocal last
        statuses = [await one.status() for one in cluster.members.values()]
        last = max(status.get("commit", 0) for status in statuses)
        return last > 0

    await until("somebody says what is committed", known)
    await member.kill()

    async def gone() -> bool:
        if armed_one is not None and _is_dead(armed_one):
            return True
        others = [other for other in cluster.members.values() if other is not member]
        firsts = [(await other.status()).get("first", 0) for other in others]
        return min(firsts) > last + 1

    await until(f"entry {last + 1} is compacted", gone)


async def always(cluster: ChaosCluster, name: str) -> None:
    member, other = cluster.members["b"], cluster.members["a"]
    await armed(member, name, 3 if name != "raft.members.after" else 1)

    async def dead() -> bool:
        if name in FOLLOWING and not _is_dead(member):
            await _yields(member, other)
        return _is_dead(member)

    await until(f"it has passed {name}", dead, within_s=180)
    await died(member, name)


async def behind(cluster: ChaosCluster, name: str) -> None:
    member = cluster.members["c"]
    await left_behind(cluster, member)
    with contextlib.suppress(Gone):
        await member.start(environment={failpoints.VARIABLE: f"{name}=kill"})
    await died(member, name)


async def leading(cluster: ChaosCluster, name: str) -> None:
    donor, away = cluster.members["a"], cluster.members["c"]
    await armed(donor, name)

    async def leads_or_is_dead() -> bool:
        """It may have died already: a member that was slow for a second needs a snapshot as well."""
        return _is_dead(donor) or await _leads(cluster, donor)

    async def donor_is_dead_or_not_needed() -> bool:
        needed = (await away.status()).get("commit", 0) < first
        return _is_dead(donor) or not needed

    for _ in range(
        8
    ):  # In each turn by chance: on a busy machine another one may lead meanwhile, and serve it.
        await left_behind(cluster, away, armed_one=donor)
        await until("the armed one leads or is dead", leads_or_is_dead)
        first = (await donor.status()).get("first", 0)
        await away.start()
        await until("it is dead, or another one gave", donor_is_dead_or_not_needed, within_s=180)
        if _is_dead(donor):
            break
    await died(donor, name)


async def cut_off(cluster: ChaosCluster, name: str) -> None:
    cluster.settings.update(log_keep_entries=5_000, log_keep_bytes=1 << 24)  # No snapshots here.
    for member in cluster.members.values():
        await member.kill()
        await member.start()
    armed_one = await cluster.leader()
    await armed(armed_one, name)

    async def leads_or_is_dead() -> bool:
        return _is_dead(armed_one) or await _leads(cluster, armed_one)

    for _ in range(8):  # In each turn by chance: only what it appended while nobody heard it conflicts.
        await until("the armed one leads or is dead", leads_or_is_dead)
        if _is_dead(armed_one):
            break  # It had been killed with entries that nobody else has: that is enough.
        cluster.isolate(armed_one.name)
        await asyncio.sleep(1.0)
        await cluster.leader(but=armed_one.name)
        await asyncio.sleep(0.5)
        cluster.heal()
        for _ in range(50):
            if not _is_dead(armed_one):
                await asyncio.sleep(0.1)
    await died(armed_one, name)


async def voting(cluster: ChaosCluster, name: str) -> None:
    voter = cluster.members["c"]
    await armed(voter, name)
    for _ in range(8):  # In each turn by chance: the voter may stand itself.
        if _is_dead(voter):
            break
        leader = await cluster.leader()
        others = [member for member in cluster.members.values() if member is not leader]
        if leader is voter:
            await _yields(voter, others[0])
            continue
        for other in others:
            cluster.switch.cut(leader.name, other.name)
        for _ in range(30):
            if not _is_dead(voter) and (await voter.status()).get("role") != "leader":
                await asyncio.sleep(0.1)
        cluster.heal()
    await died(voter, name)


def _is_dead(member: MemberProcess) -> bool:
    return member.process is None or member.process.poll() is not None


async def _yields(member: MemberProcess, other: MemberProcess) -> None:
    """Let another one lead, if it leads itself: only those who follow pass some places."""
    if (await member.status()).get("role") == "leader":
        with contextlib.suppress(Gone):
            await member.ask("transfer", to=other.name)


async def _leads(cluster: ChaosCluster, member: MemberProcess) -> bool:
    """Return whether it leads; whoever leads in its place now is asked to hand over, if it was ready for that."""
    for other in cluster.members.values():
        if other is not member and (await other.status()).get("role") == "leader":
            with contextlib.suppress(Gone):
                await other.ask("transfer", to=member.name)
    return (await member.status()).get("role") == "leader"


SCENES: dict[str, Callable[[ChaosCluster, str], Awaitable[None]]] = {
    **dict.fromkeys(ALWAYS, always),
    **dict.fromkeys(BEHIND, behind),
    **dict.fromkeys(LEADING, leading),
    **dict.fromkeys(CUT_OFF, cut_off),
    **dict.fromkeys(VOTING, voting),
}


async def test_a_member_that_dies_at_any_failpoint_comes_back_and_nothing_is_lost(
    cluster: ChaosCluster,
) -> None:
    clients = Clients(cluster, seed=1)
    clients.begin(submitters=4, sites=3, pause_s=0.05)
    for name, scene in SCENES.items():
        print(name, flush=True)
        await scene(cluster, name)
    acknowledged = await judged(cluster, clients)
    print(f"{acknowledged} calls acknowledged across {len(SCENES)} crashes, 0 lost")
