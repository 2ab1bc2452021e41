"""Hazards that chance meets too rarely, played step by step: each is one schedule of deliveries and faults.

The engine is the real one and every checker is on; a scenario only decides what arrives when.  The sound engine
passes them; each mutant that is named beside one does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft.founding import prepare_joiner
from iceprod_p2p.raft.journal import NO_DIGEST, digest_after
from iceprod_p2p.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    Message,
    SnapshotOffer,
    SnapshotPage,
    VoteReply,
    VoteRequest,
    decode,
    encode,
)
from iceprod_p2p.raft.snapshots import TABLES_END, pairs_digest
from iceprod_p2p.raft.syncobj import REGULAR
from tests.simulation.counter import CounterMachine, proposal
from tests.simulation.disk import Disk
from tests.simulation.divergence import no_majority, odd_follower, odd_leader
from tests.simulation.stage import Frame, Stage
from tests.simulation.virtual import virtual_time
from tests.simulation.world import Violation, World


def stale_answer(seed: int) -> None:
    """An acknowledgement of an old term arrives when its receiver leads again and the entries are others."""
    stage = Stage(seed, 5)
    stage.lead("n1")
    kept = stage.keep(lambda source, target, message: source == "n2" and isinstance(message, AppendReply))
    stage.cut("n3", "n4", "n5")
    stage.add("n1", 6)
    stage.until(
        "n2 holds them",
        lambda: stage.engine("n2").journal.last_index == stage.engine("n1").journal.last_index,
    )
    stage.wait(0.05)
    stale = [frame for frame in kept if decode(frame[2]).ok]  # type: ignore[union-attr]
    stage.network.intercept = None
    stage.until("n1 has stepped down", lambda: not stage.engine("n1").is_leader)
    stage.until("the others lead", lambda: any(stage.leads(name) for name in ("n3", "n4", "n5")))
    stage.heal()
    stage.until("n2 follows", lambda: stage.engine("n2").core.applied == stage.checks.last)
    stage.lead("n1")
    stage.until("n2 follows", lambda: stage.engine("n2").core.applied == stage.checks.last)
    stage.keep(lambda source, target, message: target == "n2" and isinstance(message, Append))
    stage.add("n1", 5)
    stage.deliver(stale)
    stage.wait(1.0)


def _two_candidates(stage: Stage) -> tuple[str, str, list[Frame]]:
    """Let two nodes stand in one term; return both and their questions, which nobody has got yet."""
    stage.until("somebody leads", lambda: any(stage.leads(name) for name in stage.cluster.processes))
    leader = stage.cluster.leader()
    assert leader is not None
    stage.wait(0.5)
    leader.kill()
    first, second = [name for name in sorted(stage.cluster.processes) if name != leader.node_id][:2]

    def wanted(source: str, target: str, message: Message) -> bool:
        asks = isinstance(message, VoteRequest) and (source not in (first, second) or not message.pre)
        return asks or {source, target} == {first, second}

    kept = stage.keep(wanted)

    def term_of_both() -> int:
        cores = [stage.engine(name).core for name in (first, second)]
        stand = all(core.vote == name for core, name in zip(cores, (first, second), strict=True))
        return cores[0].term if stand and cores[0].term == cores[1].term else 0

    stage.until("two stand in one term", term_of_both, limit_s=60.0)
    term = term_of_both()
    asked = []
    for frame in kept:
        message = decode(frame[2])
        if isinstance(message, VoteRequest) and not message.pre and message.term == term:
            asked.append(frame)
    return first, second, asked


def doubled_votes(seed: int) -> None:
    """Two candidates of one term each get one vote, three times."""
    stage = Stage(seed, 5)
    first, second, asked = _two_candidates(stage)
    voters = [
        name
        for name in sorted(stage.cluster.processes)
        if name not in (first, second) and stage.node(name).up
    ]
    votes: list[Frame] = []

    def wanted(source: str, target: str, message: Message) -> bool:
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            votes.append((source, target, encode(message)))
        return isinstance(message, VoteReply | VoteRequest)

    stage.keep(wanted)
    stage.deliver([frame for frame in asked if frame[:2] in ((first, voters[0]), (second, voters[1]))])
    stage.until("both votes are given", lambda: len(votes) >= 2)
    stage.deliver([vote for vote in votes[:2] for _ in range(3)])


def old_copy(seed: int) -> None:
    """A data directory is set back to an old copy: it must not help to elect who lacks what it acknowledged."""
    stage = Stage(seed, 3)
    stage.lead("n1")
    stage.add("n1", 2)
    stage.until("n2 follows", lambda: stage.engine("n2").core.applied == stage.checks.last)
    copy = stage.node("n2").disk.copy()
    stage.cut("n3")
    stage.add("n1", 5)
    stage.until("they are committed", lambda: stage.engine("n2").core.applied == stage.checks.last >= 8)
    stage.node("n2").kill()
    stage.node("n2").disk.image = copy
    stage.checks.set_back("n2")
    stage.node("n2").boot()
    stage.node("n2").failing = True  # Its Raft part may end; then its supervisor starts it again.
    stage.until(
        "n1 and n2 have met", lambda: not stage.node("n2").up or stage.engine("n2").core.leader == "n1"
    )
    stage.wait(0.2)
    stage.node("n1").kill()
    if not stage.node("n2").up:
        stage.node("n2").kill("stopped by its supervisor")
        stage.node("n2").boot()
        stage.node("n2").failing = True
    stage.heal()
    stage.wait(10.0)  # Who lacks what is committed must not lead: n2 knows of it only what n1 told it.
    stage.node("n1").boot()
    stage.until("somebody leads again", lambda: stage.leads("n1") or stage.leads("n3"))
    stage.wait(5.0)
    if stage.node("n2").up:
        raise Violation("n2 goes on though its disk was set back behind what it had promised")


def second_vote(seed: int) -> None:
    """A voter restarts between the questions of two candidates of one term."""
    stage = Stage(seed, 5)
    first, second, asked = _two_candidates(stage)
    voter = next(
        name
        for name in sorted(stage.cluster.processes)
        if name not in (first, second) and stage.node(name).up
    )
    stage.keep(lambda source, target, message: isinstance(message, VoteReply | VoteRequest))
    stage.deliver([frame for frame in asked if frame[:2] == (first, voter)])
    stage.until("it votes", lambda: stage.engine(voter).core.vote == first, limit_s=1.0)
    stage.wait(0.02)
    stage.node(voter).kill()
    stage.node(voter).boot()
    for _ in range(3):
        stage.deliver([frame for frame in asked if frame[:2] == (second, voter)])


def snapshot_after_entries(seed: int) -> None:
    """The last page of a snapshot arrives after a new leader's entries beyond it were acknowledged."""
    stage = Stage(seed, 3)
    scratch, entries, digests = _history_of(stage, 15)
    for name in ("n1", "n2"):
        stage.node(name).kill("plays no part: it is scripted")
    stage.keep(lambda source, target, message: True)
    with scratch.image.read() as snapshot:
        total, count = pairs_digest(snapshot)
        pairs = list(snapshot.ledger.scan(b"\x00", TABLES_END))
    half = len(pairs) // 2
    offer = SnapshotOffer(2, b"s" * 16, 10, 2, digests[10])
    stage.say("n1", "n3", offer)
    stage.say("n1", "n3", SnapshotPage(offer.snapshot_id, 0, pairs[:half], False, b"", count))
    stage.say("n2", "n3", Append(3, 0, 0, NO_DIGEST, 1, entries))
    stage.say("n1", "n3", SnapshotPage(offer.snapshot_id, 1, pairs[half:], True, total, count))
    stage.wait(0.1)
    stage.say("n2", "n3", Heartbeat(3, 15, 1))
    stage.wait(0.1)
    if stage.engine("n3").core.applied != 15:
        raise Violation("n3 was left without the entries that it had acknowledged")


def _history_of(stage: Stage, count: int) -> tuple[Disk, list[tuple[int, bytes]], list[bytes]]:
    """Return a disk whose tables stand at entry 10, all `count` entries, and the log's digest after each."""
    disk, machine = Disk(), stage.machine
    journal = stage.engine("n1").journal
    entries = [(1, journal.command(1))]
    for number in range(2, count + 1):
        entries.append((2, REGULAR + b"\x91" + proposal(bytes([number]) * 16, ["add", "c", 1, ""])))
    digests = [NO_DIGEST]
    for index, (term, command) in enumerate(entries, start=1):
        digests.append(digest_after(digests[-1], term, command))
        if index <= 10:
            transaction = disk.write()
            outcomes = machine.apply(transaction.ledger, index, term, command[1:])
            transaction.commit()
            if index > 1:
                process = _Founder(disk, machine)
                with disk.image.read_ledger() as kv:
                    stage.checks.applied(process, kv, index, term, command[1:], outcomes, 0)  # type: ignore[arg-type]
    return disk, entries, digests


class _Founder:
    """Stands for the node that applied the scripted entries first."""

    engine = None
    node_id = "scripted"
    odd = False

    def __init__(self, disk: Disk, machine: CounterMachine) -> None:
        self.disk = disk
        self.machine = machine


def deep_conflict(seed: int) -> None:
    """A deposed leader holds a long tail of its own, and meets a new leader's full pipeline over a long way."""
    stage = Stage(
        seed,
        3,
        delay_s=0.1,
        rounds_in_flight=64,
        heartbeat_s=0.3,
        election_min_s=3.0,
        election_max_s=4.0,
        quorum_silence_s=2.5,
    )
    stage.lead("n1")
    stage.cut("n1")
    stage.add("n1", 60, size=20_000)
    stage.until("n1 has stepped down", lambda: not stage.engine("n1").is_leader)
    stage.until("another leads", lambda: stage.leads("n2") or stage.leads("n3"))
    leader = "n2" if stage.leads("n2") else "n3"
    stage.add(leader, 60, size=20_000)
    leader = "n3" if leader == "n2" else "n2"
    stage.lead(leader)  # One that inherits them, and so begins to ask at the end of a long log.
    stage.heal()
    sent = stage.network.sent
    stage.add(leader, 60, size=20_000)

    def agree() -> bool:
        if stage.network.sent - sent > 2_000:
            raise Violation("2000 messages did not make the logs agree")
        return bool(stage.engine("n1").core.applied == stage.engine(leader).journal.last_index)

    stage.until("all logs agree", agree, limit_s=8.0)


def unknown_leader(seed: int) -> None:
    """A node that was away while the present leader joined must still follow it."""
    stage = Stage(seed, 3)
    stage.lead("n1")
    stage.cut("n3")
    joined = stage.cluster.add("n4")
    prepare_joiner(joined.disk, "n4")  # type: ignore[arg-type]
    joined.boot()
    stage.network.cut("n3", "n4", holds=False)
    stage.network.cut("n4", "n3", holds=False)
    for role in (MemberRole.OBSERVER, MemberRole.VOTER):
        _change(stage, Member("n4", "site4", "n4:1", role))
    stage.until("n4 is a voter", lambda: "n4" in stage.engine("n4").context.voters)
    stage.lead("n4")
    stage.heal()
    stage.add("n4", 3)
    stage.until(
        "n3 follows", lambda: stage.engine("n3").core.applied == stage.engine("n4").journal.last_index
    )


def _change(stage: Stage, member: Member) -> None:
    request_id = stage.world.identifier()
    told: list[Any] = []
    body = proposal(request_id, ["member", member.node_id, str(member.role)])
    stage.node("n1").propose(request_id, body, 10.0, told.append)
    stage.until("the members have changed", lambda: told)


SCENARIOS: dict[str, Callable[[int], None]] = {
    "stale-answer": stale_answer,
    "doubled-votes": doubled_votes,
    "second-vote": second_vote,
    "old-copy": old_copy,
    "snapshot-after-entries": snapshot_after_entries,
    "deep-conflict": deep_conflict,
    "unknown-leader": unknown_leader,
    "odd-follower": odd_follower,
    "odd-leader": odd_leader,
    "no-majority": no_majority,
}


def play(name: str, seed: int) -> str:
    """Play a scenario; return the violation, empty when there was none."""
    world = World(seed)  # Only its clock is needed while the stage is built.
    with virtual_time(world):
        try:
            SCENARIOS[name](seed)
        except Violation as fact:
            return str(fact)
    return ""
