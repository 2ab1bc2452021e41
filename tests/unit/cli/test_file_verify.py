"""`iceprod file verify`: what people are told of copies that were read again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from iceprod_cli.commands.file import file
from iceprod_cli.session import Session

from iceprod_p2p.wire.pb import control_pb2

WHY = "needs ledger version 2, but the cluster is at 1"


class Node:
    """A node that read two copies, the second at a URL."""

    def __init__(self, unrecorded: str) -> None:
        self.unrecorded = unrecorded

    def stream(self, method: str, request: Any) -> Iterator[control_pb2.VerifyFilesReply]:
        row = control_pb2.FileRow(dataset=1, job=2, name="events", sha256="a" * 64)
        yield control_pb2.VerifyFilesReply(file=row, site="north", good=True)
        yield control_pb2.VerifyFilesReply(
            file=row, site="north", good=True, url="https://store.example/events", unrecorded=self.unrecorded
        )

    def close(self) -> None:
        return


@pytest.mark.parametrize("unrecorded", ["", WHY])
def test_what_could_not_be_recorded_is_said_aloud(unrecorded: str) -> None:
    connection: Any = Node(unrecorded)
    done = CliRunner().invoke(file, ["verify", "1"], obj=Session(_connection=connection))
    assert done.exit_code == 0 and "2 copies read, 0 bad" in done.stdout
    said = f"of 1 copies what was found could not be recorded: {WHY}"
    assert (said in done.stderr) is (WHY in done.stdout) is bool(unrecorded)
    connection = Node(unrecorded)
    done = CliRunner().invoke(file, ["verify", "1", "-o", "json"], obj=Session(_connection=connection))
    assert (WHY in done.stdout) is bool(unrecorded)
