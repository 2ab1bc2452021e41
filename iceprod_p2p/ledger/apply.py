"""Apply one log entry to the ledger: a pure, total, deterministic function of the tables and the entry.

There is no clock, no chance and no world in here.  Bad input ends as a refusal, which is a value like any
other.  An exception is a fault of the ledger itself: it leaves `apply` as `LedgerBug`, the tables may be half
changed, and whoever called must abort the transaction and stop by name.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.ledger import audit, versions
from iceprod_p2p.ledger.codec import Damaged, decode_entry, encode_outcome
from iceprod_p2p.ledger.commands import Proposal, Tick
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.limits import PAGE_RECORDS
from iceprod_p2p.ledger.outcome import Outcome
from iceprod_p2p.ledger.requests import Memory, first_outcome
from iceprod_p2p.ledger.rules.asked import Asked
from iceprod_p2p.ledger.rules.closing import set_gates
from iceprod_p2p.ledger.rules.table import RULES
from iceprod_p2p.ledger.tables import Tables

_HEAD = Struct(">QQI")


class LedgerBug(IceProdError):
    """The ledger's own rules failed on an entry: this node must stop taking part, by name."""


def apply(kv: KeyValue, index: int, term: int, entry: bytes) -> list[Outcome]:
    """Apply the entry at `index` of `term` and return one outcome per proposal, in order.

    `kv` is the ledger's key space inside one write transaction.  Entries come in order, each index once;
    indexes may have gaps.  Applied index and rolling digest change with every entry, whatever is in it.
    ProgramTooOld means that the cluster uses a version of the ledger which this program does not know: as after
    LedgerBug, nothing may be committed.
    """
    try:
        return _apply(kv, index, term, entry)
    except (LedgerBug, versions.ProgramTooOld):
        raise
    except Exception as fault:
        raise LedgerBug(
            f"applying entry {index} failed: {type(fault).__name__}: {fault}",
            remedy="this node has stopped taking part; report the entry's index and digest",
        ) from fault


def _apply(kv: KeyValue, index: int, term: int, entry: bytes) -> list[Outcome]:
    t = Tables(kv)
    progress = t.progress
    if index <= progress.applied_index:
        raise LedgerBug(f"entry {index} comes after entry {progress.applied_index} was applied")
    read_as: int | None = progress.version
    if progress.version != versions.VERSION_MOST:
        versions.check(progress.version)
        if t.cluster is None:
            read_as = None  # The founder's entry says itself at which version the cluster begins.
    t.budget = PAGE_RECORDS
    memory = Memory(t)
    outcomes: list[Outcome] = []
    digest = sha256(progress.digest)
    digest.update(_HEAD.pack(index, term, len(entry)))
    digest.update(entry)
    for proposal in decode_entry(entry, read_as):
        if isinstance(proposal, Damaged):
            outcome: Outcome = proposal.refusal
            encoded = encode_outcome(outcome)
        else:
            outcome, encoded = _answer(t, proposal, memory, index, term)
        outcomes.append(outcome)
        digest.update(encoded)
    memory.close(index)
    progress.applied_index = index
    progress.applied_term = term
    progress.digest = digest.digest()
    t.flush()
    return outcomes


def _answer(t: Tables, proposal: Proposal, memory: Memory, index: int, term: int) -> tuple[Outcome, bytes]:
    """Carry out one proposal, unless it was carried out before; returns the outcome and its bytes."""
    command = proposal.command
    if isinstance(command, Tick):  # Harmless to repeat, and too frequent to remember.
        outcome = _carried_out(t, proposal, index, term)
        return outcome, encode_outcome(outcome)
    before = first_outcome(t, proposal)
    if before is not None:
        return before, encode_outcome(before)
    outcome = _carried_out(t, proposal, index, term)
    encoded = encode_outcome(outcome)
    memory.remember(proposal.request_id, encoded)
    audit.note(t, proposal, outcome)
    return outcome, encoded


def _carried_out(t: Tables, proposal: Proposal, index: int, term: int) -> Outcome:
    command = proposal.command
    outcome = RULES[type(command)](t, command, Asked(proposal.actor, proposal.made_at_ms, index, term))
    if t.followed:
        set_gates(t)
    return outcome
