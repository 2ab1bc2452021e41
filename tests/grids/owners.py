"""By which name the grid jobs of a node are its own."""

from __future__ import annotations

from pathlib import Path

from iceprod_p2p.base.config import load
from iceprod_p2p.site.node_keys import KEYS
from iceprod_p2p.site.pilot_files import PilotKit


def owner_of(configuration: Path) -> str:
    """Return the owner in the tags of a node that was founded or has joined, by its `site.toml`."""
    config = load(configuration)
    return PilotKit(config, (config.node.data_dir / KEYS / "root.pem").read_bytes()).owner
