"""Three nodes of the ledger as processes on loopback, all voters of one cluster from its first entry on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import keys
from benchmarks.children import Child, ask_all
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import AddNode, Command, FoundCluster, Invite, Proposal, Tick
from iceprod_p2p.model.site import Member, MemberRole

NAMES: Final = ("node-a", "node-b", "node-c")
JOBS: Final = 5_000_000  # More than any run of the benchmark starts.
GRACE_MS: Final = 86_400_000  # No heartbeats here, and no lease shall end within the run.
READY_S: Final = 30.0


class Cluster:
    """`members` are processes that serve `member`'s requests; a dataset waits to be claimed.

    With `one_way_ms` they are that far from each other.
    """

    _delays: Child | None = None

    def __init__(self, directory: Path, *, one_way_ms: int = 0) -> None:
        self.directory = directory
        self._ring = keys.make_ring()
        self._configs = [self._config(name) for name in NAMES]
        self.members: list[Child] = []
        try:
            if one_way_ms:
                self._delays = Child("benchmarks.delays", str(one_way_ms), log=directory / "delays.log")
            self.members = [self._spawn(config) for config in self._configs]
            for config, member in zip(self._configs, self.members, strict=True):
                config["address"] = config["public"] = member.answer()["address"]
                if self._delays is not None:
                    config["public"] = self._delays.ask(target=config["address"])["address"]
                self._write(config)
            self._genesis = self._first_entry().hex()
            ask_all(self.members, [{"do": "start", "genesis": self._genesis}] * len(self.members))
            self.leader()
            self.members[0].ask(do="submit", jobs=JOBS)
            ask_all(self.members, [{"do": "prepare", "work": "transitions"}] * len(self.members))
        except BaseException:
            self.stop()
            raise

    def leader(self) -> int:
        """Return the number of the member that leads, as soon as one does."""
        end_s = time.monotonic() + READY_S
        while time.monotonic() < end_s:
            for number, member in enumerate(self.members):
                if member.process.poll() is None and member.ask(do="status")["leader"]:
                    return number
            time.sleep(0.05)
        raise RuntimeError(f"no member leads after {READY_S:.0f} s")

    def restart(self, number: int) -> None:
        """Start a member that was killed again, with its data and at its address."""
        member = self._spawn(self._configs[number])
        member.answer()
        member.ask(do="start", genesis=self._genesis)
        self.members[number] = member

    def stop(self) -> None:
        """End every process."""
        for child in (*self.members, *([self._delays] if self._delays is not None else [])):
            child.stop()

    def _spawn(self, config: dict[str, Any]) -> Child:
        path = self._write(config)
        return Child("benchmarks.member", str(path), log=self.directory / f"{config['name']}.log")

    def _config(self, name: str) -> dict[str, Any]:
        tls = self._ring.node(name)
        return {
            "name": name,
            "site": keys.SITE,
            "cluster": keys.CLUSTER,
            "directory": str(self.directory / name),
            "address": "127.0.0.1:0",
            "chain": tls.certificate_chain_pem.decode(),
            "key": tls.private_key_pem.decode(),
            "root": tls.root_pem.decode(),
        }

    def _write(self, config: dict[str, Any]) -> Path:
        path = self.directory / f"{config['name']}.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    def _first_entry(self) -> bytes:
        commands: list[tuple[int, Command]] = [(0, FoundCluster(keys.CLUSTER, self._ring.root_der, GRACE_MS))]
        for number, config in enumerate(self._configs):
            name = config["name"]
            token = name.encode().ljust(32, b"t") if number else b""
            digest = name.encode().ljust(32, b"\0")
            if number:  # Voters are added one at a time, each by somebody who has seen the one before.
                commands += [(number - 1, Tick(1, number)), (number, Invite(token, keys.SITE))]
            node = Member(name, keys.SITE, config["public"], MemberRole.VOTER)
            add = AddNode(node, self._ring.site_der, digest, f"key-{name}", digest, token)
            commands.append((number, add))
        return encode_entry(
            [
                Proposal(number.to_bytes(16, "big"), made_at_ms, "node:node-a", command)
                for number, (made_at_ms, command) in enumerate(commands)
            ]
        )
