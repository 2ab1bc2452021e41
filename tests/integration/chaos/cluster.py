"""A cluster of member processes behind a switch: started, killed, paused and cut off one by one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from iceprod_cli.free_ports import free_ports

from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import AddNode, Command, FoundCluster, Invite, Proposal, Tick
from iceprod_p2p.model.identity import IdentityKind
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.security.ca import Authority, found_root
from iceprod_p2p.security.certificates import new_key, to_der, to_pem
from tests.integration.chaos.speech import Caller, Gone
from tests.integration.chaos.switch import Switch
from tests.unit.security.rings import authority, issued

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = "chaos"
START_S = 120.0


class MemberProcess:
    """One member: its directory stays, its processes come and go."""

    def __init__(self, cluster: ChaosCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.site = f"site-{name}"
        self.directory = cluster.root / name
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self.advertised = cluster.switch.add(name, self.port)
        self.authority = authority(cluster.root_authority, self.site, now_ms=cluster.now_ms)
        chain, key = issued(self.authority, IdentityKind.NODE, name, now_ms=cluster.now_ms)
        for file, body in (
            ("chain.pem", chain),
            ("node.key", key),
            ("root.pem", to_pem(cluster.root_authority.certificate)),
        ):
            (self.directory / file).write_bytes(body)
        self.process: subprocess.Popen[bytes] | None = None
        self.caller: Caller | None = None
        self.starts = 0
        self.module = cluster.module  # Which program it runs.
        self.joins = False  # Begins with an empty store, not with the cluster's first entry.

    @property
    def member(self) -> Member:
        return Member(self.name, self.site, f"127.0.0.1:{self.advertised}", MemberRole.VOTER)

    @property
    def up(self) -> bool:
        return self.caller is not None and self.process is not None and self.process.poll() is None

    async def start(self, *, environment: dict[str, str] | None = None, wait: bool = True) -> None:
        """Start a process on what is in the directory; Gone when it ends before it serves."""
        config = self.directory / "member.json"
        config.write_text(json.dumps(self.cluster.configuration(self)))
        self.starts += 1
        with (self.directory / "member.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONHASHSEED": "0", **(environment or {})},
            )
        self.cluster.switch.runs(self.name, self.process.pid)
        assert self.process.stdout is not None
        if wait:
            line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
            if not line:
                self.process.wait()
                raise Gone(
                    f"{self.name} ended with {self.process.returncode} before it served: {self.last_words()}"
                )
            try:
                self.caller = await Caller.connect(int(line))
            except OSError as ended:
                raise Gone(f"{self.name} ended just as it served: {self.last_words()}") from ended

    async def kill(self) -> None:
        """SIGKILL, and see it dead."""
        if self.process is None:
            return
        self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Wait for the process to end by itself and return its exit code."""
        assert self.process is not None
        code = await asyncio.to_thread(self.process.wait, 120)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.cluster.switch.ended(self.process.pid)
        if self.caller is not None:
            await self.caller.close()
            self.caller = None
        return code

    def signal(self, number: signal.Signals) -> None:
        """Stop or continue it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    async def ask(self, verb: str, **fields: Any) -> Any:
        """Ask the process; Gone when there is none."""
        if self.caller is None:
            raise Gone(f"{self.name} does not run")
        return await self.caller.ask(verb, **fields)

    async def status(self) -> dict[str, Any]:
        """What it says of itself; empty when it does not answer within a few seconds."""
        try:
            status: dict[str, Any] = await self.ask("status", patience_s=3.0)
        except Gone:
            return {}
        return status

    def log_events(self) -> list[dict[str, Any]]:
        """What it has logged, line by line."""
        path = self.directory / "member.log"
        if not path.exists():
            return []
        found = []
        for line in path.read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def last_words(self) -> str:
        """The end of its log."""
        path = self.directory / "member.log"
        return path.read_text(errors="replace")[-3_000:] if path.exists() else ""


class ChaosCluster:
    """`names` are voters from the first entry on."""

    module = "tests.integration.chaos.member"

    def __init__(self, root: Path, names: Sequence[str], **settings: Any) -> None:
        self.root = root
        self.settings = settings
        self.sync = True  # Whether members sync their disks, as they always should.
        self.switch = Switch()
        self.now_ms = int(time.time() * 1_000)
        self.root_authority: Authority = found_root(CLUSTER, new_key(), now_ms=self.now_ms)
        self.members = {name: MemberProcess(self, name) for name in names}
        self.retired: dict[
            str, MemberProcess
        ] = {}  # Removed for ever; what they applied counts all the same.
        self.genesis = self._genesis()

    def _genesis(self) -> bytes:
        """The first entry: the cluster, its founder, and everybody else by an invitation."""
        commands: list[tuple[int, Command]] = [
            (0, FoundCluster(CLUSTER, to_der(self.root_authority.certificate)))
        ]
        for number, process in enumerate(self.members.values()):
            token = process.name.encode().ljust(32, b"t") if number else b""
            keys = process.name.encode().ljust(32, b"\0")
            if number:  # Voters are added one at a time, each by somebody who has seen the one before.
                commands += [(number - 1, Tick(1, number)), (number, Invite(token, process.site))]
            certificate = to_der(process.authority.certificate)
            commands.append(
                (number, AddNode(process.member, certificate, keys, f"key-{process.name}", keys, token))
            )
        proposals = [
            Proposal(bytes([n]) * 16, made_at, "node:founder", command)
            for n, (made_at, command) in enumerate(commands)
        ]
        return encode_entry(proposals)

    def configuration(self, member: MemberProcess) -> dict[str, Any]:
        """What the process of one member reads."""
        return {
            "node_id": member.name,
            "cluster": CLUSTER,
            "directory": str(member.directory),
            "listen": f"127.0.0.1:{member.port}",
            "settings": self.settings,
            "sync": self.sync,
            "genesis": "" if member.joins else self.genesis.hex(),
        }

    async def start(self) -> None:
        """Start everybody and wait for a leader."""
        await asyncio.gather(*(member.start() for member in self.members.values()))
        await self.leader()

    async def stop(self) -> None:
        """End every process and the switch."""
        for member in self.members.values():
            member.signal(signal.SIGCONT)
            await member.kill()
        self.switch.close()

    def shape(self, *, delay_s: float = 0.0, rate_bytes_s: float = 0.0) -> None:
        """Give every wire a delay and a rate."""
        for one in self.members:
            for other in self.members:
                if one != other:
                    self.switch.shape(one, other, delay_s=delay_s, rate_bytes_s=rate_bytes_s)

    def isolate(self, name: str) -> None:
        """Cut one member off, both ways."""
        for other in self.members:
            if other != name:
                self.switch.cut(name, other)
                self.switch.cut(other, name)

    async def lose(self, name: str) -> None:
        """Lose a machine at once: its process, and what is still on its wires."""
        self.isolate(name)
        await self.members[name].kill()
        for other in self.members:
            if other != name:
                self.switch.reset(name, other)

    def heal(self) -> None:
        """Mend every wire; its shape stays."""
        for one in self.members:
            for other in self.members:
                if one != other:
                    self.switch.mend(one, other)

    async def leader(self, *, within_s: float = 120.0, but: str = "") -> MemberProcess:
        """Return the member that leads and has a quorum, once there is one."""
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            for member in self.members.values():
                if member.up and member.name != but and (await member.status()).get("role") == "leader":
                    return member
            await asyncio.sleep(0.1)
        raise AssertionError(f"nobody leads after {within_s:g} s\n{self.story()}")

    async def agree(self, *, within_s: float = 120.0) -> dict[str, Any]:
        """Wait until every member has applied the same index; return its state, checked, if digests are equal."""
        end_s = time.monotonic() + within_s
        states: dict[str, Any] = {}
        while time.monotonic() < end_s:
            asked = [
                member.ask("state", check=False, patience_s=within_s) for member in self.members.values()
            ]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            states = dict(zip(self.members, answers, strict=True))
            all_answered = all(isinstance(state, dict) for state in states.values())
            if all_answered and len({state["applied"] for state in states.values()}) == 1:
                assert len({state["digest"] for state in states.values()}) == 1, states
                return dict(next(iter(states.values())))
            await asyncio.sleep(0.1)
        raise AssertionError(f"no agreement after {within_s:g} s: {states}\n{self.story()}")

    def story(self) -> str:
        """The ends of all logs, for a failed test."""
        return "\n".join(f"--- {name}\n{member.last_words()}" for name, member in self.members.items())


async def until(what: str, holds: Callable[[], Any], *, within_s: float = 120.0) -> None:
    """Wait until `await holds()` is true."""
    end_s = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < end_s, f"after {within_s:g} s still not: {what}"
        await asyncio.sleep(0.1)
