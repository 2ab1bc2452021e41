"""The receive rules and the leader's view of a follower: one test for each rule."""

from __future__ import annotations

import pytest

from iceprod_p2p.base.errors import BadInput, IntegrityError
from iceprod_p2p.raft.journal import NO_DIGEST, digest_after
from iceprod_p2p.raft.messages import Append
from iceprod_p2p.raft.replication import (
    Accept,
    Progress,
    Refuse,
    State,
    check_shape,
    judge_append,
    quorum_index,
)
from iceprod_p2p.raft.settings import ENTRY_BYTES_MAX, RaftSettings

COMMAND = b"\x00x"


class Log:
    """A log given by the terms of its entries; entry n holds `COMMAND`."""

    def __init__(self, *terms: int, base: int = 0) -> None:
        self.terms = terms
        self.base = base

    @property
    def last_index(self) -> int:
        return len(self.terms)

    def term_at(self, index: int) -> int | None:
        if index == 0:
            return 0 if self.base == 0 else None
        return self.terms[index - 1] if self.base <= index <= len(self.terms) else None

    def digest_at(self, index: int) -> bytes | None:
        if index < self.base or index > len(self.terms):
            return None
        digest = NO_DIGEST
        for term in self.terms[:index]:
            digest = digest_after(digest, term, COMMAND)
        return digest

    def first_index_of_term(self, index: int) -> int:
        while index > 1 and self.terms[index - 2] == self.terms[index - 1]:
            index -= 1
        return index


def append(leader: Log, prev: int, until: int, *, commit: int = 0, term: int = 9) -> Append:
    prev_term, digest = leader.term_at(prev), leader.digest_at(prev)
    assert prev_term is not None and digest is not None
    entries = [(leader.terms[index - 1], COMMAND) for index in range(prev + 1, until + 1)]
    return Append(term, prev, prev_term, digest, commit, entries)


def test_entries_that_follow_are_appended_and_acknowledged_exactly() -> None:
    leader = Log(1, 1, 2, 2)
    verdict = judge_append(Log(1, 1), 0, append(leader, 2, 4))
    assert verdict == Accept(4, 0, [(2, COMMAND), (2, COMMAND)])


def test_an_older_message_with_equal_entries_truncates_nothing() -> None:
    leader = Log(1, 1, 1, 1, 1)
    verdict = judge_append(Log(1, 1, 1, 1, 1), 0, append(leader, 1, 3))
    assert verdict == Accept(3, 0, [])  # It verifies up to 3, and entries 4 and 5 stay.


def test_a_heartbeat_of_entries_acknowledges_only_what_it_verified() -> None:
    leader = Log(1, 1, 1)
    assert judge_append(Log(1, 1, 1, 1, 1), 0, append(leader, 2, 2)) == Accept(2, 0, [])


def test_truncation_begins_at_the_first_real_conflict() -> None:
    leader = Log(1, 1, 3, 3)
    verdict = judge_append(Log(1, 1, 2, 2, 2), 1, append(leader, 1, 4))
    assert verdict == Accept(4, 3, [(3, COMMAND), (3, COMMAND)])


def test_a_missing_previous_entry_is_refused_with_the_end_of_the_log_as_hint() -> None:
    leader = Log(1, 1, 1, 1, 1)
    assert judge_append(Log(1, 1), 0, append(leader, 4, 5)) == Refuse(4, 3)


def test_a_conflicting_previous_entry_is_refused_with_the_start_of_its_term_as_hint() -> None:
    leader = Log(1, 3, 3, 3, 3)
    assert judge_append(Log(1, 2, 2, 2, 2), 0, append(leader, 4, 5)) == Refuse(4, 2)


def test_a_hint_never_points_at_or_below_the_commit_index() -> None:
    leader = Log(1, 1, 1, 3, 3)
    assert judge_append(Log(1, 1, 1, 1, 1), 3, append(leader, 4, 5)) == Refuse(4, 4)


def test_entries_at_or_below_the_commit_index_are_skipped() -> None:
    leader = Log(1, 1, 1, 1)
    assert judge_append(Log(1, 1, 1), 3, append(leader, 0, 4)) == Accept(4, 0, [(1, COMMAND)])
    assert judge_append(Log(1, 1, 1), 3, append(leader, 0, 2)) == Accept(2, 0, [])


def test_entries_that_compaction_dropped_are_skipped() -> None:
    follower = Log(1, 1, 1, 1, base=3)
    assert judge_append(follower, 3, append(Log(1, 1, 1, 1, 1), 1, 5)) == Accept(5, 0, [(1, COMMAND)])


def test_a_committed_entry_is_never_cut_off_whatever_a_leader_says() -> None:
    with pytest.raises(IntegrityError, match="differs from the one committed"):
        judge_append(Log(1, 1, 1), 3, append(Log(1, 1, 2, 2), 1, 4))
    with pytest.raises(IntegrityError, match="of another term"):
        judge_append(Log(1, 1, 1), 3, append(Log(1, 1, 2, 2), 3, 4))


def test_logs_that_differ_in_content_while_their_terms_agree_are_found() -> None:
    message = append(Log(1, 1, 1), 2, 3)
    forged = Append(message.term, 2, 1, b"?" * 16, 0, message.entries)
    with pytest.raises(IntegrityError, match="not ours"):
        judge_append(Log(1, 1), 0, forged)


@pytest.mark.parametrize(
    "entries",
    [
        [(2, COMMAND), (1, COMMAND)],
        [(10, COMMAND)],
        [(2, b"")],
        [(2, b"\x02\x80")],
        [(2, b"\x03\x05")],
        [(2, b"\x00" + bytes(ENTRY_BYTES_MAX + 1))],
    ],
    ids=["terms go back", "term beyond the leader's", "empty", "membership", "version", "too large"],
)
def test_what_no_leader_of_ours_sends_is_refused_unread(entries: list[tuple[int, bytes]]) -> None:
    with pytest.raises(BadInput):
        check_shape(Append(9, 1, 1, NO_DIGEST, 0, entries))


def progress(next_index: int = 11) -> Progress:
    return Progress(next_index=next_index, now_s=0.0)


def test_a_new_follower_is_probed_one_message_at_a_time() -> None:
    follower = progress()
    assert follower.has_room(RaftSettings())
    follower.sent(12, 100, 0.0)
    assert not follower.has_room(RaftSettings())
    assert follower.next == 11


def test_an_acknowledged_probe_opens_the_window() -> None:
    follower = progress()
    follower.sent(12, 100, 0.0)
    assert follower.acked(12, 0.0)
    assert (follower.state, follower.match, follower.next) == (State.REPLICATE, 12, 13)


def test_the_window_is_bounded_in_messages_and_bytes() -> None:
    settings = RaftSettings(window_messages=2, window_bytes=1_000)
    follower = progress()
    follower.acked(10, 0.0)
    follower.sent(11, 400, 0.0)
    assert follower.has_room(settings)
    follower.sent(12, 400, 0.0)
    assert not follower.has_room(settings)
    follower.acked(12, 0.0)
    follower.sent(13, 1_000, 0.0)
    assert not follower.has_room(settings)


def test_match_and_next_never_go_back_on_success() -> None:
    follower = progress()
    follower.acked(20, 0.0)
    follower.sent(25, 100, 0.0)
    assert not follower.acked(15, 0.0)
    assert (follower.match, follower.next) == (20, 26)


def test_a_refusal_of_what_is_not_outstanding_is_dropped() -> None:
    follower = progress()
    follower.acked(20, 0.0)
    follower.sent(25, 100, 0.0)
    assert not follower.refused(20, 5, 0.0)  # Already acknowledged: a stale answer.
    assert not follower.refused(30, 5, 0.0)  # Never sent.
    assert follower.state is State.REPLICATE


def test_the_first_refusal_of_a_window_moves_next_and_the_others_do_not() -> None:
    follower = progress()
    follower.acked(20, 0.0)
    for last in (25, 30, 35):
        follower.sent(last, 100, 0.0)
    assert follower.refused(25, 23, 0.0)
    assert (follower.state, follower.next) == (State.PROBE, 23)
    follower.sent(23, 100, 0.0)
    assert not follower.refused(30, 21, 0.0)
    assert not follower.refused(35, 21, 0.0)
    assert follower.next == 23


def test_a_hint_never_moves_next_below_what_was_acknowledged() -> None:
    follower = progress()
    follower.acked(20, 0.0)
    follower.sent(25, 100, 0.0)
    assert follower.refused(24, 1, 0.0)
    assert follower.next == 21


def test_nothing_is_sent_to_a_follower_that_gets_a_snapshot() -> None:
    follower = progress()
    follower.send_snapshot(40)
    assert not follower.has_room(RaftSettings())
    assert not follower.refused(10, 1, 0.0)
    assert follower.acked(40, 0.0)
    assert (follower.state, follower.next) == (State.REPLICATE, 41)


@pytest.mark.parametrize(
    ("indexes", "held"),
    [([5], 5), ([5, 3], 3), ([5, 3, 1], 3), ([9, 9, 1, 1], 1), ([9, 9, 9, 1, 1], 9), ([], 0)],
)
def test_a_quorum_holds_what_more_than_half_of_the_voters_hold(indexes: list[int], held: int) -> None:
    assert quorum_index(indexes) == held
