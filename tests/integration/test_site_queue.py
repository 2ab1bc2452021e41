"""`iceprod site queue`, `pilots` and `test` on one real node with the local grid."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from iceprod_p2p.grids.base import GridRequest, Running, Submitted, Tag, is_final
from iceprod_p2p.grids.registry import create
from iceprod_p2p.security.random import new_pilot_id
from tests.integration.command_line import CommandLine
from tests.integration.node_processes import NodeProcess, wait_for

NAP = """\
version: 3.2
description: Sleep until it is aborted
tasks:
  - name: nap
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.1}
    trays: [{modules: [{name: nap, src: nap.sh, args: "300"}]}]
"""
CLASSES = """\
disk_mib = 200
[[queue.class]]
name = "gpu"
gpus = 1
memory_mib = 200
disk_mib = 200
[[queue.class]]
name = "wide"
cpus = 4
memory_mib = 200
disk_mib = 200
[[queue.class]]
name = "huge"
cpus = 4000
[queue.options]
slots = 6
interval_s = 0.2
grace_s = 1
"""
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    one = NodeProcess(tmp_path_factory.mktemp("queue") / "madison", "madison", idle_end_s=600)
    one.config.write_text(one.text() + CLASSES)
    done = one.command("init")
    assert done.returncode == 0, done.stderr
    one.start()
    yield one
    one.end()


@pytest.fixture(scope="module")
def iceprod(node: NodeProcess) -> CommandLine:
    command = CommandLine(node.directory / "config", f"{node.data / 'admin'}/")
    wait_for("the founder leads", lambda: command.process("site", "show", "madison").code == 0)
    return command


def steps(iceprod: CommandLine, *more: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """The steps of a test by their names."""
    rows = iceprod("site", "test", "madison", *more, "-o", "json", code=code).document
    return {row["name"]: row for row in rows}


def left_behind(node: NodeProcess) -> list[str]:
    """Directories of pilots without a record: a test's, while the node submits no pilots of its own."""
    pilots = node.data / "pilots"
    return [path.name for path in pilots.iterdir() if not (path / "grid_job.json").exists()]


def test_a_probe_goes_through_the_batch_system_and_tells_what_it_saw(
    iceprod: CommandLine, node: NodeProcess
) -> None:
    found = steps(iceprod)
    assert {row["result"] for row in found.values()} == {"ok"}, found
    assert list(found)[:3] == ["class", "system", "submit"]
    assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in found["worker"]["text"]
    assert node.address in found["node madison-1"]["text"]
    assert str(node.data) in found["state_dir"]["text"] and found["end"]["node_id"] == "madison-1"
    said = iceprod("site", "test", "madison")
    assert "pilots of this class can work at site madison" in said.stdout and "ok" in said.stdout
    assert left_behind(node) == []
    assert iceprod("site", "queue", "madison", "-o", "json").document == []


def test_what_can_never_start_is_said_before_it_is_submitted(iceprod: CommandLine) -> None:
    found = steps(iceprod, "--class", "huge", code=1)
    assert (
        list(found) == ["class"] and "will ever start" in found["class"]["text"] and found["class"]["remedy"]
    )
    assert "has no class" in iceprod("site", "test", "madison", "--class", "tpu", code=3).error()
    assert "there is no site" in iceprod("site", "test", "lyon", code=3).error()
    assert "has no node" in iceprod("site", "test", "madison", "--at", "madison-9", code=3).error()
    iceprod("site", "test", "madison", "--wait", "0", code=2)


def test_a_refusal_of_the_batch_system_is_told_with_a_remedy(iceprod: CommandLine) -> None:
    found = steps(iceprod, "--class", "gpu", code=1)
    (failed,) = [row for row in found.values() if row["result"] == "failed"]
    assert "GPU" in failed["text"] and failed["remedy"]


def test_grid_jobs_and_pilots_are_listed_while_they_work(iceprod: CommandLine, node: NodeProcess) -> None:
    (node.directory / "nap.yaml").write_text(NAP)
    (node.directory / "nap.sh").write_text('#!/bin/sh\nexec sleep "$1"\n')
    number = iceprod("submit", str(node.directory / "nap.yaml"), "--jobs", "2", "-o", "name").stdout.strip()

    def working() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = iceprod("site", "pilots", "madison", "-o", "json").document
        return [row for row in rows if row["state"] == "working" and len(row["tasks"]) == 2]

    try:
        (pilot,) = wait_for("a pilot runs both", working, timeout_s=90)
        assert (
            sorted(pilot["tasks"]) == [f"{number}.0.0", f"{number}.1.0"] and pilot["node_id"] == "madison-1"
        )

        def listed() -> Any:  # The node asks the batch system now and then.
            rows = iceprod("site", "queue", "-o", "json").document
            return rows if [row["state"] for row in rows] == ["running"] else None

        (row,) = wait_for("its grid job runs", listed)
        assert (row["pilot"], row["tasks"]) == (pilot["pilot"], 2)
        assert row["grid_job"] and row["enrolled"] and row["host"] and row["site"] == "madison"
        table = iceprod("site", "queue", "madison").stdout
        assert table.startswith("GRID JOB") and "madison-1: local, 1 running; at most 1 at once" in table
        assert iceprod("site", "pilots", "-o", "name").stdout.split() == [pilot["pilot"]]
        assert "there is no site" in iceprod("site", "queue", "lyon", code=3).error()
        # Beside the pilot there are slots for a probe, which is in nobody's list.
        assert steps(iceprod)["end"]["result"] == "ok"
    finally:
        iceprod("dataset", "abort", number, "--yes")


def test_a_probe_that_cannot_start_in_time_is_late_and_taken_away(
    iceprod: CommandLine, node: NodeProcess
) -> None:
    with a_busy_machine(node):
        found = steps(iceprod, "--class", "wide", "--wait", "2", code=6)
        late = list(found.values())[-1]
        assert (late["result"], late["name"]) == ("late", "start") and "2 s" in late["text"]
    wait_for("nothing is left of it", lambda: not left_behind(node))


def test_an_interrupted_test_leaves_no_grid_job(iceprod: CommandLine, node: NodeProcess) -> None:
    with a_busy_machine(node):
        line = [sys.executable, "-m", "iceprod_cli.main", "--context", iceprod.context]
        process = subprocess.Popen(
            [*line, "site", "test", "madison", "--class", "wide"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        wait_for("it is submitted", lambda: left_behind(node))
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 130
        process.stdout.close()
        wait_for("nothing is left of it", lambda: not left_behind(node))
    assert steps(iceprod, "--class", "wide")["end"]["result"] == "ok"


@contextmanager
def a_busy_machine(node: NodeProcess) -> Iterator[None]:
    """Somebody else's grid job takes so many cores that a pilot of class wide has to wait."""
    grid = create("local", {"spool": str(node.data / "grid"), "slots": 6, "interval_s": 0.2, "grace_s": 1.0})
    request = GridRequest(
        Tag("stranger", new_pilot_id()), "/bin/sleep", str(node.directory / "stranger"), ("600",), cores=3
    )
    (result,) = grid.submit([request])
    assert isinstance(result, Submitted)
    ids = [result.grid_job_id]
    try:
        wait_for("it runs", lambda: isinstance(grid.status(ids).get(ids[0]), Running))
        yield
    finally:
        grid.remove(ids)
        wait_for("it is gone", lambda: all(is_final(state) for state in grid.status(ids).values()))
        grid.forget(ids)
