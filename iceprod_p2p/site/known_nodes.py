"""The cluster's other nodes, noted beside this node's keys: how it finds them when its tables are lost.

DATA/keys/nodes.json    [{"node_id", "site", "address", "server_name", "enrol_address"}, ...]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from iceprod_p2p.client.contexts import NodeEntry
from iceprod_p2p.client.enrolment import node_entries
from iceprod_p2p.security.keyfiles import write_secret
from iceprod_p2p.site.node_keys import KEYS
from iceprod_p2p.wire.pb import common_pb2

FILE: Final = "nodes.json"


def note_nodes(data_dir: Path, nodes: Sequence[common_pb2.NodeAddress]) -> None:
    """Write the list if it changed; blocks on the disk, Unavailable when that refuses."""
    entries = node_entries(nodes)
    if entries and entries != noted_nodes(data_dir):
        body = json.dumps([asdict(entry) for entry in entries], indent=2).encode() + b"\n"
        write_secret(data_dir / KEYS / FILE, body)


def noted_nodes(data_dir: Path) -> tuple[NodeEntry, ...]:
    """Return the list; empty when there is none that can be read."""
    try:
        rows = json.loads((data_dir / KEYS / FILE).read_text("utf-8"))
        return tuple(NodeEntry(**row) for row in rows)
    except (OSError, ValueError, TypeError):
        return ()
