"""The operator who changes the cluster's members, one at a time: join as observer, promote, remove."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft.founding import prepare_joiner
from tests.simulation.calls import Calls
from tests.simulation.cluster import Cluster
from tests.simulation.process import Process

MEMBERS_MAX = 7


class MemberCommands(Protocol):
    """How member changes are said to the state machine at hand: (actor, command) one after the other."""

    def join(self, member: Member) -> list[tuple[str, Any]]: ...

    def promote(self, node_id: str) -> list[tuple[str, Any]]: ...

    def remove(self, node_id: str) -> list[tuple[str, Any]]: ...

    def encode(self, request_id: bytes, actor: str, command: Any, made_at_ms: int) -> bytes: ...


class Operator:
    """Makes one change whenever told to, if the last is over."""

    def __init__(self, cluster: Cluster, calls: Calls, commands: MemberCommands) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._calls = calls
        self._commands = commands
        self._busy = False
        self._number = len(cluster.processes)
        self._doomed: list[str] = []  # Members that will never come back and must be removed.
        self.changes = 0

    def change(self) -> None:
        """Begin one change of the members."""
        if not self.done:
            return
        random = self._world.random
        members = self._cluster.members()
        voters = sorted(name for name, member in members.items() if member.role is MemberRole.VOTER)
        observers = sorted(set(members) - set(voters))
        choices: list[Callable[[], None]] = []
        if len(members) < MEMBERS_MAX:
            choices.append(self._join)
        if observers:
            choices.extend([lambda: self._promote(random.choice(observers))] * 2)
        if len(voters) > 2:
            choices.append(lambda: self._remove(random.choice(voters)))
        if observers and len(members) > 3:
            choices.append(lambda: self._remove(random.choice(observers)))
        if choices:
            random.choice(choices)()

    def replace(self, name: str) -> None:
        """Remove a member that is lost for good, as soon as may be, and let a new node join."""
        self._doomed.append(name)
        self._remove_doomed()

    @property
    def done(self) -> bool:
        """Whether no change is under way or still to be made."""
        return not self._busy and not self._doomed

    def _remove_doomed(self) -> None:
        self._doomed = [name for name in self._doomed if name in self._cluster.members()]
        if self._doomed and not self._busy:
            self._remove(self._doomed[0])
        if self._doomed:
            self._world.after(1.0, self._remove_doomed)
        elif not self._busy and len(self._cluster.members()) < MEMBERS_MAX:
            self._join()

    def _join(self) -> None:
        self._number += 1
        name = f"n{self._number}"
        process = self._cluster.add(name)
        prepare_joiner(process.disk, name)  # type: ignore[arg-type]
        process.boot()
        self._world.note("operator", "joins", node=name)
        member = Member(name, f"site{self._number}", f"{name}:1", MemberRole.OBSERVER)
        self._submit(self._commands.join(member))

    def _promote(self, name: str) -> None:
        self._world.note("operator", "promotes", node=name)
        self._submit(self._commands.promote(name))

    def _remove(self, name: str) -> None:
        self._world.note("operator", "removes", node=name)

        def removed() -> None:
            if name not in self._cluster.members():
                process = self._cluster.processes[name]
                self._world.after(8 * self._world.random.random(), self._switch_off, process)

        self._submit(self._commands.remove(name), removed)

    def _switch_off(self, process: Process) -> None:
        process.gone = True
        process.kill("switched off")

    def _submit(self, steps: list[tuple[str, Any]], done: Callable[[], None] = lambda: None) -> None:
        self._busy = True
        node = self._world.random.choice(self._cluster.alive())
        (actor, command), rest = steps[0], steps[1:]
        request_id = self._world.identifier()
        body = self._commands.encode(request_id, actor, command, self._cluster.ledger_time_ms(node))

        def answered(outcome: Any) -> None:
            self._world.note("operator", "is told", outcome=str(outcome))
            if rest:
                self._submit(rest, done)
                return
            self._busy = False
            self.changes += 1
            done()

        self._calls.submit(request_id, body, node.node_id, answered)
