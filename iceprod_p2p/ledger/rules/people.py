"""People: their roles, and the end of their access.

From version 3 of the ledger on administrators and those who were shut out are counted as they come and go, so that no
command walks through all people.
"""

from __future__ import annotations

from typing import Final

import msgspec

from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger import records_trust as rt
from iceprod_p2p.ledger.commands import SetPerson
from iceprod_p2p.ledger.commands_trust import RemovePerson
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, at_least, person_of
from iceprod_p2p.ledger.rules.trust import NOT_FOUNDED
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.ledger.versions import AUTHORITIES_TOLD
from iceprod_p2p.model.person import Role

_ALL: Final = 1 << 20  # Far beyond the limits.


def set_person(t: Tables, command: SetPerson, asked: Asked) -> Outcome:
    """Give a person a role and groups."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    cluster = t.cluster
    if cluster is None:
        return NOT_FOUNDED
    if not command.name or len(command.groups) > limits.GROUPS_MAX:
        return Refused(Refusal.MALFORMED, f"a person has a name and at most {limits.GROUPS_MAX} groups")
    out = t.shut_out.get(keys.by_name(keys.SHUT_OUT, command.name))
    if out is not None and out.out and not person_of(asked.actor):
        return Refused(
            Refusal.NOT_ALLOWED, f"{command.name} was shut out: only an administrator lets them in again"
        )
    key = keys.by_name(keys.PERSON, command.name)
    known = t.people.get(key)
    leads = known is not None and known.role is Role.ADMINISTRATOR
    if (
        t.version >= AUTHORITIES_TOLD
        and leads
        and command.role is not Role.ADMINISTRATOR
        and cluster.administrators <= 1
    ):
        return Refused(Refusal.NOT_ALLOWED, f"{command.name} is the only administrator, and stays one")
    if t.version < AUTHORITIES_TOLD:
        _let_in(t, command.name)  # As it was: even when there is no room for them.
    if known is None:
        if cluster.people >= limits.PEOPLE_MAX:
            return Refused(Refusal.LIMIT, f"a cluster knows at most {limits.PEOPLE_MAX} people")
        cluster.people += 1
        t.save_cluster(cluster)
    if t.version >= AUTHORITIES_TOLD:
        _let_in(t, command.name)
        _count_administrators(t, (command.role is Role.ADMINISTRATOR) - leads)
    t.people.put(key, r.PersonRecord(command.role, tuple(sorted(set(command.groups)))))
    return Applied((f"{command.name} has the role {command.role}",))


def remove_person(t: Tables, command: RemovePerson, asked: Asked) -> Outcome:
    """End a person's access; the last administrator stays."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    if t.cluster is None:
        return NOT_FOUNDED
    if not command.name:
        return Refused(Refusal.MALFORMED, "a person has a name")
    if command.name == person_of(asked.actor):
        return Refused(Refusal.NOT_ALLOWED, "nobody can remove themselves")
    key = keys.by_name(keys.PERSON, command.name)
    person = t.people.get(key)
    leads = person is not None and person.role is Role.ADMINISTRATOR
    if leads and not _another_administrator(t, command.name):
        return Refused(Refusal.NOT_ALLOWED, f"{command.name} is the only administrator")
    out_key = keys.by_name(keys.SHUT_OUT, command.name)
    known = t.shut_out.get(out_key)
    staying = t.cluster.people - (person is not None)
    if known is None and staying + _shut_out(t) >= limits.PEOPLE_MAX:
        return Refused(Refusal.LIMIT, f"a cluster remembers at most {limits.PEOPLE_MAX} people")
    if person is not None:
        t.people.delete(key)
        t.cluster.people -= 1
        t.save_cluster(t.cluster)
    before_ms = max(command.before_ms, known.before_ms if known is not None else 0)
    t.shut_out.put(out_key, rt.ShutOutRecord(command.reason, t.now_ms, before_ms, out=True))
    if t.version >= AUTHORITIES_TOLD:
        t.cluster.shut_out += known is None
        _count_administrators(t, -leads)
        note_refusal(t)
    return Applied((f"{command.name} is shut out from now on",))


def note_refusal(t: Tables) -> None:
    """Note that somebody or something is refused from now on, or no more: who keeps a list of them reads it anew."""
    if t.version >= AUTHORITIES_TOLD and t.cluster is not None:
        t.cluster.refusals += 1
        t.save_cluster(t.cluster)


def count_people(t: Tables) -> None:
    """At the upgrade: count once what is counted as it changes from now on."""
    assert t.cluster is not None
    t.cluster.administrators, t.cluster.shut_out = counted(t)
    t.save_cluster(t.cluster)


def counted(t: Tables) -> tuple[int, int]:
    """Return how many administrators there are, and how many people were ever shut out; reads all of them."""
    people = t.people.under(keys.PERSON, _ALL)
    administrators = sum(record.role is Role.ADMINISTRATOR for _, record in people)
    return administrators, len(t.scan_keys(keys.SHUT_OUT, _ALL))


def _let_in(t: Tables, name: str) -> None:
    """A person who was shut out is given a role again: certificates of before stay refused."""
    key = keys.by_name(keys.SHUT_OUT, name)
    known = t.shut_out.get(key)
    if known is not None and known.out:
        t.shut_out.put(key, msgspec.structs.replace(known, out=False))
        note_refusal(t)


def _count_administrators(t: Tables, delta: int) -> None:
    assert t.cluster is not None
    if delta:
        t.cluster.administrators += delta
        t.save_cluster(t.cluster)


def _another_administrator(t: Tables, name: str) -> bool:
    if t.version >= AUTHORITIES_TOLD:
        assert t.cluster is not None
        return t.cluster.administrators > 1
    own = keys.by_name(keys.PERSON, name)
    return any(
        record.role is Role.ADMINISTRATOR and key != own
        for key, record in t.people.under(keys.PERSON, limits.PEOPLE_MAX)
    )


def _shut_out(t: Tables) -> int:
    if t.version >= AUTHORITIES_TOLD:
        assert t.cluster is not None
        return t.cluster.shut_out
    return len(t.shut_out.under(keys.SHUT_OUT, limits.PEOPLE_MAX))
