"""Times, sizes and bounds of the Raft part, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ENTRY_BYTES_MAX: Final = 48 << 10  # One entry of the log: so that no message holds a slow link for long.
FRAME_BYTES_MAX: Final = 1 << 20  # No peer sends more in one frame; a longer one is refused unread.
REQUEST_ID_BYTES: Final = 16
COMMANDS_PER_ENTRY_MAX: Final = 256  # Bounds what one entry touches, and so how long one apply takes.


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings:
    """What an operator or a test may tune; the defaults suit nodes up to some 100 ms apart."""

    heartbeat_s: float = 0.1
    election_min_s: float = 0.6
    election_max_s: float = 1.2
    # A leader that has not heard from a quorum for so long steps down: below the shortest election time-out,
    # so that it stops answering before another can be elected.
    quorum_silence_s: float = 0.55
    append_bytes_max: int = 64 << 10  # One message of entries.
    window_messages: int = 64  # Messages of entries on their way to one follower.
    window_bytes: int = 1 << 20
    rounds_in_flight: int = 4  # Rounds of proposals that may wait for a quorum before the next is gathered.
    round_bytes_max: int = 512 << 10
    apply_entries_max: int = (
        256  # Entries applied in one tick: a tick must stay far below an election time-out.
    )
    apply_budget_s: float = 0.1
    inbox_frames_max: int = (
        4_096  # Frames waiting for a tick; beyond it data is dropped, which Raft survives.
    )
    tick_frames_max: int = 512
    proposals_max: int = 8_192  # Proposals waiting on one node, until callers are asked to come back later.
    proposals_bytes_max: int = 16 << 20
    resend_s: float = 1.0  # A forwarded proposal without result is sent again with the same request id.
    reads_max: int = 4_096
    log_keep_entries: int = (
        8_192  # Applied entries kept for followers that were away; older ones are dropped.
    )
    log_keep_bytes: int = 64 << 20
    compact_entries_max: int = 512  # Entries dropped in one tick.
    log_cache_bytes: int = 16 << 20
    snapshot_page_bytes: int = 128 << 10
    snapshot_pages_in_flight: int = 4
    snapshot_retry_s: float = 2.0
    compare_entries: int = 64  # After so many entries members compare their states.

    def faults(self) -> list[str]:
        """Return what contradicts itself in these settings, one sentence each."""
        found = []
        if self.heartbeat_s * 3 >= self.election_min_s:
            found.append("heartbeat_s must be less than a third of election_min_s")
        if self.election_max_s <= self.election_min_s:
            found.append("election_max_s must be more than election_min_s")
        if not self.heartbeat_s < self.quorum_silence_s < self.election_min_s:
            found.append("quorum_silence_s must lie between heartbeat_s and election_min_s")
        if self.append_bytes_max < ENTRY_BYTES_MAX:
            found.append(f"append_bytes_max must be at least {ENTRY_BYTES_MAX}, the largest entry")
        return found
