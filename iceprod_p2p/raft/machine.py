"""The ledger as the engine's state machine: the one place where the two meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from iceprod_p2p.ledger import queries, versions
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import (
    AddNode,
    Command,
    FoundCluster,
    PromoteMember,
    Proposal,
    RemoveMember,
    RenewNode,
)
from iceprod_p2p.ledger.commands_replacing import ReplaceNode, RestoreCluster
from iceprod_p2p.ledger.outcome import Refusal, Refused
from iceprod_p2p.model.site import Member
from iceprod_p2p.raft.messages import UNREADABLE
from iceprod_p2p.raft.ports import KeyValue
from iceprod_p2p.raft.proposals import split_entry

MEMBER_COMMANDS: Final = frozenset(
    kind.__struct_config__.tag
    for kind in (
        FoundCluster,
        AddNode,
        PromoteMember,
        RemoveMember,
        RenewNode,
        ReplaceNode,
        RestoreCluster,
    )
)


class _CommandHead(msgspec.Struct, array_like=True):
    number: int


class _ProposalHead(msgspec.Struct, array_like=True):
    request_id: bytes
    made_at_ms: int
    actor: str
    command: _CommandHead


_head = msgspec.msgpack.Decoder(_ProposalHead)
_heads = msgspec.msgpack.Decoder(list[_ProposalHead])


@dataclass(frozen=True, slots=True)
class StateMachine:
    """What a node replicates.  All functions are pure over the key space they are given."""

    apply: Callable[[KeyValue, int, int, bytes], Sequence[Any]]
    members: Callable[[KeyValue], Sequence[Member]]
    time_ms: Callable[[KeyValue], int]
    digest: Callable[[KeyValue], bytes]
    # The version that the tables are at; the least that a command needs; an exception where a program is too old.
    version: Callable[[KeyValue], int] = lambda ledger: 1
    needed: Callable[[Command], int] = lambda command: 1
    check_version: Callable[[int], None] = lambda version: None

    def too_new(
        self, command: Command, view: Callable[[], AbstractContextManager[KeyValue]]
    ) -> Refused | None:
        """Refuse what some members may not be able to read: the cluster is not at the version it needs."""
        needed = self.needed(command)
        if needed <= 1:
            return None
        with view() as ledger:
            version = self.version(ledger)
        if version >= needed:
            return None
        return Refused(
            Refusal.WRONG_STATE,
            f"{type(command).__name__} as asked for needs ledger version {needed}, but the cluster is at {version}:"
            " when every node runs a release that reads it, `iceprod cluster raise-version` lets all use it",
        )


def ledger_machine() -> StateMachine:
    """Return the job ledger as a state machine."""
    return StateMachine(
        apply,
        queries.members,
        queries.ledger_time_ms,
        queries.state_digest,
        queries.version,
        versions.needed,
        versions.check,
    )


def encode_proposal(request_id: bytes, made_at_ms: int, actor: str, command: Command) -> bytes:
    """Encode one proposal for `Engine.propose`."""
    return split_entry(encode_entry([Proposal(request_id, made_at_ms, actor, command)]))


def changes_members(body: bytes) -> bool:
    """Return whether an encoded proposal admits, promotes, moves or removes a member."""
    try:
        return _head.decode(body).command.number in MEMBER_COMMANDS
    except UNREADABLE:
        return False  # The ledger refuses what it cannot read.


def entry_changes_members(entry: bytes) -> bool:
    """Return whether an entry may change the members, so that they must be read again."""
    try:
        return any(head.command.number in MEMBER_COMMANDS for head in _heads.decode(entry))
    except UNREADABLE:
        return True  # One damaged proposal spoils no other: look.
