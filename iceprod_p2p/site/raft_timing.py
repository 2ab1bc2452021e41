"""A node's Raft timings, as its configuration says."""

from __future__ import annotations

from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.raft.settings import RaftSettings


def raft_settings(config: SiteConfig) -> RaftSettings:
    """Return the Raft timings of a configuration."""
    node = config.node
    return RaftSettings(
        heartbeat_s=node.raft_heartbeat_ms / 1_000,
        election_min_s=node.election_ms_least / 1_000,
        election_max_s=node.election_ms_most / 1_000,
        quorum_silence_s=node.election_ms_least * 0.9 / 1_000,
    )
