"""Two releases in one cluster of real processes, under load: forwards, back, forwards again, and then for good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from iceprod_p2p.ledger import versions
from iceprod_p2p.ledger.codec import decode_outcome, encode_command
from iceprod_p2p.ledger.commands import Command, RaiseVersion, RecordBlob, SubmitDataset
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from tests.integration.chaos.clients import SHAPES, Clients
from tests.integration.chaos.cluster import ChaosCluster, MemberProcess, until
from tests.integration.chaos.judge import judged
from tests.integration.chaos.next_release import NEXT as NEWER
from tests.integration.chaos.next_release import NOTE_LINE, NOW, RECORD_BLOB

pytestmark = [pytest.mark.timeout(600)]
FIRST, NEXT = "tests.integration.chaos.member", "tests.integration.chaos.next_release"
NOTE = msgspec.msgpack.encode([NOTE_LINE, "a word that only the next release knows"])
COMMENTED = msgspec.msgpack.encode([RECORD_BLOB, "c" * 64, 5, ["a"], "with a comment"])


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ChaosCluster]:
    made = ChaosCluster(tmp_path, ("a", "b", "c"))
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def install(member: MemberProcess, module: str) -> None:
    """Kill a member, start it with another release, and wait until every running node knows what it reads."""
    await member.kill()
    member.module = module
    await member.start()
    reads = [1, NEWER] if module == NEXT else [1, NOW]

    async def known() -> bool:
        others = [other for other in member.cluster.members.values() if other.up]
        said = [await other.ask("versions") for other in others]
        return all(one["nodes"][member.name] == reads for one in said)

    await until(f"{member.name} has said what it reads", known)


async def propose(member: MemberProcess, command: Command | bytes, number: int) -> Outcome:
    """Ask one member for a command, encoded by either release, and return the outcome."""
    body = command if isinstance(command, bytes) else encode_command(command)
    fields: dict[str, Any] = {"actor": f"node:{member.name}", "request_id": number.to_bytes(16, "big")}
    answer = await member.ask("propose", command=body, timeout_s=60.0, patience_s=90.0, **fields)
    return decode_outcome(answer["outcome"])


async def refused(member: MemberProcess, command: Command | bytes, number: int) -> str:
    """The same for what must be refused, and why it was."""
    outcome = await propose(member, command, number)
    assert isinstance(outcome, Refused) and outcome.code is Refusal.WRONG_STATE, outcome
    return outcome.detail


async def test_a_cluster_is_upgraded_node_by_node_and_back_until_its_version_is_raised(
    cluster: ChaosCluster,
) -> None:
    a, b, c = cluster.members.values()
    clients = Clients(cluster, seed=3)
    clients.begin(submitters=3, sites=3, pause_s=0.02)

    # Forwards: what is new is refused by name at the node that knows it, and what was there works everywhere.
    await install(a, NEXT)
    assert f"needs ledger version {NEWER}, but the cluster is at 1" in await refused(a, NOTE, 1)
    assert f"needs ledger version {NEWER}, but the cluster is at 1" in await refused(a, COMMENTED, 2)
    assert isinstance(await propose(a, RecordBlob("b" * 64, 5, ("a",)), 3), Applied)
    assert f"node b of site site-b reads ledger {versions.in_words(1, NOW)}, not {NEWER}" in await refused(
        a, RaiseVersion(NEWER), 4
    )
    await install(b, NEXT)
    assert f"node c of site site-c reads ledger {versions.in_words(1, NOW)}, not {NEWER}" in await refused(
        c, RaiseVersion(NEWER), 5
    )

    # Back: nothing that the first release cannot read was written.
    await install(a, FIRST)
    await install(b, FIRST)
    assert f"node a of site site-a reads ledger {versions.in_words(1, NOW)}, not {NEWER}" in await refused(
        b, RaiseVersion(NEWER), 6
    )

    # Forwards again, everybody; replayed by the first release's rules, every answer is the one that follows.
    for member in (c, b, a):
        await install(member, NEXT)
    acknowledged = await judged(cluster, clients)
    print(f"{acknowledged} calls acknowledged across the upgrades, 0 lost")

    # For good, while one node is away: the others use what is new.
    await c.kill()
    assert isinstance(await propose(a, RaiseVersion(0), 7), Applied)

    async def raised() -> bool:
        return bool((await b.ask("versions"))["version"] == NEWER)

    await until("b has heard of it", raised)  # Until then it refuses what is new, by name.
    assert await propose(b, NOTE, 8) == Applied(("noted: a word that only the next release knows",))
    commented = await propose(a, COMMENTED, 9)
    assert isinstance(commented, Applied) and "with a comment" in commented.notes
    submitted = await propose(b, SubmitDataset("d" * 64, 1, SHAPES, 7, "ada"), 10)
    assert isinstance(submitted, Applied) and "by the rules of the next version" in submitted.notes

    # The old release stops by name where the new one begins, harms nothing, and the new one goes on from there.
    c.module = FIRST
    await c.start()

    async def stopped() -> bool:
        failed = (await c.status()).get("failed") or ""
        return f"at version {NEWER}, but this program reads" in failed

    await until("the old release stops", stopped)
    await install(c, NEXT)
    await cluster.agree()
    assert (await c.ask("versions"))["version"] == NEWER
    await c.kill()
    c.module = FIRST
    with pytest.raises(Exception, match=f"at version {NEWER}, but this program reads"):
        await c.start()
    c.module = NEXT
    await c.start()
    await cluster.agree()
