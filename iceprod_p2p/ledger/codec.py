"""Entries, commands and outcomes as bytes, and back.

An entry is the MessagePack array ``[[request_id, made_at_ms, actor, [number, field, ...]], ...]``.  Reading
one is total: a proposal that cannot be read becomes a `Damaged` with its refusal, and the ones beside it are
read all the same.  Details of refusals are fixed words, never a library's message: replicas with different
library versions must agree on every byte of an outcome.  Extra fields at the end, as a newer version may
write them, are left out; and while the cluster is at an older version than this program knows, everything newer
than that is read as an older program reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from iceprod_p2p.ledger import versions
from iceprod_p2p.ledger.commands import Command, Proposal
from iceprod_p2p.ledger.nesting import NESTING_MAX, is_flat_enough
from iceprod_p2p.ledger.outcome import Outcome, Refusal, Refused

COMMAND_NUMBERS: Final = frozenset(
    int(kind.__struct_config__.tag) for kind in Command.__args__ if kind.__struct_config__.tag is not None
)

_FAULTS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encoder: Final = msgspec.msgpack.Encoder()
_entry: Final = msgspec.msgpack.Decoder(list[Proposal])
_proposals: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_proposal: Final = msgspec.msgpack.Decoder(Proposal)
_parts: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_number: Final = msgspec.msgpack.Decoder(int)
_command: Final = msgspec.msgpack.Decoder(Command)
_outcome: Final = msgspec.msgpack.Decoder(Outcome)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A proposal that cannot be read, and what the ledger says to it."""

    refusal: Refused


UNREADABLE_ENTRY: Final = Refused(Refusal.MALFORMED, "the entry is not a list of proposals")
TOO_DEEP: Final = Refused(Refusal.MALFORMED, f"the entry is nested deeper than {NESTING_MAX} levels")
UNREADABLE: Final = Refused(
    Refusal.MALFORMED, "the proposal cannot be read: a field is missing, of a wrong type or out of bounds"
)
UNKNOWN: Final = Refused(Refusal.UNKNOWN_COMMAND, "no command has this number in this version")


def encode_entry(proposals: Sequence[Proposal]) -> bytes:
    """Return the log entry that holds `proposals` in this order."""
    return _encoder.encode(proposals)


def decode_entry(entry: bytes, version: int | None = None) -> list[Proposal | Damaged]:
    """Read an entry, one item per proposal; an entry that is no list at all gives one `Damaged`. Never raises.

    In a cluster of an older `version` it is read as a program of that version reads it (None: the newest).
    """
    found = _decode_entry(entry)
    if (
        version is None
        or version >= versions.VERSION_MOST
        or not any(_is_news(one, version) for one in found)
    ):
        return found
    if not is_flat_enough(entry):
        return [Damaged(TOO_DEEP)]
    return [_decode_older(raw, version) for raw in _proposals.decode(entry)]


def _is_news(found: Proposal | Damaged, version: int) -> bool:
    """Return whether a program of `version` would perhaps read something else here."""
    if isinstance(found, Damaged):
        return found.refusal is UNREADABLE
    return versions.needed(found.command) > version


def _decode_older(raw: msgspec.Raw, version: int) -> Proposal | Damaged:
    """Read a proposal without what only later versions know."""
    try:
        parts = _parts.decode(raw)
        fields = _parts.decode(parts[3])
        number = _number.decode(fields[0])
    except (*_FAULTS, IndexError):
        return _decode_proposal(raw)  # Unreadable in every version.
    if versions.since(number) > version:
        return Damaged(UNKNOWN)
    known = versions.fields_known(number, version)
    if known is not None:
        parts[3] = msgspec.Raw(_encoder.encode(fields[: known + 1]))
        raw = msgspec.Raw(_encoder.encode(parts))
    return _decode_proposal(raw)


def _decode_entry(entry: bytes) -> list[Proposal | Damaged]:
    try:
        proposals: list[Proposal | Damaged] = list(_entry.decode(entry))
    except _FAULTS:
        proposals = []  # Something in it is damaged: read the proposals one by one.
    if proposals and _encoder.encode(proposals) == entry:
        return proposals  # As this version writes it: nothing can be hidden in it.
    if not is_flat_enough(entry):
        return [Damaged(TOO_DEEP)]
    if proposals:
        return proposals
    try:
        return [_decode_proposal(raw) for raw in _proposals.decode(entry)]
    except _FAULTS:
        return [Damaged(UNREADABLE_ENTRY)]


def encode_command(command: Command) -> bytes:
    """Return the bytes of one command, ``[number, field, ...]``."""
    return _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """Read one command; ValueError when it is none."""
    try:
        command: Command = _command.decode(data)
    except _FAULTS as fault:
        raise ValueError(f"not a ledger command: {fault}") from fault
    return command


def encode_outcome(outcome: Outcome) -> bytes:
    """Return the bytes of an outcome, the same on every replica."""
    return _encoder.encode(outcome)


def decode_outcome(data: bytes) -> Outcome:
    """Read an outcome; ValueError when it is none."""
    try:
        outcome: Outcome = _outcome.decode(data)
    except _FAULTS as fault:
        raise ValueError(f"not a ledger outcome: {fault}") from fault
    return outcome


def _decode_proposal(raw: msgspec.Raw) -> Proposal | Damaged:
    try:
        return _proposal.decode(raw)
    except _FAULTS:
        return Damaged(UNKNOWN if _has_unknown_number(raw) else UNREADABLE)


def _has_unknown_number(raw: msgspec.Raw) -> bool:
    try:
        number = _number.decode(_parts.decode(_parts.decode(raw)[3])[0])
    except (*_FAULTS, IndexError):
        return False
    return number not in COMMAND_NUMBERS
