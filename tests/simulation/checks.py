"""What must hold at every moment of a history, whatever fails: Raft's safety, seen from outside and inside.

The checker learns the one true sequence of entries from whoever applies an index first; every other replica must
apply the same entry there, get the same outcomes and hold the same tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from iceprod_p2p.raft.engine import Engine
from iceprod_p2p.raft.messages import AppendReply, VoteReply, VoteRequest, decode
from iceprod_p2p.raft.proposals import request_ids
from tests.simulation.disk import View
from tests.simulation.process import Process
from tests.simulation.world import Violation, World

_encode = msgspec.msgpack.encode
VOTE_REQUEST, VOTE_REPLY, APPEND_REPLY = 1, 2, 4  # The numbers of these messages.
FORGOTTEN = b"tick"  # Request ids that begin so are of commands that nothing remembers.


@dataclass(slots=True)
class Agreed:
    """One applied entry: what every replica must have at this index."""

    term: int
    entry: bytes
    outcomes: list[Any]
    tables: int
    digest: bytes
    log_digest: bytes | None
    known_in_term: int  # The term of the node that applied it first: it was committed no later.
    first_by: str
    before: int  # What the tables were before it.
    effect: list[tuple[bytes, bytes | None]]  # What it wrote, each key with what it holds now.
    second_by: str = ""  # Who else has applied it in earnest.


Follow = Callable[[int, bytes, Sequence[Any], float], None]
State = tuple[int, int, int, int, bool]  # Term, commit, applied, last, leads.
Look = Callable[[Process, View, int, int], None]


class Checks:
    """Watches every process of a history; raises `Violation` with the fact."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.agreed: dict[int, Agreed] = {}
        self.last = 0
        self.leaders: dict[int, str] = {}
        self.index_of: dict[bytes, int] = {}  # Request id -> where it was applied first.
        self.outcome_of: dict[bytes, Any] = {}
        self.followers: list[Follow] = []  # Models that are told each agreed entry once, in order.
        self.watchers: list[Look] = []  # Look into the tables after each agreed entry.
        self._applied: dict[str, int] = {}
        self._seen: dict[str, State] = {}
        self._voting: dict[str, list[tuple[float, int, str]]] = {}  # Votes with the time at which they leave.
        self._unsure: dict[str, tuple[int, int, bytes | None]] = {}  # The end of a log, not yet synced.
        self._log_digests: dict[tuple[int, int], bytes] = {}
        self._acked: dict[str, tuple[int, int]] = {}  # Node -> (term, index it acknowledged in that term).
        self._acking: dict[
            str, list[tuple[float, int, int]]
        ] = {}  # The same with the time at which it leaves.
        self._set_back: set[str] = set()
        self._before = 0  # What the tables were of which `applied` will be told next.
        self._votes: dict[tuple[str, int], str] = {}
        self._led: set[tuple[str, int]] = set()
        self.engines: dict[str, Engine] = {}  # Of the processes that run.

    # Applying.

    def applied(
        self,
        process: Process,
        kv: View,
        index: int,
        term: int,
        entry: bytes,
        outcomes: Sequence[Any],
        written: int,
    ) -> None:
        """One replica applied one entry, after `written` other writes in its transaction."""
        who, engine = process.node_id, process.engine
        before = self._applied.get(who)
        if before is not None and index != before + 1:
            raise Violation(f"{who} applied entry {index} after {before}")
        self._applied[who] = index
        if process.odd:  # It is the engine's to find that out; the others show what is right.
            return
        machine = process.machine
        outcomes = list(outcomes)
        tables = process.disk.image.tables["ledger"].content
        known = self.agreed.get(index)
        if known is None:
            if index != self.last + 1:
                raise Violation(f"{who} applied entry {index}, but nobody ever applied {self.last + 1}")
            log_digest = engine.journal.digest_at(index) if engine is not None else None
            known_in = engine.core.term if engine is not None else term
            effect = [(key, kv.get(key)) for key in dict(kv.writes(written))]
            digest = machine.digest(kv)
            self.agreed[index] = Agreed(
                term, entry, outcomes, tables, digest, log_digest, known_in, who, self._before, effect
            )
            self.last = index
            self._world.trace(
                "applied", index, term, blake2b(entry + _encode(outcomes), digest_size=8).digest()
            )
            self._learn(index, entry, outcomes)
            for look in self.watchers:
                look(process, kv, index, written)
            return
        if (known.term, known.entry) != (term, entry):
            raise Violation(
                f"entry {index} is {blake2b(known.entry, digest_size=4).hexdigest()} of term {known.term} at "
                f"{known.first_by}, but {blake2b(entry, digest_size=4).hexdigest()} of term {term} at {who}"
            )
        if known.outcomes != outcomes:
            raise Violation(f"entry {index} gave {known.outcomes} at {known.first_by}, {outcomes} at {who}")
        if known.tables != tables or known.digest != machine.digest(kv):
            raise Violation(f"after entry {index} the tables of {known.first_by} and {who} differ")

    def known_effect(
        self, process: Process, kv: View, index: int, term: int, entry: bytes
    ) -> Sequence[Any] | None:
        """Carry out an entry by its writes, and return its outcomes, if it is known what they are; else None.

        That is so once two nodes have applied it in earnest, and had to agree, and for tables as theirs were: the
        third and every further time would only cost.
        """
        self._before = process.disk.image.tables["ledger"].content
        known = self.agreed.get(index)
        if known is None or process.node_id == known.first_by or process.odd:
            return None
        if not known.second_by:
            known.second_by = process.node_id
            return None
        if (known.before, known.term, known.entry) != (self._before, term, entry):
            return None
        for key, value in known.effect:
            if value is None:
                kv.delete(key)
            else:
                kv.put(key, value)
        return known.outcomes

    def _learn(self, index: int, entry: bytes, outcomes: Sequence[Any]) -> None:
        for request_id, outcome in zip(request_ids(entry), outcomes, strict=False):
            if request_id.startswith(FORGOTTEN):
                continue
            first = self.outcome_of.setdefault(request_id, outcome)
            self.index_of.setdefault(request_id, index)
            if first != outcome:
                raise Violation(
                    f"request {request_id.hex()[:8]} gave {first} at entry {self.index_of[request_id]} "
                    f"and {outcome} at entry {index}"
                )
        for follow in self.followers:
            follow(index, entry, outcomes, self._world.now)

    # Each tick.

    def booted(self, process: Process) -> None:
        """A process found on its disk what it must."""
        assert process.engine is not None
        self.engines[process.node_id] = process.engine
        self._applied[process.node_id] = self._check_position(process)
        self._seen.pop(process.node_id, None)
        self._check_promises(process)

    def ticked(self, process: Process) -> None:
        """A tick ended well."""
        engine, who = process.engine, process.node_id
        assert engine is not None
        core, journal = engine.core, engine.journal
        now = (core.term, core.commit, core.applied, journal.last_index, core.is_leader)
        before = self._seen.get(who)
        if who in self._acking or who in self._voting:
            self._check_promises(process)
            self._promise(who)
        if core.is_leader:
            self._check_beliefs(process)
        if now == before:
            return
        self._seen[who] = now
        if now[2] != self._applied.get(who, 0):
            self._applied[who] = self._check_position(process)  # A snapshot was installed.
        if before is not None:
            self._check_progress(process, before, now)
        if who in self._unsure:  # The tick before is on the disk by now.
            self._check_log(who, *self._unsure[who])
        self._unsure[who] = (journal.last_index, journal.last_term, journal.digest_at(journal.last_index))
        self._check_promises(process)
        if core.is_leader and (who, core.term) not in self._led:
            self._led.add((who, core.term))
            self._check_leader(process)

    def _check_progress(self, process: Process, before: State, now: State) -> None:
        """Nothing goes back; a leader commits by counting only up to entries of its own term (the paper's 5.4.2)."""
        if any(new < old for new, old in zip(now[:3], before[:3], strict=True)):
            raise Violation(
                f"{process.node_id} went back from (term, commit, applied) {before[:3]} to {now[:3]}"
            )
        assert process.engine is not None
        leads_on = before[4] and now[4] and before[0] == now[0]
        if leads_on and now[1] > before[1] and process.engine.journal.term_at(now[1]) != now[0]:
            raise Violation(
                f"{process.node_id} leads term {now[0]} and committed entry {now[1]} of an older term"
            )

    def _check_position(self, process: Process) -> int:
        """Check a replica's tables at the index it stands at; return the index."""
        assert process.engine is not None
        index = process.engine.core.applied
        with process.disk.image.read() as snapshot:
            own = process.machine.applied_index(snapshot.ledger)
            digest = process.machine.digest(snapshot.ledger)
        if own != index:
            raise Violation(f"{process.node_id} stands at {index}, its tables at {own}")
        known = self.agreed.get(index)
        if index and known is None and not process.odd:
            raise Violation(f"{process.node_id} stands at entry {index}, which nobody applied")
        if process.odd:
            return index
        if known is not None and (known.digest, known.tables) != (
            digest,
            process.disk.image.tables["ledger"].content,
        ):
            raise Violation(
                f"at entry {index} the tables of {process.node_id} are not those of {known.first_by}"
            )
        return index

    def _check_promises(self, process: Process) -> None:
        """Within a term nobody gives up what it acknowledged: the leader of the term counts on it."""
        assert process.engine is not None
        acked_term, acked = self._acked.get(process.node_id, (0, 0))
        term, last = process.engine.core.term, process.engine.journal.last_index
        if acked_term == term and last < acked:
            raise Violation(
                f"{process.node_id} acknowledged up to {acked} in term {term} and holds only {last}"
            )

    def _check_log(self, who: str, index: int, term: int, digest: bytes | None) -> None:
        """Logs that agree on index and term of an entry agree on all before it (Log Matching)."""
        if digest is not None and self._log_digests.setdefault((index, term), digest) != digest:
            raise Violation(f"{who} has another log up to entry {index} of term {term} than somebody else")

    def _check_beliefs(self, process: Process) -> None:
        """What a leader counts as held by a follower of its term is held there, and is the same."""
        assert process.engine is not None
        own = process.engine.journal
        for name, progress in process.engine.leading.followers.items():
            engine = self.engines.get(name)
            if (
                engine is None
                or name in self._set_back
                or engine.core.term != process.engine.core.term
                or not progress.match
            ):
                continue
            here, there = own.digest_at(progress.match), engine.journal.digest_at(progress.match)
            if engine.journal.last_index < progress.match or (here and there and here != there):
                raise Violation(
                    f"{process.node_id} counts entry {progress.match} as held by {name}, which does not hold it"
                )

    def _check_leader(self, process: Process) -> None:
        """One leader a term; it holds everything that was committed in earlier terms (Leader Completeness)."""
        who, engine = process.node_id, process.engine
        assert engine is not None
        term, journal = engine.core.term, engine.journal
        if self.leaders.setdefault(term, who) != who:
            raise Violation(f"{who} and {self.leaders[term]} both lead term {term}")
        self._world.trace("leads", who, term)
        index = self.last
        while index and self.agreed[index].known_in_term >= term:
            index -= 1
        if not index:
            return
        known = self.agreed[index]
        if journal.last_index < index:
            raise Violation(
                f"{who} leads term {term} without the committed entry {index} ({journal.last_index})"
            )
        held = journal.digest_at(index)
        if held is not None and known.log_digest is not None and held != known.log_digest:
            raise Violation(f"{who} leads term {term} with another log up to the committed entry {index}")

    # Frames.

    def sending(self, process: Process, target: str, frame: bytes, leaves_at: float) -> None:
        """A frame leaves; what it promises is remembered from then on."""
        kind = frame[1] if len(frame) > 1 else 0
        if kind == APPEND_REPLY:
            reply = decode(frame)
            assert isinstance(reply, AppendReply)
            if reply.ok:
                self._acking.setdefault(process.node_id, []).append((leaves_at, reply.term, reply.index))
        elif kind in (VOTE_REQUEST, VOTE_REPLY):
            message = decode(frame)
            assert isinstance(message, VoteRequest | VoteReply)
            candidate = target if isinstance(message, VoteReply) else process.node_id
            if not message.pre and (isinstance(message, VoteRequest) or message.granted):
                self._voting.setdefault(process.node_id, []).append((leaves_at, message.term, candidate))

    def _check_vote(self, voter: str, term: int, candidate: str) -> None:
        """A voter votes once a term, whatever happens to its process."""
        given = self._votes.setdefault((voter, term), candidate)
        if given != candidate:
            raise Violation(f"{voter} voted for {given} and for {candidate} in term {term}")

    def died(self, node_id: str) -> None:
        """A process died; what had not left it was never promised."""
        self.engines.pop(node_id, None)
        self._unsure.pop(node_id, None)
        self._promise(node_id)
        self._acking.pop(node_id, None)
        self._voting.pop(node_id, None)

    def set_back(self, node_id: str) -> None:
        """A node's disk was replaced by an old copy: from now on only what it does can be wrong, not what it lost."""
        for memory in (self._acked, self._acking, self._seen, self._applied, self._unsure):
            memory.pop(node_id, None)
        self._set_back.add(node_id)

    def _promise(self, who: str) -> None:
        """Remember as promised what has left by now."""
        now = self._world.now
        acking, voting = self._acking.pop(who, []), self._voting.pop(who, [])
        for leaves_at, term, index in acking:
            if leaves_at <= now:
                known_term, known = self._acked.get(who, (0, 0))
                self._acked[who] = (term, max(known, index) if known_term == term else index)
        for leaves_at, term, candidate in voting:
            if leaves_at <= now:
                self._check_vote(who, term, candidate)
        if late := [ack for ack in acking if ack[0] > now]:
            self._acking[who] = late
        if votes := [vote for vote in voting if vote[0] > now]:
            self._voting[who] = votes
