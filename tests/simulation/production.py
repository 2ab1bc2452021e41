"""The real ledger as the replicated state machine of a history: how a cluster is founded and its members change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from iceprod_p2p.ledger import queries, versions
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import (
    AddNode,
    Command,
    FoundCluster,
    Invite,
    PromoteMember,
    Proposal,
    RemoveMember,
    SetPerson,
    Tick,
)
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.site import Member
from iceprod_p2p.raft.machine import changes_members, encode_proposal, entry_changes_members

OPERATOR = "person:ada"


class LedgerMachine:
    """`process.Machine` over the job ledger."""

    def __init__(self, *, site_grace_ms: int) -> None:
        self._site_grace_ms = site_grace_ms

    apply = staticmethod(apply)
    read_members = staticmethod(queries.members)
    changes_members = staticmethod(changes_members)
    entry_changes_members = staticmethod(entry_changes_members)
    digest = staticmethod(queries.state_digest)
    applied_index = staticmethod(queries.applied_index)
    ledger_time_ms = staticmethod(queries.ledger_time_ms)

    def genesis(self, members: Sequence[Member]) -> bytes:
        """Return the first entry: the cluster, its administrator, and these members.

        Voters join one ledger millisecond apart: each change of the voters must have seen the one before.
        """
        return encode_entry(
            [
                Proposal(_numbered(number), made_at_ms, "node:n1", command)
                for number, (made_at_ms, command) in enumerate(self._founding(members))
            ]
        )

    def _founding(self, members: Sequence[Member]) -> Iterator[tuple[int, Command]]:
        yield 0, FoundCluster("icecube", b"root", self._site_grace_ms, versions.VERSION_MOST)
        yield 0, SetPerson("ada", Role.ADMINISTRATOR)
        yield 0, SetPerson("paul", Role.PRODUCTION, ("simprod",))
        for number, member in enumerate(members):
            if number:
                yield number - 1, Invite(token_of(member.node_id), member.site)
                yield number - 1, Tick(1, number)
            yield number, admission(member, token=token_of(member.node_id) if number else b"")


def _numbered(number: int) -> bytes:
    return b"founding" + number.to_bytes(8, "big")


def token_of(node_id: str) -> bytes:
    """Return the digest of a node's invitation."""
    return sha256(node_id.encode()).digest()


def admission(member: Member, *, token: bytes) -> AddNode:
    """Return the command that admits a node."""
    key = sha256(b"key of " + member.node_id.encode()).digest()
    node = AddNode(member, b"issuer of " + member.site.encode(), key, f"key-{member.node_id}", key, token)
    return msgspec.structs.replace(node, version_most=versions.VERSION_MOST)


class LedgerMembers:
    """Member changes, each as the commands that make it up."""

    def join(self, member: Member) -> list[tuple[str, Command]]:
        token = token_of(member.node_id)
        return [
            (OPERATOR, Invite(token, member.site)),
            (f"node:{member.node_id}", admission(member, token=token)),
        ]

    def promote(self, node_id: str) -> list[tuple[str, Command]]:
        return [(OPERATOR, PromoteMember(node_id))]

    def remove(self, node_id: str) -> list[tuple[str, Command]]:
        return [(OPERATOR, RemoveMember(node_id))]

    def encode(self, request_id: bytes, actor: str, command: Any, made_at_ms: int) -> bytes:
        return encode_proposal(request_id, made_at_ms, actor, command)
