"""Elections: who may stand, who may vote, and when a leader gives up.

On top of the paper's rules: pre-vote (dissertation 9.6), so that a node that cannot win does not raise
the term; stickiness (4.2.3), so that nobody votes while a leader is alive; votes held as a set of voters;
and a quorum check, so that a leader cut off from its voters steps down before another can be elected.
"""

from __future__ import annotations

from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.messages import TimeoutNow, VoteReply, VoteRequest
from iceprod_p2p.raft.replication import Progress
from iceprod_p2p.raft.syncobj import Role

log = get_logger("raft")


class Elections:
    """The election rules of one node.  Promises leave after the tick's commit, through `Context.hold`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._votes: set[str] = set()
        self._pre_votes: set[str] | None = None  # None: no pre-vote of ours is under way.
        self.became_leader = False  # Set for the engine, which prepares the leader's side and clears it.

    def may_stand(self) -> bool:
        """Return whether this node may lead: a voter that has applied all it knows to be committed.

        The second keeps two majorities from missing each other: a node that holds a later change of
        members also knows that the one before is committed, and here it must have adopted it.
        """
        context = self._context
        return context.node_id in context.voters and context.core.applied == context.core.commit

    def on_timer(self) -> None:
        """Stand for election when no leader was heard for a random time-out."""
        context, core = self._context, self._context.core
        if core.is_leader or context.now_s < core.deadline_s:
            return
        core.postpone_election(context.now_s)
        core.leader = None
        self._pre_votes = None
        if self.may_stand():
            self._ask_first()

    def check_quorum(self, followers: dict[str, Progress]) -> None:
        """Step down when a quorum has been silent: an isolated leader must not go on answering."""
        context, core = self._context, self._context.core
        since_s = context.now_s - context.settings.quorum_silence_s
        heard = {name for name, progress in followers.items() if progress.heard_s > since_s}
        if context.node_id not in context.voters or not context.is_quorum(heard | {context.node_id}):
            log.warning("leader steps down", node=context.node_id, term=core.term, heard=sorted(heard))
            self.follow(core.term, None)

    def follow(self, term: int, leader: str | None) -> None:
        """Be a follower in `term`; entering a higher term forgets the vote of the old one."""
        context, core = self._context, self._context.core
        if term > core.term:
            core.set_term(term, None)
            context.leader_heard_s = -1e9
        if core.is_leader:
            core.postpone_election(context.now_s)
        self._votes.clear()
        self._pre_votes = None
        core.become_follower()
        core.leader = leader

    def heard_leader(self, sender: str, term: int) -> None:
        """Note a message of the leader of `term` (not older than ours)."""
        context, core = self._context, self._context.core
        if term > core.term or core.role is not Role.FOLLOWER or core.leader != sender:
            assert not (term == core.term and core.is_leader), (
                f"two leaders in term {term}: {sender} and this node"
            )
            self.follow(term, sender)
        context.leader_heard_s = context.now_s
        if self._leads_us(sender):
            self._pre_votes = None
            core.postpone_election(context.now_s)

    def on_timeout_now(self, sender: str, message: TimeoutNow) -> None:
        """The leader hands over to us: stand at once, without asking first."""
        core = self._context.core
        if message.term == core.term and sender == core.leader and self.may_stand():
            log.info("leadership handed over", node=self._context.node_id, term=core.term, by=sender)
            self._stand(transfer=True)

    def on_vote_request(self, sender: str, message: VoteRequest) -> None:
        """Answer a candidate; silence while a leader is alive, so that nobody disturbs it."""
        context, core = self._context, self._context.core
        if not message.transfer and self._leader_is_alive():
            return
        if message.pre:
            granted = message.term > core.term and self._may_vote_for(message)
            context.hold(
                sender, VoteReply(message.term if granted else core.term, True, granted, context.session)
            )
            return
        if message.term > core.term:
            self.follow(message.term, None)
        granted = (
            message.term == core.term
            and core.role is Role.FOLLOWER
            and core.vote in (None, sender)
            and self._may_vote_for(message)
        )
        if granted:
            core.set_term(core.term, sender)
            passing("raft.vote.after")
            core.postpone_election(context.now_s)
        context.hold(sender, VoteReply(core.term, False, granted, context.session))

    def on_vote_reply(self, sender: str, message: VoteReply) -> None:
        """Count a vote: of a voter, once, for this term and this kind of question only."""
        context, core = self._context, self._context.core
        if not message.granted:
            if message.term > core.term:
                self.follow(message.term, None)
            return
        if sender not in context.voters:
            return
        if message.pre:
            if self._pre_votes is not None and message.term == core.term + 1:
                self._pre_votes.add(sender)
                if context.is_quorum(self._pre_votes):
                    self._stand(transfer=False)
        elif core.role is Role.CANDIDATE and message.term == core.term:
            self._votes.add(sender)
            self._win_if_elected()

    def _leads_us(self, leader: str) -> bool:
        """Return whether this node may lean back under a leader.

        A voter does not under one that is no voter by its own tables: perhaps it lags, perhaps somebody only says so.
        """
        voters = self._context.voters
        return leader in voters or self._context.node_id not in voters or len(voters) == 1

    def _leader_is_alive(self) -> bool:
        context = self._context
        return context.core.is_leader or (
            context.core.leader is not None
            and self._leads_us(context.core.leader)
            and context.now_s - context.leader_heard_s < context.settings.election_min_s
        )

    def _may_vote_for(self, message: VoteRequest) -> bool:
        """Return whether the candidate's log is complete enough, and this node is one that votes at all.

        A node that sees itself as an observer is asked only by a candidate whose members call it a voter; it
        answers if that candidate has applied more, so may know of a promotion which has not arrived here.
        """
        context = self._context
        journal = context.journal
        if context.node_id not in context.voters and message.applied <= context.core.applied:
            return False
        return (message.last_term, message.last_index) >= (journal.last_term, journal.last_index)

    def _ask_first(self) -> None:
        context = self._context
        self._pre_votes = {context.node_id}
        if context.is_quorum(self._pre_votes):
            self._stand(transfer=False)
        else:
            self._ask(context.core.term + 1, pre=True, transfer=False)

    def _stand(self, *, transfer: bool) -> None:
        context, core = self._context, self._context.core
        self._pre_votes = None
        core.set_term(core.term + 1, context.node_id)
        core.become_candidate()
        core.postpone_election(context.now_s)
        context.leader_heard_s = -1e9
        self._votes = {context.node_id}
        log.info("stands for election", node=context.node_id, term=core.term, transfer=transfer)
        self._ask(core.term, pre=False, transfer=transfer)
        self._win_if_elected()

    def _ask(self, term: int, *, pre: bool, transfer: bool) -> None:
        context = self._context
        journal, applied = context.journal, context.core.applied
        question = VoteRequest(
            term, journal.last_index, journal.last_term, applied, pre, transfer, context.session
        )
        for voter in sorted(context.voters - {context.node_id}):
            # Held: by asking, a candidate says that its own vote is given, which must be durable first.
            context.hold(voter, question)

    def _win_if_elected(self) -> None:
        context, core = self._context, self._context.core
        if context.is_quorum(self._votes):
            core.become_leader()
            self.became_leader = True
            log.info("leads", node=context.node_id, term=core.term, votes=sorted(self._votes))
