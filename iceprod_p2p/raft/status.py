"""What a node knows of its Raft part: for `cluster status`, health checks and metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member; `match`, `lag` and `rtt_ms` are known to the leader only (-1 elsewhere)."""

    node_id: str
    site: str
    address: str
    role: str
    match: int = -1
    lag: int = -1
    rtt_ms: float = -1.0
    state: str = ""  # probe, replicate or snapshot; empty where it is not known.
    heard_ms_ago: float = -1.0


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """One node's view at one moment; indexes only ever grow.

    `applied` is what a view shows that is taken now or later, and `digest` the ledger's digest there: two
    members that report the same `applied` must report the same digest.  `log_digest` is the digest of all
    log entries up to `commit`.
    """

    node_id: str
    role: str  # leader, candidate, follower, observer, or failed
    leader_id: str | None
    term: int
    commit: int
    applied: int
    last: int
    first: int  # The oldest entry still in the log.
    digest: str
    log_digest: str
    members: tuple[MemberStatus, ...]
    proposals_waiting: int = 0
    log_bytes: int = 0
    frames_dropped: int = 0
    failed: str | None = None
