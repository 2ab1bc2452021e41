"""Queries about the cluster: time, members, keys, people, sites, blobs, audit."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from iceprod_p2p.ledger import keys, limits, rows
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.ledger.versions import AUTHORITIES_TOLD
from iceprod_p2p.model.site import Member, SiteCounts

PAGE_MAX: Final = 1_000
_progress: Final = msgspec.msgpack.Decoder(r.Progress).decode
_cluster: Final = msgspec.msgpack.Decoder(r.Cluster).decode
_node: Final = msgspec.msgpack.Decoder(r.NodeRecord).decode
_audit: Final = msgspec.msgpack.Decoder(r.AuditRecord).decode
_person: Final = msgspec.msgpack.Decoder(r.PersonRecord).decode


def _read_progress(kv: KeyValue) -> r.Progress:
    raw = kv.get(keys.PROGRESS)
    return r.Progress() if raw is None else _progress(raw)


def ledger_time_ms(kv: KeyValue) -> int:
    """Return ledger time; 0 before the first tick."""
    return _read_progress(kv).time_ms


def applied_index(kv: KeyValue) -> int:
    """Return the index of the last entry applied; 0 before the first."""
    return _read_progress(kv).applied_index


def state_digest(kv: KeyValue) -> bytes:
    """Return the rolling digest over every entry applied and its outcomes; equal on replicas at equal index."""
    return _read_progress(kv).digest


def version(kv: KeyValue) -> int:
    """Return the ledger's version, of the whole cluster: nothing newer is proposed."""
    return _read_progress(kv).version


def content_digest(kv: KeyValue) -> bytes:
    """Return the SHA-256 over every stored key and value: reads everything, for tests and checks."""
    digest = sha256()
    for key, value in kv.scan(b"\x01", b"\xff"):
        digest.update(len(key).to_bytes(2, "big") + key + len(value).to_bytes(4, "big") + value)
    return digest.digest()


def settings(kv: KeyValue) -> rows.Settings | None:
    """Return the cluster's name and settings; None before it is founded."""
    raw = kv.get(keys.CLUSTER)
    if raw is None:
        return None
    cluster = _cluster(raw)
    return rows.Settings(
        cluster.name, cluster.site_grace_ms, cluster.datasets, cluster.sites, cluster.nodes, cluster.epoch
    )


def root_certificate(kv: KeyValue) -> bytes | None:
    """Return the root certificate that has stood longest, in DER; None before the cluster is founded."""
    standing = roots(kv)
    return standing[0].certificate if standing else None


def roots(kv: KeyValue) -> tuple[rows.RootRow, ...]:
    """Return the roots that stand, the oldest first: two while one takes the other's turn."""
    raw = kv.get(keys.CLUSTER)
    if raw is None:
        return ()
    founding = _cluster(raw).root_certificate
    later = [
        record
        for _, record in Tables(kv).roots.under(keys.ROOT, limits.ROOTS_MAX + limits.ROOTS_STANDING_MAX)
    ]
    noted = any(record.certificate == founding for record in later) or (
        kv.get(keys.RETIRED_ROOT + sha256(founding).digest()) is not None
    )
    first = () if noted else (rows.RootRow(founding, b""),)
    standing = sorted((record for record in later if not record.retired), key=lambda root: root.number)
    return (*first, *(rows.RootRow(record.certificate, record.above) for record in standing))


def people_authorities(kv: KeyValue) -> tuple[tuple[str, bytes], ...]:
    """Return every certificate of an authority for people in DER, with the node whose it is."""
    return tuple(
        (key[1:].decode(), certificate)
        for key, record in Tables(kv).people_authorities.under(keys.PEOPLE_AUTHORITY, limits.NODES_MAX)
        for certificate in record.certificates
    )


def unused_authorities(kv: KeyValue) -> frozenset[bytes]:
    """Return the authorities of sites that have signed nothing yet, by the SHA-256 of their certificates."""
    most = limits.SITES_MAX * limits.AUTHORITIES_MAX
    return frozenset(key[1:] for key, _ in Tables(kv).scan_keys(keys.UNUSED_AUTHORITY, most))


def node_authorities(kv: KeyValue) -> dict[str, tuple[bytes, bytes]]:
    """Return what nodes told of the authorities that they sign with: the site's and the people's, by SHA-256."""
    told = Tables(kv).node_authorities.under(keys.NODE_AUTHORITIES, limits.NODES_MAX)
    return {key[1:].decode(): (record.site, record.people) for key, record in told}


def refusals(kv: KeyValue) -> int | None:
    """Return a number that changes whenever a node, person or certificate is refused from then on, or no more.

    None below version 3 of the ledger, where nobody counts.
    """
    raw = kv.get(keys.CLUSTER)
    return None if raw is None or version(kv) < AUTHORITIES_TOLD else _cluster(raw).refusals


def asked(kv: KeyValue) -> frozenset[tuple[str, str]]:
    """Return what was asked to be made anew and has not been: kind and node, as `model.trust.Renewal` says."""
    found = Tables(kv).numbers.under(keys.ASKED, limits.NODES_MAX)
    words = (key[1:].decode().partition("/") for key, _ in found)
    return frozenset((what, node_id) for what, _, node_id in words)


def shut_out(kv: KeyValue) -> dict[str, tuple[bool, int]]:
    """Return who was ever shut out: whether now, and the wall time before which certificates are refused."""
    found = Tables(kv).shut_out.under(keys.SHUT_OUT, limits.PEOPLE_MAX)
    return {key[1:].decode(): (record.out, record.before_ms) for key, record in found}


def members(kv: KeyValue) -> tuple[Member, ...]:
    """Return the members of the cluster, by node id."""
    return tuple(row.member for row in nodes(kv))


def nodes(kv: KeyValue) -> tuple[rows.NodeRow, ...]:
    """Return every node with its addresses and keys, by node id."""
    return tuple(_node_row(_node(raw)) for _, raw in kv.scan(keys.NODE, keys.prefix_stop(keys.NODE)))


def node(kv: KeyValue, node_id: str) -> rows.NodeRow | None:
    """Return one node."""
    raw = kv.get(keys.by_name(keys.NODE, node_id)[: keys.NAME_BYTES_MAX])
    return None if raw is None else _node_row(_node(raw))


def _node_row(record: r.NodeRecord) -> rows.NodeRow:
    return rows.NodeRow(
        record.member,
        record.fingerprint,
        record.passkey_key_id,
        record.passkey_public_key,
        record.enrol_address,
        record.server_name,
        record.joined_ms,
        record.version_least,
        record.version_most,
    )


def passkey_keys(kv: KeyValue) -> dict[str, bytes]:
    """Return the public keys that passkeys may be signed with, by key id."""
    found: dict[str, bytes] = {}
    for _, raw in kv.scan(keys.NODE, keys.prefix_stop(keys.NODE)):
        record = _node(raw)
        found.update((*record.earlier_keys, (record.passkey_key_id, record.passkey_public_key)))
    return found


def issuing_certificates(kv: KeyValue) -> dict[str, bytes]:
    """Return each site's newest issuing certificate in DER."""
    return dict(issuing_authorities(kv))


def issuing_authorities(kv: KeyValue) -> tuple[tuple[str, bytes], ...]:
    """Return every issuing certificate in DER with its site: several for one site while its authority rotates."""
    t = Tables(kv)
    return tuple(
        (key[1:].decode(), certificate)
        for key, site in t.sites.under(keys.SITE, limits.SITES_MAX)
        for certificate in site.issuing_certificates
    )


def is_revoked(kv: KeyValue, fingerprint: bytes) -> bool:
    """Return whether a certificate, by its SHA-256, is refused."""
    return kv.get(keys.REVOKED + fingerprint[:32]) is not None


def invitation(kv: KeyValue, token_digest: bytes) -> rows.Invitation | None:
    """Return an invitation that has not expired."""
    record = Tables(kv).invitations.get(keys.INVITATION + token_digest[:32])
    if record is None or record.expires_ms <= ledger_time_ms(kv):
        return None
    return rows.Invitation(record.site, record.expires_ms, record.node_id)


def person(kv: KeyValue, name: str) -> rows.PersonRow | None:
    """Return a person; None for one the ledger does not know."""
    raw = kv.get(keys.by_name(keys.PERSON, name)[: keys.NAME_BYTES_MAX])
    if raw is None:
        return None
    record = _person(raw)
    return rows.PersonRow(name, record.role, record.groups)


def people(kv: KeyValue, *, after: str = "", limit: int = 100) -> rows.Page[rows.PersonRow, str]:
    """Return people by name."""
    t = Tables(kv)
    start = keys.by_name(keys.PERSON, after) + b"\x00" if after else keys.PERSON
    found = t.people.page(start, keys.prefix_stop(keys.PERSON), min(limit, PAGE_MAX))
    page = tuple(rows.PersonRow(key[1:].decode(), record.role, record.groups) for key, record in found)
    return rows.Page(page, page[-1].name if len(page) == min(limit, PAGE_MAX) else None)


def sites(kv: KeyValue) -> tuple[rows.SiteRow, ...]:
    """Return every site with its counts, by name."""
    t = Tables(kv)
    homes: dict[str, list[str]] = {}
    for row in nodes(kv):
        homes.setdefault(row.member.site, []).append(row.member.node_id)
    return tuple(
        _site_row(t, key[1:].decode(), record, tuple(homes.get(key[1:].decode(), ())))
        for key, record in t.sites.under(keys.SITE, limits.SITES_MAX)
    )


def site(kv: KeyValue, name: str) -> rows.SiteRow | None:
    """Return one site."""
    return next((row for row in sites(kv) if row.site == name), None)


def _site_row(t: Tables, name: str, record: r.SiteRecord, node_ids: tuple[str, ...]) -> rows.SiteRow:
    tally = t.site_tally(record.number)
    return rows.SiteRow(
        site=name,
        state=record.state,
        reason=record.reason,
        counts=_summed([counts for node_id, counts in record.counts.items() if node_id in node_ids]),
        heartbeat_age_ms=t.now_ms - record.heard_ms,
        alive=record.alive_until_ms > t.now_ms,
        claimed=tally.claimed,
        queued=tally.queued,
        processing=tally.processing,
        copying=tally.copying,
        complete=tally.complete,
        failures=tally.failures,
        losses=tally.losses,
        nodes=node_ids,
    )


def _summed(counts: list[SiteCounts]) -> SiteCounts:
    if not counts:
        return SiteCounts()
    return SiteCounts(
        grid=counts[0].grid,
        slots=sum(each.slots for each in counts),
        slots_busy=sum(each.slots_busy for each in counts),
        pilots_queued=sum(each.pilots_queued for each in counts),
        pilots_running=sum(each.pilots_running for each in counts),
        attributes=tuple(sorted({attribute for each in counts for attribute in each.attributes})),
        version=counts[0].version,
    )


def audit(kv: KeyValue, *, after: int = 0, limit: int = 100) -> rows.Page[rows.AuditRow, int]:
    """Return audit records in order, beyond number `after`."""
    limit = min(limit, PAGE_MAX)
    start, stop = keys.by_index(keys.AUDIT, after + 1), keys.prefix_stop(keys.AUDIT)
    found: list[rows.AuditRow] = []
    for _, raw in kv.scan(start, stop):
        if len(found) >= limit:
            break
        record = _audit(raw)
        found.append(rows.AuditRow(record.index, record.at_ms, record.actor, record.what, record.outcome))
    return rows.Page(tuple(found), found[-1].index if found and len(found) == limit else None)


def ready_counts(kv: KeyValue) -> tuple[rows.ReadyCount, ...]:
    """Return how many tasks are ready, by what they need; the first two thousand classes at most."""
    t = Tables(kv)
    return tuple(
        rows.ReadyCount(t.requirements_of(keys.number_of(key, 1, 2)), count)
        for key, count in t.numbers.under(keys.REQUIREMENTS_READY, limits.REQUIREMENTS_PAGE)
    )


def sweeps_pending(kv: KeyValue) -> int:
    """Return how many mass changes ticks have still to carry out; while there are some, ticks may come faster."""
    return sum(1 for _ in kv.scan(keys.SWEEP, keys.prefix_stop(keys.SWEEP)))
