"""What the ledger says of authorities, as a node reads it before it makes its keys anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import keys as tables
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.limits import NODES_MAX, SITES_MAX
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.model.states import SiteState
from iceprod_p2p.security.certificates import certificate_from_der, certificate_key
from iceprod_p2p.site.node_keys import NodeKeys

log = get_logger("renewal")


@dataclass(frozen=True, slots=True)
class Listed:
    """What the ledger says of authorities, for one step."""

    roots: tuple[x509.Certificate, ...]  # Those that stand, the oldest first.
    above: tuple[x509.Certificate, ...]
    site: tuple[bytes, ...]  # Of this node's site.
    people: tuple[bytes, ...]  # Of this node.
    others_vouch: bool  # Another node has an authority for people.
    needed: tuple[x509.Certificate, ...]  # Every listed authority that signed something, and those of people.
    asked: frozenset[tuple[str, str]]
    votes: bool
    idle: tuple[
        bytes, ...
    ]  # Of this node's site: those that, for all that is told, no other node of it signs with.
    others: tuple[bytes, ...]  # Of this node's site: those that other nodes of it sign with.


class ListedReader:
    """Reads it, and each certificate once; `look` may be called from any one thread at a time."""

    def __init__(self, view: Callable[[], AbstractContextManager[KeyValue]]) -> None:
        """`view` gives one short read snapshot."""
        self._view = view
        self._read: dict[bytes, x509.Certificate | None] = {}

    def look(self, keys: NodeKeys) -> Listed | None:
        """Return what is listed; None before this node is."""
        with self._view() as kv:
            rows = queries.roots(kv)
            node = queries.node(kv, keys.node_id)
            if not rows or node is None:
                return None
            t = Tables(kv)
            nodes = [record.member for _, record in t.nodes.under(tables.NODE, NODES_MAX)]
            sites = {key[1:].decode(): record for key, record in t.sites.under(tables.SITE, SITES_MAX)}
            people = queries.people_authorities(kv)
            asked = queries.asked(kv)
            unused = queries.unused_authorities(kv)
            told = queries.node_authorities(kv)
        siblings = {told.get(member.node_id, (b"", b""))[0] for member in _siblings(nodes, keys)}
        in_use = {der: sha256(der).digest() in siblings for der in sites[keys.site].issuing_certificates}
        needed = [der for der in _of_sites(sites, nodes) if sha256(der).digest() not in unused]
        return Listed(
            roots=self._readable(row.certificate for row in rows),
            above=self._readable(row.above for row in rows if row.above),
            site=sites[keys.site].issuing_certificates,
            people=tuple(der for node_id, der in people if node_id == keys.node_id),
            others_vouch=any(node_id != keys.node_id for node_id, _ in people),
            needed=self._readable((*needed, *(der for _, der in people))),
            asked=asked,
            votes=node.member.role is MemberRole.VOTER,
            idle=() if b"" in siblings else tuple(der for der, used in in_use.items() if not used),
            others=tuple(der for der, used in in_use.items() if used),
        )

    def _readable(self, ders: Iterable[bytes]) -> tuple[x509.Certificate, ...]:
        """Read certificates; what some node listed that is none counts for nothing."""
        found = (self._read[der] if der in self._read else self._certificate(der) for der in ders)
        return tuple(certificate for certificate in found if certificate is not None)

    def _certificate(self, der: bytes) -> x509.Certificate | None:
        self._read[der] = None
        try:
            certificate = certificate_from_der(der)
            certificate_key(certificate)
            self._read[der] = certificate
        except IceProdError as fault:
            log.error("certificate in the ledger not usable", fault=fault.message)
        return self._read[der]


def _of_sites(sites: Mapping[str, r.SiteRecord], nodes: Iterable[Member]) -> list[bytes]:
    """Return the authorities of sites that take part."""
    with_nodes = {member.site for member in nodes}
    return [
        der
        for name, site in sites.items()
        if name in with_nodes and site.state is not SiteState.BANNED
        for der in site.issuing_certificates
    ]


def _siblings(nodes: Iterable[Member], keys: NodeKeys) -> list[Member]:
    return [member for member in nodes if member.site == keys.site and member.node_id != keys.node_id]
