"""Which authorities are in use: told by the nodes that sign with them, asked before one is listed no more.

From version 3 of the ledger on.  What no node signs with any more ends after a while by its site's own nodes, or at
once by an administrator's word; what somebody signs with, or may sign with, stays.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger import records_trust as rt
from iceprod_p2p.ledger.commands_trust import EndAuthority
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, at_least
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.ledger.versions import AUTHORITIES_TOLD
from iceprod_p2p.model.identity import PEOPLE
from iceprod_p2p.model.person import Role

_NOTHING: Final = rt.NodeAuthorities()


def told_of(t: Tables, node_id: str) -> rt.NodeAuthorities:
    """Return what a node told of the authorities that it signs with."""
    return t.node_authorities.get(keys.by_name(keys.NODE_AUTHORITIES, node_id)) or _NOTHING


def tell(t: Tables, node_id: str, *, site: bytes = b"", people: bytes = b"") -> None:
    """Note which authorities a node signs with, by the SHA-256 of their certificates; empty: as before."""
    if t.version < AUTHORITIES_TOLD or not (site or people):
        return
    before = told_of(t, node_id)
    told = rt.NodeAuthorities(site or before.site, people or before.people)
    if told != before:
        t.node_authorities.put(keys.by_name(keys.NODE_AUTHORITIES, node_id), told)
    if site:
        forget_unused(t, site)


def forget_told(t: Tables, node_id: str) -> None:
    """A node left: it signs nothing any more."""
    if told_of(t, node_id) is not _NOTHING:
        t.node_authorities.delete(keys.by_name(keys.NODE_AUTHORITIES, node_id))


def note_listed(t: Tables, certificate: bytes) -> None:
    """An authority of a site was listed, and has signed nothing yet."""
    if t.version >= AUTHORITIES_TOLD:
        t.numbers.put(keys.UNUSED_AUTHORITY + sha256(certificate).digest(), t.now_ms)


def forget_unused(t: Tables, authority: bytes) -> None:
    """An authority signs from now on, or is listed no more."""
    key = keys.UNUSED_AUTHORITY + authority
    if t.numbers.get(key) is not None:
        t.numbers.delete(key)


def user_of(t: Tables, site: str, authority: bytes, *, but: str = "") -> str:
    """Return a node of the site that signs, or may sign, with an authority, in words; empty when none does."""
    for node in _nodes_of(t, site):
        node_id = node.member.node_id
        if node_id == but:
            continue
        told = told_of(t, node_id).site
        if told == authority:
            return f"node {node_id} signs with it"
        if not told:
            return f"node {node_id} has not told which one it signs with"
    return ""


def _nodes_of(t: Tables, site: str) -> list[r.NodeRecord]:
    return [node for _, node in t.nodes.under(keys.NODE, limits.NODES_MAX) if node.member.site == site]


def end_authority(t: Tables, command: EndAuthority, asked: Asked) -> Outcome:
    """List an authority no more; refused for one that is in use, so that nobody who belongs is shut out."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    refusal = _end_people(t, command) if command.scope == PEOPLE else _end_site(t, command)
    return refusal if refusal is not None else Applied((f"an authority of {command.scope} stands no more",))


def _end_site(t: Tables, command: EndAuthority) -> Refused | None:
    site = t.site(command.scope)
    known = site.issuing_certificates if site is not None else ()
    left = tuple(der for der in known if sha256(der).digest() != command.authority)
    if site is None or len(left) == len(known):
        return _not_listed(command.scope)
    user = user_of(t, command.scope, command.authority)
    if user:
        return Refused(
            Refusal.WRONG_STATE,
            f"{user}: rotate it, or remove the node if it is lost (`iceprod cluster rotate | remove`)",
        )
    if not left and _nodes_of(t, command.scope):
        return Refused(Refusal.NOT_ALLOWED, f"the last authority of {command.scope} stays while it has nodes")
    forget_unused(t, command.authority)
    t.sites.put(
        keys.by_name(keys.SITE, command.scope), msgspec.structs.replace(site, issuing_certificates=left)
    )
    return None


def _end_people(t: Tables, command: EndAuthority) -> Refused | None:
    page = t.people_authorities.under(keys.PEOPLE_AUTHORITY, limits.NODES_MAX)
    listed = 0
    holders: list[tuple[bytes, tuple[bytes, ...]]] = []
    for key, record in page:
        left = tuple(der for der in record.certificates if sha256(der).digest() != command.authority)
        listed += len(left)
        if len(left) < len(record.certificates):
            holders.append((key, left))
    if not holders:
        return _not_listed(PEOPLE)
    for key, _ in holders:
        node_id = key[1:].decode()
        told = told_of(t, node_id)
        if told.people == command.authority or not told.site:
            what = "vouches with it" if told.site else "has not told which one it vouches with"
            return Refused(
                Refusal.WRONG_STATE,
                f"node {node_id} {what}: rotate it, or remove the node if it is lost"
                " (`iceprod cluster rotate | remove`)",
            )
    if not listed:
        return Refused(Refusal.NOT_ALLOWED, "the last authority for people stays: nobody could come in")
    for key, left in holders:
        keep_people(t, key, left)
    return None


def keep_people(t: Tables, key: bytes, left: tuple[bytes, ...]) -> None:
    """Write the authorities for people that a node has left."""
    if left:
        t.people_authorities.put(key, rt.AuthoritiesRecord(left))
    else:
        t.people_authorities.delete(key)


def is_last_for_people(t: Tables, node_id: str, certificate: bytes | None = None) -> bool:
    """Return whether nobody would vouch for people without this node, or without this one of its authorities."""
    own = keys.by_name(keys.PEOPLE_AUTHORITY, node_id)
    record = t.people_authorities.get(own)
    if record is None:
        return False
    if certificate is not None and set(record.certificates) != {certificate}:
        return False
    return all(key == own for key, _ in t.people_authorities.under(keys.PEOPLE_AUTHORITY, 2))


def _not_listed(scope: str) -> Refused:
    return Refused(
        Refusal.NOT_FOUND, f"no such authority of {scope!r} is listed: see `iceprod cluster authorities`"
    )
