"""A node dies at each durable step of its site's work while it runs a production, and comes back: every dataset ends
complete, once, and the batch system has every grid job once.

One node, one production: it is started with one failpoint on, given more work, dies there, is started with the
next one.  What the crash left unclear is cleared up while the next crashes happen.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.chaos.working_node import (
    LONG_S,
    Work,
    WorkingNode,
    assert_complete,
    control,
    dies,
    pilots,
    records,
    start_armed,
    works,
)
from tests.integration.node_processes import leads, task_counts, wait_for
from tests.integration.test_people import PASSWORD, Cluster

pytestmark = [pytest.mark.timeout(1_200)]
PASSED_BY_WORK = (  # In about the order in which one dataset passes them.
    "submit.propose.before",
    "submit.propose.after",
    "volunteer.claim.after",
    "keeper.note.before",
    "keeper.submit.before",
    "local.add.before",
    "local.add.after",
    "keeper.submit.after",
    "keeper.find.before",
    "keeper.note.after",
    "enrol.pilot.before",
    "enrol.pilot.after",
    "pilot.start.before",
    "pilot.start.after",
    "blob.sync.before",
    "blob.rename.before",
    "blob.rename.after",
    "blob.sync.after",
    "pilot.report.before",
    "pilot.report.after",
    "file.rename.before",
    "file.rename.after",
    "keeper.end.before",
    "keeper.end.after",
    "keeper.forget.before",
)
PASSED_ELSEWHERE = (
    "lost.settle.before",
    "keeper.remove.before",
    "keeper.remove.after",
    "issued.note.before",
    "issued.note.after",
    "blob.delete.before",
    "node.turn.between",
)
ORPHAN = "0" * 64  # No record names it.


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WorkingNode]:
    made = WorkingNode(tmp_path / "madison", "madison", slots=1, idle_end_s=1, site_grace_s=60)
    assert made.command("init").returncode == 0
    yield made
    made.end()


def loses_pilots(node: WorkingNode, work: Work, name: str) -> None:
    """Pilots die with their node; what they ran is reported lost, and run again."""
    node.start()
    work.submit(nap_s=LONG_S)
    with node.connect(give_up_s=60) as connection:
        number = work.submitted[-1].result(120)
        wait_for("it runs", lambda: task_counts(connection, number) == {"processing": 1}, timeout_s=150)
    node.kill()
    for pilot in pilots(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (*pilot.children(recursive=True), pilot):
                process.kill()
    work.wake()
    start_armed(node, name)
    dies(node, name)


def removes(node: WorkingNode, work: Work) -> None:
    """A site that drains takes its queued pilots back."""
    work.rest()
    start_armed(node, "keeper.remove.before")
    work.submit(jobs=5, nap_s=LONG_S)  # Two run, the others' pilots wait for room.

    def queued() -> bool:
        return any(record["phase"] == "queued" and record["grid_job_id"] for record in records(node))

    with node.connect(give_up_s=60) as connection:
        numbers = work.numbers()

        def running() -> int:
            return sum(task_counts(connection, number).get("processing", 0) for number in numbers)

        wait_for("both slots are taken", lambda: running() >= 2, timeout_s=150)  # A pilot may hold one more
        wait_for("others wait", queued)
        with contextlib.suppress(Unavailable):  # It may be dead before it could answer.
            control(node, "drain")
        dies(node, "keeper.remove.before")
        start_armed(node, "keeper.remove.after")
        dies(node, "keeper.remove.after")
    work.wake()


def logs_in(node: WorkingNode) -> None:
    """A certificate that was issued is noted before anybody has it."""
    people = Cluster(node, node, node.directory)
    line = people.account("eve").split()
    for name in ("issued.note.before", "issued.note.after"):
        start_armed(node, name)
        with node.connect(give_up_s=60) as connection:
            wait_for("it leads", lambda connection=connection: leads(connection))
        assert people.login("eve", *line, password=PASSWORD).returncode != 0
        dies(node, name)
    node.start()
    with node.connect(give_up_s=60) as connection:
        wait_for("it leads", lambda: leads(connection))
    assert people.login("eve", *line, password=PASSWORD).returncode == 0
    assert (node.data / "authority" / "issued").read_text().count(" eve\n") == 2, "the first was never noted"
    node.kill()


def cleans_up(node: WorkingNode) -> None:
    orphan = node.data / "blobs" / ORPHAN[:2] / ORPHAN[2:4] / ORPHAN
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"left by an upload whose report never came")
    two_days_ago_s = time.time() - 2 * 86_400
    os.utime(orphan, (two_days_ago_s, two_days_ago_s))
    start_armed(node, "blob.delete.before")
    dies(node, "blob.delete.before")
    assert orphan.exists()
    node.start()
    wait_for("what nobody needs is gone", lambda: not orphan.exists())


def test_a_site_that_dies_at_every_durable_step_ends_its_production_complete_and_once(
    node: WorkingNode,
) -> None:
    work = Work(node)
    for name in PASSED_BY_WORK:
        began_s = time.monotonic()
        works(node, work, name)
        print(f"{name}: {time.monotonic() - began_s:.1f} s", flush=True)
    loses_pilots(node, work, "lost.settle.before")
    removes(node, work)
    logs_in(node)
    cleans_up(node)
    control(node, "resume")
    numbers = assert_complete(node, work)
    print(f"{len(numbers)} datasets complete and once across {len(PASSED_BY_WORK) + 6} crashes")


def test_a_node_that_dies_while_its_keys_take_turns_serves_with_the_new_ones(node: WorkingNode) -> None:
    keys = node.data / "keys"
    before = {name: (keys / name).read_bytes() for name in ("node.pem", "node.key")}
    start_armed(node, "node.turn.between")
    with node.connect(give_up_s=60) as connection:
        wait_for("it leads", lambda: leads(connection))
        with contextlib.suppress(Unavailable):  # It may be dead before it could answer.
            connection.call("Rotate", control_pb2.RotateRequest(what="node", name="madison"))
    dies(node, "node.turn.between")
    node.start()
    with node.connect(give_up_s=60) as connection:
        wait_for("it leads", lambda: leads(connection))
    assert all((keys / name).read_bytes() != content for name, content in before.items())
    # The wish may not have been heard as fulfilled: then there is one more turn.
    wait_for("the turn is over", lambda: not list(keys.glob("*-next.*")))
