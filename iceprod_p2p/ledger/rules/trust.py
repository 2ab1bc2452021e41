"""Authorities that overlap while one takes the other's turn, and wishes for new certificates."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger import records_trust as rt
from iceprod_p2p.ledger.commands_trust import AddAuthority, AskRenewal, RetireAuthority
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules import authorities, roots
from iceprod_p2p.ledger.rules.asked import Asked, at_least
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.ledger.versions import AUTHORITIES_TOLD
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
        refusal, renewal, whose = roots.add_root(t, command, node), Renewal.ROOT, ""
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
    if not record.certificates:
        authorities.tell(t, command.node_id, people=sha256(command.certificate).digest())
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
    authorities.note_listed(t, command.certificate)
    return None


def retire_authority(t: Tables, command: RetireAuthority, asked: Asked) -> Outcome:
    """List an authority no more."""
    node = _own_node(t, command.node_id, asked)
    if isinstance(node, Refused):
        return node
    if not command.scope:
        refusal = roots.retire_root(t, command.certificate, node)
    elif command.scope == PEOPLE:
        refusal = _retire_people(t, command)
    else:
        refusal = _retire_site(t, command, node)
    if refusal is not None:
        return refusal
    return Applied((f"an authority of {command.scope or 'the cluster'} stands no more",))


def _retire_people(t: Tables, command: RetireAuthority) -> Refused | None:
    key = keys.by_name(keys.PEOPLE_AUTHORITY, command.node_id)
    record = t.people_authorities.get(key)
    if record is None or command.certificate not in record.certificates:
        return None
    if t.version >= AUTHORITIES_TOLD and authorities.is_last_for_people(
        t, command.node_id, command.certificate
    ):
        return Refused(Refusal.NOT_ALLOWED, "the last authority for people stays: nobody could come in")
    left = tuple(known for known in record.certificates if known != command.certificate)
    authorities.keep_people(t, key, left)
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
    digest = sha256(command.certificate).digest()
    if t.version >= AUTHORITIES_TOLD and command.certificate in site.issuing_certificates:
        user = authorities.user_of(t, command.scope, digest, but=command.node_id)
        if user:
            return Refused(Refusal.WRONG_STATE, f"an authority of {command.scope} is in use: {user}")
        authorities.forget_unused(t, digest)
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
    authorities.forget_told(t, node_id)
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
