"""Changes of the members of a chaos cluster while it works: somebody joins, is promoted, is removed for ever."""

from __future__ import annotations

import asyncio
import signal
import time

from iceprod_p2p.ledger.commands import AddNode, Command, Invite, PromoteMember, RemoveMember
from iceprod_p2p.ledger.outcome import Applied, Refusal, Refused
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.security.certificates import to_der
from tests.integration.chaos.clients import Clients
from tests.integration.chaos.cluster import ChaosCluster, MemberProcess, until

CHANGE_S = 240.0
ACTOR = "node:founder"


async def admit(cluster: ChaosCluster, clients: Clients, name: str) -> MemberProcess:
    """Let a newcomer join as an observer and start it; it catches up by itself."""
    newcomer = MemberProcess(cluster, name)
    newcomer.joins = True
    token, keys = name.encode().ljust(32, b"t"), name.encode().ljust(32, b"\0")
    await ask_until_applied(clients, Invite(token, newcomer.site))
    member = Member(name, newcomer.site, f"127.0.0.1:{newcomer.advertised}", MemberRole.OBSERVER)
    certificate = to_der(newcomer.authority.certificate)
    await ask_until_applied(clients, AddNode(member, certificate, keys, f"key-{name}", keys, token))
    await newcomer.start()
    cluster.members[name] = newcomer
    return newcomer


async def promote(cluster: ChaosCluster, clients: Clients, member: MemberProcess) -> None:
    """Make an observer a voter when it has caught up."""

    async def caught_up() -> bool:
        others = [await other.status() for other in cluster.members.values() if other is not member]
        own = await member.status()
        return bool(own) and own["commit"] > max((one.get("commit", 0) for one in others), default=0) - 200

    await until(f"{member.name} has caught up", caught_up, within_s=CHANGE_S)
    await ask_until_applied(clients, PromoteMember(member.name))


async def remove(cluster: ChaosCluster, clients: Clients, member: MemberProcess) -> None:
    """Remove a member for ever: its id never returns, and its process is ended."""
    await ask_until_applied(clients, RemoveMember(member.name))
    cluster.retired[member.name] = cluster.members.pop(member.name)
    member.signal(signal.SIGCONT)
    await member.kill()


async def ask_until_applied(clients: Clients, command: Command) -> None:
    """Ask until it is done: a change must wait for the one before, and for a quorum."""
    end_s = time.monotonic() + CHANGE_S
    while True:
        outcome = await clients.call(command, ACTOR)
        if isinstance(outcome, Applied):
            return
        done_before = isinstance(outcome, Refused) and outcome.code in (Refusal.EXISTS, Refusal.NOT_FOUND)
        if done_before and time.monotonic() < end_s:
            return  # An earlier try, whose answer was lost, had been applied after all.
        assert time.monotonic() < end_s, f"{command} is refused: {outcome}"
        await asyncio.sleep(0.3)
