"""`iceprod-node init` and `join` die at each durable step: refused by name or repeated, never half a node."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iceprod_p2p.base import failpoints
from iceprod_p2p.client.contexts import load_context
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.node_processes import NodeProcess, leads, status_of, wait_for

pytestmark = [pytest.mark.timeout(600)]
FOUNDING = (
    "node.found.before",
    "raft.create.before",
    "raft.create.after",
    "node.found.after",
    "node.keys.before",
    "node.keys.after",
)
JOINING = ("node.join.before", "raft.create.after", "node.join.after", "node.keys.before", "node.keys.after")
ADMITTING = ("enrol.join.before", "enrol.join.after")


def died(done: subprocess.CompletedProcess[str], name: str) -> None:
    assert done.returncode == -signal.SIGKILL, (name, done.stderr)
    assert f"failpoint {name}: kill" in done.stderr


def armed(name: str) -> dict[str, str]:
    return {failpoints.VARIABLE: f"{name}=kill"}


def side_by_side(work: Callable[[tuple[int, str]], NodeProcess], names: Sequence[str]) -> list[NodeProcess]:
    """Do the same for each name, a few at once: most of the time is the start of programs."""
    with ThreadPoolExecutor(3) as threads:
        return list(threads.map(work, enumerate(names)))


def test_a_founding_that_dies_can_be_repeated_or_is_refused_by_name(tmp_path: Path) -> None:
    def found(numbered: tuple[int, str]) -> NodeProcess:
        name = numbered[1]
        node = NodeProcess(tmp_path / name, "madison")
        died(node.command("init", environment=armed(name)), name)
        again = node.command("init")
        if name == "node.keys.after":  # All of it is there: it only was not said.
            assert again.returncode == 2 and "belongs to a node already" in again.stderr
        elif again.returncode:
            assert "belongs to node" in again.stderr, again.stderr
            refused = node.command("start", "--foreground")
            assert refused.returncode == 2 and "belongs to no cluster" in refused.stderr, (
                "half a founding starts"
            )
            return node
        load_context(f"{node.data / 'admin'}/")
        return node

    node = side_by_side(found, FOUNDING)[-1]
    node.start()
    try:
        with node.connect() as connection:
            wait_for("what was founded serves", lambda: leads(connection))
    finally:
        node.end()


@pytest.fixture
def founder(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path / "madison", "madison")
    assert node.command("init").returncode == 0
    node.start()
    yield node
    node.end()


def wait_until_it_leads(founder: NodeProcess) -> None:
    with founder.connect() as connection:
        wait_for("the founder leads", lambda: leads(connection))


def invitation(founder: NodeProcess, site: str) -> str:
    wait_until_it_leads(founder)
    with founder.connect() as connection:
        reply = connection.call("Invite", control_pb2.InviteRequest(site=site, lifetime_s=300))
        return str(reply.line).split()[-1]


def test_a_joining_that_dies_on_either_side_is_repeated_with_the_same_invitation(
    founder: NodeProcess, tmp_path: Path
) -> None:
    def join(numbered: tuple[int, str]) -> NodeProcess:
        number, name = numbered
        newcomer = NodeProcess(tmp_path / name, f"site{number}")
        line = invitation(founder, newcomer.site)
        died(newcomer.command("join", line, environment=armed(name)), name)
        again = newcomer.command("join", line)
        if name == "node.keys.after":
            assert again.returncode == 2 and "belongs to a node already" in again.stderr
        else:
            assert again.returncode == 0, (name, again.stderr)
        return newcomer

    def admit(name: str) -> NodeProcess:
        newcomer = NodeProcess(tmp_path / name, name.replace(".", ""))
        line = invitation(founder, newcomer.site)
        founder.kill()
        founder.start(environment=armed(name))
        wait_until_it_leads(founder)
        assert newcomer.command("join", line).returncode == 5
        assert founder.process is not None and founder.process.wait(120) == -signal.SIGKILL
        founder.start()
        wait_until_it_leads(founder)
        again = newcomer.command("join", line)
        assert again.returncode == 0, (name, again.stderr)
        return newcomer

    newcomers = [*side_by_side(join, JOINING), *(admit(name) for name in ADMITTING)]
    started = newcomers[-3:]
    for newcomer in started:
        newcomer.start()
    try:
        with founder.connect() as connection:
            ids = {newcomer.node_id for newcomer in newcomers}
            assert {m.node_id for m in status_of(connection).members} == ids | {founder.node_id}
            caught_up = {newcomer.node_id for newcomer in started}
            wait_for(
                "those that were started catch up",
                lambda: (
                    caught_up
                    <= {m.node_id for m in status_of(connection).members if m.reachable and m.applied_index}
                ),
                timeout_s=120,
            )
    finally:
        for newcomer in newcomers:
            newcomer.end()
