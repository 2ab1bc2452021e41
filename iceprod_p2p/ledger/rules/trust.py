"""Authorities that overlap while one takes the other's turn, wishes for new certificates, and people who leave."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger import records_trust as rt
from iceprod_p2p.ledger.commands_trust import AddAuthority, AskRenewal, RemovePerson, RetireAuthority
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, at_least, person_of
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.identity import PEOPLE
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.model.trust import Renewal

NOT_FOUNDED = Refused(Refusal.WRONG_STATE, "the cluster has not been founded")


def add_authority(t: Tables, command: AddAuthority, asked: Asked) -> Outcome:
    """List a further authority."""
    node = _own_node(t, command.node_id, asked)
    if isinstance(node, Refused):
        return node
    if not command.certificate:
        return Refused(Refusal.MALFORMED, "an authority has a certificate")
    if not command.scope:
        refusal, renewal, whose = _add_root(t, command, node), Renewal.ROOT, ""
    elif command.scope == PEOPLE:
        refusal, renewal, whose = _add_people(t, command, node), Renewal.PEOPLE, command.node_id
    else:
        refusal, renewal, whose = _add_site(t, command, node), Renewal.SITE, command.node_id
    if refusal is not None:
        return refusal
    forget_wish(t, renewal, whose)
    return Applied((f"a further authority of {command.scope or 'the cluster'} stands",))


def _own_node(t: Tables, node_id: str, asked: Asked) -> r.NodeRecord | Refused:
    if t.cluster is None:
        return NOT_FOUNDED
    node = t.nodes.get(keys.by_name(keys.NODE, node_id))
    if node is None:
        return Refused(Refusal.NOT_FOUND, f"there is no node {node_id!r}")
    if asked.actor != f"node:{node_id}":
        return Refused(Refusal.NOT_ALLOWED, f"only node {node_id} speaks for its own authorities")
    return node


def _add_root(t: Tables, command: AddAuthority, node: r.NodeRecord) -> Refused | None:
    assert t.cluster is not None
    if node.member.role is not MemberRole.VOTER:
        return Refused(Refusal.NOT_ALLOWED, f"node {command.node_id} is an observer: voters list roots")
    if command.certificate == t.cluster.root_certificate:
        return None
    known = t.roots.under(keys.ROOT, limits.ROOTS_MAX)
    key = keys.ROOT + sha256(command.certificate).digest()
    if any(known_key == key for known_key, _ in known):
        return None
    if len(_standing(t, known)) >= limits.ROOTS_STANDING_MAX or len(known) >= limits.ROOTS_MAX:
        return Refused(Refusal.LIMIT, "another root takes its turn already: let that one end first")
    t.roots.put(key, rt.RootRecord(command.certificate, command.above, len(known) + 1, t.now_ms))
    return None


def _add_people(t: Tables, command: AddAuthority, node: r.NodeRecord) -> Refused | None:
    if node.member.role is not MemberRole.VOTER:
        return Refused(Refusal.NOT_ALLOWED, f"node {command.node_id} is an observer: voters vouch for people")
    key = keys.by_name(keys.PEOPLE_AUTHORITY, command.node_id)
    record = t.people_authorities.get(key) or rt.AuthoritiesRecord()
    if command.certificate in record.certificates:
        return None
    if len(record.certificates) >= limits.AUTHORITIES_MAX:
        return Refused(Refusal.LIMIT, f"a node has at most {limits.AUTHORITIES_MAX} authorities")
    t.people_authorities.put(key, rt.AuthoritiesRecord((*record.certificates, command.certificate)))
    return None


def _add_site(t: Tables, command: AddAuthority, node: r.NodeRecord) -> Refused | None:
    if node.member.site != command.scope:
        return Refused(Refusal.WRONG_SITE, f"node {command.node_id} belongs to {node.member.site}")
    key = keys.by_name(keys.SITE, command.scope)
    site = t.sites.get(key)
    assert site is not None, "every node has a site"
    known = site.issuing_certificates
    if command.certificate in known:
        return None
    if len(known) >= limits.AUTHORITIES_MAX:
        return Refused(Refusal.LIMIT, f"a site has at most {limits.AUTHORITIES_MAX} authorities")
    t.sites.put(key, msgspec.structs.replace(site, issuing_certificates=(*known, command.certificate)))
    return None


def retire_authority(t: Tables, command: RetireAuthority, asked: Asked) -> Outcome:
    """List an authority no more."""
    node = _own_node(t, command.node_id, asked)
    if isinstance(node, Refused):
        return node
    if not command.scope:
        refusal = _retire_root(t, command.certificate, node)
    elif command.scope == PEOPLE:
        refusal = _retire_people(t, command)
    else:
        refusal = _retire_site(t, command, node)
    if refusal is not None:
        return refusal
    return Applied((f"an authority of {command.scope or 'the cluster'} stands no more",))


def _standing(t: Tables, known: list[tuple[bytes, rt.RootRecord]]) -> set[bytes]:
    """Return the keys of the roots that stand, the founding one included until it has a record that it retired."""
    assert t.cluster is not None
    founding = keys.ROOT + sha256(t.cluster.root_certificate).digest()
    standing = {key for key, record in known if not record.retired}
    return standing if any(key == founding for key, _ in known) else standing | {founding}


def _retire_root(t: Tables, certificate: bytes, node: r.NodeRecord) -> Refused | None:
    if node.member.role is not MemberRole.VOTER:
        return Refused(Refusal.NOT_ALLOWED, f"node {node.member.node_id} is an observer: voters retire roots")
    known = t.roots.under(keys.ROOT, limits.ROOTS_MAX)
    standing = _standing(t, known)
    key = keys.ROOT + sha256(certificate).digest()
    if key not in standing:
        return None
    if len(standing) == 1:
        return Refused(Refusal.NOT_ALLOWED, "the last root of a cluster stays")
    record = t.roots.get(key) or rt.RootRecord(certificate, b"", 0, 0)
    t.roots.put(key, msgspec.structs.replace(record, retired=True))
    return None


def _retire_people(t: Tables, command: RetireAuthority) -> Refused | None:
    key = keys.by_name(keys.PEOPLE_AUTHORITY, command.node_id)
    record = t.people_authorities.get(key)
    if record is None or command.certificate not in record.certificates:
        return None
    left = tuple(known for known in record.certificates if known != command.certificate)
    if not left:
        t.people_authorities.delete(key)
    else:
        t.people_authorities.put(key, rt.AuthoritiesRecord(left))
    return None


def _retire_site(t: Tables, command: RetireAuthority, node: r.NodeRecord) -> Refused | None:
    if node.member.site != command.scope:
        return Refused(Refusal.WRONG_SITE, f"node {command.node_id} belongs to {node.member.site}")
    key = keys.by_name(keys.SITE, command.scope)
    site = t.sites.get(key)
    assert site is not None, "every node has a site"
    left = tuple(known for known in site.issuing_certificates if known != command.certificate)
    if not left:
        return Refused(Refusal.NOT_ALLOWED, f"the last authority of {command.scope} stays")
    t.sites.put(key, msgspec.structs.replace(site, issuing_certificates=left))
    return None


def ask_renewal(t: Tables, command: AskRenewal, asked: Asked) -> Outcome:
    """Note the wish; the node acts on it."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    if command.what is Renewal.ROOT:
        key, words = keys.ASKED + Renewal.ROOT.encode(), "the cluster's root"
    else:
        node = t.nodes.get(keys.by_name(keys.NODE, command.node_id))
        if node is None:
            return Refused(Refusal.NOT_FOUND, f"there is no node {command.node_id!r}")
        key = _wish(command.what, command.node_id)
        words = f"the {command.what} certificate of node {command.node_id}"
    t.numbers.put(key, t.now_ms)
    return Applied((f"{words} is made anew",))


def _wish(what: Renewal, node_id: str) -> bytes:
    return keys.ASKED + what.encode() + (b"/" + node_id.encode() if node_id else b"")


def forget_wish(t: Tables, what: Renewal, node_id: str) -> None:
    """What was asked has been done."""
    key = _wish(what, node_id)
    if t.numbers.get(key) is not None:
        t.numbers.delete(key)


def forget_node(t: Tables, node_id: str) -> None:
    """A node left: it vouches for nobody, and nothing is asked of it."""
    for what in (Renewal.NODE, Renewal.SITE, Renewal.PEOPLE):
        forget_wish(t, what, node_id)
    key = keys.by_name(keys.PEOPLE_AUTHORITY, node_id)
    if t.people_authorities.get(key) is not None:
        t.people_authorities.delete(key)


def hand_on(t: Tables, node_id: str, successor: str) -> None:
    """A node takes another's place: whom the one before vouched for stay in."""
    record = t.people_authorities.get(keys.by_name(keys.PEOPLE_AUTHORITY, node_id))
    forget_node(t, node_id)
    if record is not None:
        key = keys.by_name(keys.PEOPLE_AUTHORITY, successor)
        present = t.people_authorities.get(key) or rt.AuthoritiesRecord()
        certificates = (*present.certificates, *record.certificates)[: limits.AUTHORITIES_MAX]
        t.people_authorities.put(key, rt.AuthoritiesRecord(certificates))


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
    if known is None and staying + _count_shut_out(t) >= limits.PEOPLE_MAX:
        return Refused(Refusal.LIMIT, f"a cluster remembers at most {limits.PEOPLE_MAX} people")
    if person is not None:
        t.people.delete(key)
        t.cluster.people -= 1
        t.save_cluster(t.cluster)
    before_ms = max(command.before_ms, known.before_ms if known is not None else 0)
    t.shut_out.put(out_key, rt.ShutOutRecord(command.reason, t.now_ms, before_ms, out=True))
    return Applied((f"{command.name} is shut out from now on",))


def let_in(t: Tables, name: str) -> None:
    """A person who was shut out is given a role again: certificates of before stay refused."""
    key = keys.by_name(keys.SHUT_OUT, name)
    known = t.shut_out.get(key)
    if known is not None and known.out:
        t.shut_out.put(key, msgspec.structs.replace(known, out=False))


def _another_administrator(t: Tables, name: str) -> bool:
    own = keys.by_name(keys.PERSON, name)
    return any(
        record.role is Role.ADMINISTRATOR and key != own
        for key, record in t.people.under(keys.PERSON, limits.PEOPLE_MAX)
    )


def _count_shut_out(t: Tables) -> int:
    return len(t.shut_out.under(keys.SHUT_OUT, limits.PEOPLE_MAX))
