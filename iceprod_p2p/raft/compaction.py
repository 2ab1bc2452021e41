"""Compaction: the state itself is durable, so the log only needs a margin for followers that were away."""

from __future__ import annotations

from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.raft.journal import Journal
from iceprod_p2p.raft.settings import RaftSettings


def compact(journal: Journal, settings: RaftSettings, needed_from: int | None) -> None:
    """Drop the oldest applied entries beyond the margin, a bounded number at each call.

    Entries after `needed_from`, the index of a snapshot that is being sent, are spared so that its
    receiver can go on from there, unless the log has grown to four times its bound.
    """
    count = journal.last_index - journal.base.index
    too_large = journal.kept_bytes > settings.log_keep_bytes
    if count <= settings.log_keep_entries + settings.compact_entries_max and not too_large:
        return
    target = min(journal.base.index + settings.compact_entries_max, journal.state.applied)
    if not too_large:
        target = min(target, journal.last_index - settings.log_keep_entries)
    if needed_from is not None and journal.kept_bytes <= 4 * settings.log_keep_bytes:
        target = min(target, needed_from)
    if target > journal.base.index:
        journal.drop_to(target)
        passing("raft.compact.after")
