"""Known mistakes, each put back into the code under test for as long as a history runs.

A checker that does not see a mistake is broken.  The numbers are those of the hazards in PySyncObj 0.3.17 as
shipped; the others are mistakes that people make with Raft and with ledgers.  Nothing here touches a product
file: a mutant replaces attributes and puts them back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from iceprod_p2p.raft import following
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.elections import Elections
from iceprod_p2p.raft.engine import Engine
from iceprod_p2p.raft.journal import Journal
from iceprod_p2p.raft.leading import Leading
from iceprod_p2p.raft.messages import VoteReply
from iceprod_p2p.raft.promises import Promises
from iceprod_p2p.raft.reads import Reads
from iceprod_p2p.raft.replication import Accept, Progress, Refuse, State, judge_append, quorum_index
from iceprod_p2p.raft.snapshots import SnapshotReceiver
from iceprod_p2p.raft.syncobj import Role
from tests.simulation import divergence
from tests.simulation import ledger_mutants as ledger
from tests.simulation.calls import _Call
from tests.simulation.counter import CounterMachine
from tests.simulation.profile import Profile

Patch = Callable[[ExitStack], None]
Shape = Callable[[Profile], Profile]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake: `shape` turns a profile into one where it can show; `seeds` bounds how soon it must."""

    what: str
    put: Patch
    shape: Shape = lambda profile: profile
    seeds: int = 60
    scenario: str = ""  # Where it is too rare for chance.


def _put(stack: ExitStack, where: Any, name: str, value: Any) -> None:
    stack.enter_context(patch.object(where, name, value))


# Hazard 1: the log is cut after `prev` whatever follows there; an early answer moves `next` back.


def _truncate_always(stack: ExitStack) -> None:
    def judge(log: Any, commit: int, message: Any) -> Any:
        verdict = judge_append(log, commit, message)
        if isinstance(verdict, Refuse) or log.last_index <= message.prev_index:
            return verdict
        cut = max(message.prev_index, commit) + 1
        if cut > log.last_index:
            return verdict
        return Accept(verdict.verified, cut, message.entries[cut - 1 - message.prev_index :])

    def acked(self: Progress, index: int, now_s: float) -> bool:
        news = index > self.match
        self.last_answer_s = now_s
        self.match = max(self.match, index)
        self.next = self.match + 1
        self.state = State.REPLICATE
        self.in_flight.clear()
        self.in_flight_bytes = 0
        return news

    _put(stack, following, "judge_append", judge)
    _put(stack, Progress, "acked", acked)


# Hazard 2: answers count in whatever term they were given.


def _answers_without_term(stack: ExitStack) -> None:
    def if_leading(self: Engine, handler: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
        def handle(sender: str, message: Any) -> None:
            if self.core.is_leader:
                handler(sender, message)

        return handle

    _put(stack, Engine, "_if_leading", if_leading)


# Hazard 3: votes are counted, not attributed; nodes that only read count as well.


def _votes_counted(stack: ExitStack) -> None:
    attributed = Elections.on_vote_reply

    def on_vote_reply(self: Elections, sender: str, message: VoteReply) -> None:
        core, voters = self._context.core, sorted(self._context.voters)
        if message.granted and not message.pre and core.role is Role.CANDIDATE and message.term == core.term:
            others = [voter for voter in voters if voter not in self._votes]
            self._votes.update(others[:1])
            self._win_if_elected()
            return
        attributed(self, sender, message)

    _put(stack, Elections, "on_vote_reply", on_vote_reply)


def _observers_count(stack: ExitStack) -> None:
    def quorum_holds(self: Leading) -> int:
        durable = self._context.durable_index
        matches = sorted((progress.match for progress in self.followers.values()), reverse=True)
        return quorum_index([durable, *matches][: max(1, len(self._context.voters))])

    _put(stack, Leading, "quorum_holds", quorum_holds)


# Hazard 4: promises leave before they are on the disk.


def _promises_before_fsync(stack: ExitStack) -> None:
    _put(stack, Context, "hold", Context.send_at_once)


def _nothing_lasts(stack: ExitStack) -> None:
    sound = Journal.save

    def save(self: Journal) -> bool:
        sound(self)
        return False

    _put(stack, Journal, "save", save)


# Hazard 7: a snapshot moves the commit index without a look at the log.


def _snapshot_commits(stack: ExitStack) -> None:
    sound = SnapshotReceiver.on_offer

    def on_offer(self: SnapshotReceiver, sender: str, message: Any) -> None:
        core = self._context.core
        core.commit = max(core.commit, min(message.index, self._context.journal.last_index))
        sound(self, sender, message)

    _put(stack, SnapshotReceiver, "on_offer", on_offer)


# Hazard 8: an installed snapshot clears the entries beyond it.


def _snapshot_clears(stack: ExitStack) -> None:
    _put(stack, SnapshotReceiver, "_kept_suffix", lambda self, own, offer: [])


# Hazard 9: an exception in a command is tried again for ever.


def _apply_retries(stack: ExitStack) -> None:
    total = CounterMachine._command
    sound = Engine.apply_entries

    def command(self: CounterMachine, kv: Any, command: Any) -> list[Any]:
        outcome = total(self, kv, command)
        if outcome[0] == "refused":
            raise ValueError("no such command")
        return outcome

    def apply_entries(self: Engine) -> None:
        try:
            sound(self)
        except ValueError:
            self.reads.on_tick(self.leading.followers)

    _put(stack, CounterMachine, "_command", command)
    _put(stack, Engine, "apply_entries", apply_entries)


# Hazard 11: "one step back" and "reset to my last + 1" chase each other over a deep pipeline.


def _hints_chase(stack: ExitStack) -> None:
    def judge(log: Any, commit: int, message: Any) -> Any:
        verdict = judge_append(log, commit, message)
        if isinstance(verdict, Refuse) and verdict.index <= log.last_index:
            return replace(verdict, hint=verdict.index)
        return verdict

    def refused(self: Progress, index: int, hint: int, now_s: float) -> bool:
        self.last_answer_s = now_s
        self.next = max(1, hint)
        self.state = State.REPLICATE
        self.in_flight.clear()
        self.in_flight_bytes = 0
        return True

    _put(stack, following, "judge_append", judge)
    _put(stack, Progress, "refused", refused)


# Hazard 12: "the leader changed" is taken for "not applied", and the command is sent anew.


def _retry_with_new_id(stack: ExitStack) -> None:
    sound = _Call.attempt

    def attempt(self: _Call) -> None:
        if self._try:
            fresh = self._calls._world.identifier()
            self._body = self._body.replace(self.request_id, fresh, 1)
            self.request_id = fresh
        sound(self)

    _put(stack, _Call, "attempt", attempt)


# Hazard 13: a leader that is cut off goes on answering reads.


def _reads_unconfirmed(stack: ExitStack) -> None:
    _put(stack, Elections, "check_quorum", lambda self, followers: None)
    sound = Reads._confirm

    def confirm(self: Reads, followers: Any) -> None:
        for progress in followers.values():
            progress.round = self._asked[0].round
        sound(self, followers)

    _put(stack, Reads, "_confirm", confirm)


# Hazard 15: links of nodes that are not members here, yet, are refused.


def _strangers_refused(stack: ExitStack) -> None:
    sound = Engine.receive

    def receive(self: Engine, sender: str, frame: bytes) -> None:
        members = self.context.members
        if not members or sender in members:
            sound(self, sender, frame)

    _put(stack, Engine, "receive", receive)


# Mistakes that others made with Raft.


def _older_terms_commit(stack: ExitStack) -> None:
    def advance_commit(self: Leading) -> None:
        index = self.quorum_holds()
        if index > self._context.core.commit:
            self._context.core.commit = index

    _put(stack, Leading, "advance_commit", advance_commit)


def _vote_forgotten(stack: ExitStack) -> None:
    sound = Journal.load

    def load(self: Journal, snapshot: Any) -> None:
        sound(self, snapshot)
        self.state.vote = ""

    _put(stack, Journal, "load", load)


def _old_copies_vote(stack: ExitStack) -> None:
    _put(stack, Promises, "_contradiction", lambda self, known, hello: "")
    _put(stack, Engine, "_retire", lambda self, reason: None)


def _any_log_wins(stack: ExitStack) -> None:
    _put(stack, Elections, "_may_vote_for", lambda self, message: True)


def _failed_commit_ignored(stack: ExitStack) -> None:
    from tests.simulation.disk import Write

    sound = Write.commit

    def commit(self: Write, *, lasting: bool = True) -> None:
        try:
            sound(self, lasting=lasting)
        except Exception:
            self.open = self._image.writing = False

    _put(stack, Write, "commit", commit)


def _counters(*faults: str, together: bool = False, **changes: Any) -> Shape:
    """Return a shape on counters with these faults only, and a few fields of profile or settings changed.

    `together`: election time-outs hardly differ, so that nodes stand at the same time.
    """

    def shape(profile: Profile) -> Profile:
        fields = dict(changes)
        settings = {name[1:]: fields.pop(name) for name in list(fields) if name.startswith("_")}
        if together:
            settings["election_max_s"] = profile.settings.election_min_s * 1.01
        return replace(
            profile,
            production=False,
            faults=faults or profile.faults,
            settings=replace(profile.settings, **settings),
            **fields,
        )

    return shape


NEAR = {"delay_s": 0.001, "jitter_s": 0.0}
DEEP = {"command_bytes": 10_000, "rate_bytes_per_s": 1e7, "clients": 40, "client_pause_s": 0.01}

MUTANTS: dict[str, Mutant] = {
    "truncate-always": Mutant("1: matching entries are cut off", _truncate_always, _counters()),
    "answers-without-term": Mutant(
        "2: answers of any term count", _answers_without_term, scenario="stale-answer"
    ),
    "votes-counted": Mutant("3: votes are counted, not attributed", _votes_counted, scenario="doubled-votes"),
    "observers-count": Mutant(
        "3: observers count for a commit",
        _observers_count,
        _counters("split", "isolate leader", "kill majority", "deaf", voters=3, observers=2),
    ),
    "promises-before-fsync": Mutant(
        "4: promises leave before the commit", _promises_before_fsync, _counters("power cut", "kill all")
    ),
    "nothing-lasts": Mutant(
        "4: promises leave with commits that a power cut takes back",
        _nothing_lasts,
        _counters("power cut", "kill all"),
    ),
    "snapshot-commits": Mutant(
        "7: a snapshot moves the commit index unchecked",
        _snapshot_commits,
        _counters("isolate leader", "split", "pause leader", _log_keep_entries=4, _compact_entries_max=1),
        200,
    ),
    "snapshot-clears": Mutant(
        "8: a snapshot clears acknowledged entries beyond it",
        _snapshot_clears,
        scenario="snapshot-after-entries",
    ),
    "apply-retries": Mutant("9: an exception in apply is tried again for ever", _apply_retries, _counters()),
    "hints-chase": Mutant("11: hints chase each other", _hints_chase, scenario="deep-conflict"),
    "retry-with-new-id": Mutant("12: a retry is a new command", _retry_with_new_id, _counters()),
    "reads-unconfirmed": Mutant(
        "13: an isolated leader answers reads",
        _reads_unconfirmed,
        _counters("isolate leader", "split", client_pause_s=0.02),
    ),
    "strangers-refused": Mutant(
        "15: links of nodes not yet known are refused", _strangers_refused, scenario="unknown-leader"
    ),
    "older-terms-commit": Mutant(
        "entries of older terms are committed by counting (figure 8 of the paper)",
        _older_terms_commit,
        _counters("isolate leader", "split", "kill leader", _rounds_in_flight=8, **DEEP),
        200,
    ),
    "vote-forgotten": Mutant("a restart forgets its vote", _vote_forgotten, scenario="second-vote"),
    "old-copies-vote": Mutant("a disk that was set back votes", _old_copies_vote, scenario="old-copy"),
    "states-not-compared": Mutant(
        "a member whose state differs goes on", divergence.states_not_compared, scenario="odd-follower"
    ),
    "odd-leader-judges": Mutant(
        "a leader takes its own state for the right one", divergence.odd_leader_judges, scenario="odd-leader"
    ),
    "nobody-right-ignored": Mutant(
        "a leader goes on though no majority has one state",
        divergence.nobody_right_ignored,
        scenario="no-majority",
    ),
    "odd-member-stays": Mutant(
        "a member whose state differs goes on", divergence.states_not_compared, divergence.with_odd_member, 20
    ),
    "any-log-wins": Mutant("votes are given to incomplete logs", _any_log_wins, _counters()),
    "failed-commit-ignored": Mutant(
        "a failed commit is ignored",
        _failed_commit_ignored,
        _counters("full disk", "broken disk", "kill all"),
    ),
    # In the ledger.
    **{
        name: Mutant(str(put.__doc__), put, shape, seeds)
        for name, put, shape, seeds in (
            ("requests-forgotten", ledger.requests_forgotten, ledger.production(), 40),
            ("stale-reports-count", ledger.stale_reports_count, ledger.production(), 40),
            ("attempts-stay", ledger.attempts_stay, ledger.production(), 40),
            ("claims-do-not-hold", ledger.claims_do_not_hold, ledger.production(), 40),
            ("statistics-twice", ledger.statistics_twice, ledger.production(), 20),
            ("children-too-soon", ledger.children_too_soon, ledger.production(), 20),
            ("counters-drift", ledger.counters_drift, ledger.production(), 40),
            ("chance-in-apply", ledger.chance_in_apply, ledger.production(), 20),
            ("time-runs-ahead", ledger.time_runs_ahead, ledger.production(), 20),
            ("silence-ignored", ledger.silence_ignored, ledger.production("members", "kill one"), 60),
            ("any-second-result", ledger.any_second_result, ledger.production(), 40),
            ("doubled-submission", ledger.doubled_submission, ledger.production(), 20),
            ("submission-lost", ledger.submission_lost, ledger.production(), 20),
            ("completion-lost", ledger.completion_lost, ledger.production(), 20),
            ("files-forgotten", ledger.files_forgotten, ledger.production(), 20),
            ("two-pilots", ledger.two_pilots, ledger.production(), 40),
            (
                "failures-of-anybody",
                ledger.failures_of_anybody,
                ledger.production("isolate one", "pause", grace_s=3.0),
                60,
            ),
        )
    },
}


@contextmanager
def mutated(name: str | None) -> Iterator[Mutant | None]:
    """Run with one mistake put in, or none."""
    if name is None:
        yield None
        return
    mutant = MUTANTS[name]
    with ExitStack() as stack:
        mutant.put(stack)
        yield mutant
