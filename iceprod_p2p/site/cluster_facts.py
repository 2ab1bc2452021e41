"""What a node asks the ledger all the time, kept in memory for a moment: members, keys, whom to believe,
sites.

Read anew at most every quarter of a second, so a revocation or a new member counts almost at once on a node
that is not cut off, and a flood of calls costs no flood of reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography import x509

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import keys, queries
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.limits import NODES_MAX, SITES_MAX
from iceprod_p2p.ledger.rules.replacing import returning_site
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.identity import PEOPLE
from iceprod_p2p.model.states import SiteState
from iceprod_p2p.security.certificates import certificate_key
from iceprod_p2p.security.passkeys import PasskeyKey
from iceprod_p2p.security.trust import Issuer, Trust, read_issuer
from iceprod_p2p.wire.pb import common_pb2

FRESH_S: Final = 0.25
REVOKED_MAX: Final = 100_000
REMOVED_MAX: Final = 10_000
log = get_logger("cluster")


class Views(Protocol):
    """Where read snapshots come from."""

    def view(self) -> AbstractContextManager[KeyValue]:
        """Give one short read snapshot."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """The cluster as the ledger had it at one moment."""

    time_ms: int
    nodes: tuple[common_pb2.NodeAddress, ...]
    node_records: Mapping[str, r.NodeRecord]
    sites: Mapping[str, r.SiteRecord]
    passkey_keys: Mapping[str, PasskeyKey]
    trust: Trust
    removed: frozenset[str] = frozenset()  # Ids of nodes that are gone for ever.

    def draining(self, site: str) -> bool:
        """Whether a site takes no new work; an unknown one takes none either."""
        record = self.sites.get(site)
        return record is None or record.state is not SiteState.ACTIVE

    def banned(self, site: str) -> bool:
        """Whether a site is known, and shut out."""
        record = self.sites.get(site)
        return record is not None and record.state is SiteState.BANNED

    def leases_ended(self, site: str) -> bool:
        """Whether a site was silent for so long that it lost what it held."""
        record = self.sites.get(site)
        return record is None or record.alive_until_ms <= self.time_ms


@dataclass(frozen=True, slots=True)
class Refused:
    """Who is refused, as of one number of the ledger's (`queries.refusals`)."""

    mark: int | None
    nodes: frozenset[str]
    returning: frozenset[
        str
    ]  # Sites without a node since a restore, which may come back without an invitation.
    certificates: frozenset[str]
    people: Mapping[str, tuple[bool, int]]


class ClusterFacts:
    """Used on the event loop only."""

    def __init__(
        self, views: Views, *, cluster: str, roots: Callable[[], tuple[x509.Certificate, ...]], clock: Clock
    ) -> None:
        """`roots` gives those that this node believes now."""
        self._views = views
        self._cluster = cluster
        self._roots = roots
        self._clock = clock
        self._facts: Facts | None = None
        self._read_s = float("-inf")
        self._issuers: dict[bytes, Issuer] = {}
        self._refused: Refused | None = None

    def now(self) -> Facts:
        """Return the facts, at most a quarter of a second old."""
        now_s = self._clock.monotonic_s()
        if self._facts is None or now_s - self._read_s > FRESH_S:
            self._facts = self._read()
            self._read_s = now_s
        return self._facts

    def fresh(self) -> Facts:
        """Return the facts as they are in this node's tables now."""
        self._read_s = float("-inf")
        return self.now()

    def _read(self) -> Facts:
        with self._views.view() as kv:
            tables = Tables(kv)
            time_ms = tables.now_ms
            records = [record for _, record in tables.nodes.under(keys.NODE, NODES_MAX)]
            sites = {key[1:].decode(): record for key, record in tables.sites.under(keys.SITE, SITES_MAX)}
            people = queries.people_authorities(kv)
            refused = self._refused_now(kv)
        issuers = self._issuers_of(sites) + self._people_of(people)
        banned = {site for site, record in sites.items() if record.state is SiteState.BANNED}
        taking_part = ({record.member.site for record in records} | refused.returning) - banned
        return Facts(
            time_ms=time_ms,
            nodes=tuple(_address(record) for record in sorted(records, key=lambda node: node.joined_ms)),
            node_records={record.member.node_id: record for record in records},
            sites=sites,
            passkey_keys={
                key_id: PasskeyKey(record.member.site, public_key)
                for record in records
                for key_id, public_key in (
                    *record.earlier_keys,
                    (record.passkey_key_id, record.passkey_public_key),
                )
            },
            trust=Trust.of(
                self._cluster, self._roots(), issuers, refused.certificates, refused.people, taking_part
            ),
            removed=refused.nodes,
        )

    def _refused_now(self, kv: KeyValue) -> Refused:
        """Return who is refused, read anew only when the ledger says that it changed: there may be very many."""
        mark = queries.refusals(kv)
        if mark is None or self._refused is None or self._refused.mark != mark:
            tables = Tables(kv)
            removed = tables.scan_keys(keys.REMOVED, REMOVED_MAX)
            self._refused = Refused(
                mark,
                nodes=frozenset(key[1:].decode("utf-8", "replace") for key, _ in removed),
                returning=frozenset(filter(None, (returning_site(marker) for _, marker in removed))),
                certificates=frozenset(
                    key[1:].hex() for key, _ in tables.scan_keys(keys.REVOKED, REVOKED_MAX)
                ),
                people=queries.shut_out(kv),
            )
        return self._refused

    def _issuers_of(self, sites: Mapping[str, r.SiteRecord]) -> list[Issuer]:
        issuers = []
        for site, record in sites.items():
            if record.state is SiteState.BANNED:
                continue  # Its node and pilots may not speak.
            for der in record.issuing_certificates:
                issuers += self._issuer(der, site)
        return issuers

    def _people_of(self, authorities: Sequence[tuple[str, bytes]]) -> list[Issuer]:
        return [issuer for _, der in authorities for issuer in self._issuer(der, PEOPLE)]

    def _issuer(self, der: bytes, scope: str) -> list[Issuer]:
        """Return the authority, none when its certificate is not what it must be."""
        known = self._issuers.get(der)
        if known is not None:
            return [known]
        try:
            issuer = read_issuer(der, scope=scope, cluster=self._cluster)
            certificate_key(issuer.certificate)  # Of a kind that this cluster does not use: NotAllowed.
        except IceProdError as fault:  # Whoever listed it: nobody else's services end of it.
            log.error("issuing certificate in the ledger not usable", scope=scope, fault=fault.message)
            return []
        self._issuers[der] = issuer
        return [issuer]


def _address(record: r.NodeRecord) -> common_pb2.NodeAddress:
    member = record.member
    return common_pb2.NodeAddress(
        node_id=member.node_id,
        site=member.site,
        address=member.address,
        server_name=record.server_name,
        role=str(member.role),
        enrol_address=record.enrol_address,
    )
