"""The one line of `iceprod cluster status` about the ledger's version."""

from __future__ import annotations

from typing import Any

import pytest
from iceprod_cli.commands.cluster import version_line


@pytest.mark.parametrize(
    ("version", "reads", "line"),
    [
        (1, {"a": 1, "b": 1}, "ledger version 1"),
        (1, {"a": 2, "b": 1}, "ledger version 1; an upgrade is under way, not yet at b"),
        (
            1,
            {"a": 2, "b": 2},
            "ledger version 1; every node reads 2: `iceprod cluster raise-version` ends the upgrade",
        ),
        (2, {"a": 2, "b": 2}, "ledger version 2"),
    ],
)
def test_it_says_how_far_an_upgrade_has_come(version: int, reads: dict[str, int], line: str) -> None:
    document: dict[str, Any] = {
        "ledger_version": version,
        "ledger_version_possible": min(reads.values()),
        "members": [{"node_id": name, "version_most": most} for name, most in reads.items()],
    }
    assert version_line(document) == line
