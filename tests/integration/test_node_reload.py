"""A node told by SIGHUP to read its configuration again goes on with what may change, or as before."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.node_processes import NodeProcess, leads, task_counts, wait_for

STEERING = """\
version: 3.2
description: Say what the site's configuration gives
tasks:
  - name: ask
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.1}
    trays:
      - modules:
          - {name: ask, src: ask.sh, args: "$system(colour)"}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path / "madison", "madison", slots=1)
    assert node.command("init").returncode == 0
    node.start()
    yield node
    node.end()


def hang_up(node: NodeProcess, text: str, said: str) -> None:
    """Change the configuration, send SIGHUP, and wait until the node says what it made of it."""
    before = node.log().count(said)
    node.config.write_text(text)
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    wait_for(said, lambda: node.log().count(said) > before)


def slots(connection: Connection) -> int:
    count: int = connection.call("ListSites", control_pb2.ListSitesRequest()).sites[0].slots
    return count


def test_pilots_and_payloads_get_what_was_changed_and_a_wrong_file_changes_nothing(node: NodeProcess) -> None:
    enough = node.directory / "enough"  # The tasks last until it is there, so that slots can be counted.
    (node.directory / "ask.sh").write_text(
        f"#!/bin/sh\nfor _ in $(seq 3000); do test -e {enough} && break; sleep 0.1; done\n"
        'test "$1" = blue && test "$MOOD" = fine\n'
    )
    steering = node.directory / "ask.yaml"
    steering.write_text(STEERING)
    given = '[system.parameters]\ncolour = "blue"\n[environment.variables]\nMOOD = "fine"\n'
    changed = node.text().replace("slots = 1", "slots = 2") + given
    with node.connect() as connection:
        wait_for("it leads", lambda: leads(connection))
        hang_up(node, node.text().replace("heartbeat_s = 1", "heartbeat_s = 2"), "configuration not reloaded")
        assert "[node] heartbeat_s cannot change while the node runs" in node.log()
        hang_up(node, "[queue]\nplugin = 5\n", "configuration not reloaded")
        hang_up(node, changed + '[log]\nlevel = "WARNING"\n', "configuration reloaded")
        number = submit_file(connection, steering, jobs=3, seed=7).dataset
        wait_for("pilots have two slots", lambda: slots(connection) == 2)
        enough.touch()
        wait_for("all is complete", lambda: task_counts(connection, number) == {"complete": 3})
    assert node.stop() == 0
