"""The audit: every command of a person, and every change of the cluster's members; the newest records are kept."""

from __future__ import annotations

from typing import Final

import msgspec

from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger import keys, versions
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import Proposal
from iceprod_p2p.ledger.commands_replacing import ReplaceNode, RestoreCluster
from iceprod_p2p.ledger.commands_trust import (
    AddAuthority,
    AskRenewal,
    EndAuthority,
    RemovePerson,
    RetireAuthority,
)
from iceprod_p2p.ledger.limits import AUDIT_MAX
from iceprod_p2p.ledger.outcome import Applied, Outcome
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.site import Member

TEXT_MAX: Final = 200  # Characters of what was asked, and of how it ended.
_ALWAYS: Final = frozenset(
    {
        c.FoundCluster,
        c.AddNode,
        c.Invite,
        c.PromoteMember,
        c.RemoveMember,
        ReplaceNode,
        RestoreCluster,
        AddAuthority,
        RetireAuthority,
        AskRenewal,
        EndAuthority,
        RemovePerson,
        c.SetPerson,
        c.RevokeCertificate,
        c.SetSettings,
        c.RaiseVersion,
        c.ControlSite,
    }
)
_encode: Final = msgspec.msgpack.Encoder().encode


def note(t: Tables, proposal: Proposal, outcome: Outcome) -> None:
    """Keep a record of a person's command, or of one that changes who takes part.

    Drop the oldest beyond the bound.
    """
    if type(proposal.command) not in _ALWAYS and not proposal.actor.startswith("person:"):
        return
    progress = t.progress
    index = progress.audit_next
    progress.audit_next += 1
    record = r.AuditRecord(
        index, t.now_ms, proposal.actor, describe(proposal.command, t.version), describe_outcome(outcome)
    )
    t.kv.put(keys.by_index(keys.AUDIT, index), _encode(record))
    if index - progress.audit_first >= AUDIT_MAX:
        t.kv.delete(keys.by_index(keys.AUDIT, progress.audit_first))
        progress.audit_first += 1


def describe(command: c.Command, version: int) -> str:
    """Return a command in a few words: its name and its short fields, as far as programs of `version` know them."""
    words = [type(command).__name__]
    known = versions.fields_known(versions.number_of(command), version)
    for field in command.__struct_fields__[:known]:
        value = getattr(command, field)
        if isinstance(value, Member):
            words.append(f"node={value.node_id} site={value.site} role={value.role}")
        elif isinstance(value, int) or (isinstance(value, str) and value):
            words.append(f"{field}={value}")
    return " ".join(words)[:TEXT_MAX]


def describe_outcome(outcome: Outcome) -> str:
    """Return an outcome in a few words."""
    if isinstance(outcome, Applied):
        return ("applied: " + "; ".join(outcome.notes) if outcome.notes else "applied")[:TEXT_MAX]
    return f"refused {outcome.code}: {outcome.detail}"[:TEXT_MAX]
