"""A node in the place of another of its site, and a cluster that begins anew from a backup.

A data directory that was lost, copied or restored never votes again under its node's id.  Its site comes back
with a new node, which takes over the old one's place: its role once it has caught up, and the passkeys that it
signed.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from iceprod_p2p.base.ids import is_name
from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import AddNode
from iceprod_p2p.ledger.commands_replacing import ReplaceNode, RestoreCluster
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules import authorities, trust
from iceprod_p2p.ledger.rules.asked import Asked, find_site
from iceprod_p2p.ledger.rules.members import (
    NOT_FOUNDED,
    admit_site,
    check_invitation,
    check_turn,
    check_versions,
    note_change,
    use_invitation,
)
from iceprod_p2p.ledger.rules.people import note_refusal
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.ledger.versions import AUTHORITIES_TOLD
from iceprod_p2p.model.site import MemberRole

EARLIER_KEYS_MAX: Final = 2  # Passkeys live for days: those of the node before, and of the one before that.
_TIME_BYTES: Final = 8
_RETURNS: Final = {b"v": True, b"o": False}  # Behind the time, in the record of a node removed by a restore.


class _Place(NamedTuple):
    """The place that a newcomer takes: the site it belongs to, and whether its node voted."""

    site: str
    votes: bool
    record: r.NodeRecord | None  # None: the node is removed already.


def replace_node(t: Tables, command: ReplaceNode, asked: Asked) -> Outcome:
    """Admit a node in the place of another of its site; repeated with the same id and key, it is admitted once."""
    cluster, member = t.cluster, command.member
    if cluster is None:
        return NOT_FOUNDED
    if not is_name(member.node_id) or not is_name(member.site):
        return Refused(Refusal.MALFORMED, "a new node id is made of letters, digits, '-' and '_'")
    known = t.nodes.get(keys.by_name(keys.NODE, member.node_id))
    if known is not None:
        if (known.replaces, known.fingerprint) == (command.replaces, command.certificate_fingerprint):
            return Applied((f"node {member.node_id} took its place before",))
        return Refused(Refusal.EXISTS, f"a node {member.node_id} is there already")
    if t.kv.get(keys.by_name(keys.REMOVED, member.node_id)) is not None:
        return Refused(Refusal.NOT_ALLOWED, f"{member.node_id} was the id of a node that is removed")
    place = _place_of(t, command)
    if isinstance(place, Refused):
        return place
    refusal = _check(t, command, place, asked)
    return refusal if refusal is not None else _take_place(t, command, place)


def _place_of(t: Tables, command: ReplaceNode) -> _Place | Refused:
    """Find the place that is asked for."""
    record = t.nodes.get(keys.by_name(keys.NODE, command.replaces))
    if record is not None:
        votes = record.member.role is MemberRole.VOTER or record.votes_next
        return _Place(record.member.site, votes, record)
    marker = t.kv.get(keys.by_name(keys.REMOVED, command.replaces))
    if marker is not None and returning_site(marker):
        return _Place(returning_site(marker), _RETURNS[marker[_TIME_BYTES : _TIME_BYTES + 1]], None)
    if command.token_digest:
        return _Place(command.member.site, False, None)  # Invited anew: there is nothing to take over.
    if marker is not None:
        return Refused(
            Refusal.NOT_ALLOWED,
            f"node {command.replaces} was removed: an administrator must invite its site again",
        )
    return Refused(Refusal.NOT_FOUND, f"there is no node {command.replaces} to replace")


def returning_site(marker: bytes) -> str:
    """Return the site that may come back for a removed node's place after a restore, by the node's marker; or empty."""
    return marker[_TIME_BYTES + 1 :].decode()


def _check(t: Tables, command: ReplaceNode, place: _Place, asked: Asked) -> Refused | None:
    cluster, member = t.cluster, command.member
    assert cluster is not None
    if place.site != member.site:
        return Refused(
            Refusal.WRONG_SITE, f"node {command.replaces} belongs to {place.site}, not to {member.site}"
        )
    if command.token_digest:
        refusal = check_invitation(t, _as_admission(command))
        if refusal is not None:
            return refusal
    refusal = check_versions(t, _as_admission(command))
    if refusal is not None:
        return refusal
    site = find_site(t, member.site)
    if isinstance(site, Refused):
        return site
    if place.record is None and cluster.nodes >= limits.NODES_MAX:
        return Refused(Refusal.LIMIT, f"a cluster has at most {limits.NODES_MAX} nodes")
    if _is_full(site, command) and _spare(t, site, command) is None:
        return Refused(
            Refusal.LIMIT,
            f"{member.site} has {limits.AUTHORITIES_MAX} authorities, and its nodes sign with all of them or have not"
            " told with which: end one, or remove a lost node (`iceprod cluster authorities`)",
        )
    if place.record is None or place.record.member.role is not MemberRole.VOTER:
        return None
    refusal = check_turn(t, asked)
    if refusal is not None:
        return refusal
    voters = sum(
        other.member.role is MemberRole.VOTER for _, other in t.nodes.under(keys.NODE, limits.NODES_MAX)
    )
    if voters == 1:
        return Refused(
            Refusal.NOT_ALLOWED, f"node {command.replaces} is the last voter and cannot be replaced"
        )
    return None


def _as_admission(command: ReplaceNode) -> AddNode:
    """The same admission without the place, as the rules for invitations want it."""
    return AddNode(
        command.member,
        command.issuing_certificate,
        command.certificate_fingerprint,
        command.passkey_key_id,
        command.passkey_public_key,
        command.token_digest,
        version_least=command.version_least,
        version_most=command.version_most,
    )


def _take_place(t: Tables, command: ReplaceNode, place: _Place) -> Applied:
    cluster = t.cluster
    assert cluster is not None
    if command.token_digest:
        use_invitation(t, _as_admission(command))
    old = place.record
    earlier: tuple[tuple[str, bytes], ...] = ()
    if old is not None:
        earlier = ((old.passkey_key_id, old.passkey_public_key), *old.earlier_keys)[:EARLIER_KEYS_MAX]
        t.nodes.delete(keys.by_name(keys.NODE, command.replaces))
        trust.hand_on(t, command.replaces, command.member.node_id)
        if old.member.role is MemberRole.VOTER:
            note_change(t)
    else:
        cluster.nodes += 1
        t.save_cluster(cluster)
    # Written again without a site, the record of a node that a restore removed is good for one return only.
    t.kv.put(keys.by_name(keys.REMOVED, command.replaces), t.now_ms.to_bytes(_TIME_BYTES, "big"))
    _make_room(t, command)
    admit_site(t, command.member.site, command.issuing_certificate)
    note_refusal(t)
    _put_node(t, command, MemberRole.OBSERVER, votes_next=place.votes, earlier=earlier)
    return Applied((f"node {command.member.node_id} takes the place of {command.replaces}",))


def _is_full(site: r.SiteRecord, command: ReplaceNode) -> bool:
    known = site.issuing_certificates
    return command.issuing_certificate not in known and len(known) >= limits.AUTHORITIES_MAX


def _spare(t: Tables, site: r.SiteRecord, command: ReplaceNode) -> bytes | None:
    """Return the oldest authority of a site that no node but the replaced one signs with; None when there is none."""
    if t.version < AUTHORITIES_TOLD:
        return site.issuing_certificates[0]  # Nobody has told which ones are in use.
    for der in site.issuing_certificates:
        if not authorities.user_of(t, command.member.site, sha256(der).digest(), but=command.replaces):
            return der
    return None


def _make_room(t: Tables, command: ReplaceNode) -> None:
    """Forget an authority that nobody signs with, of a site that has as many as it may, for a new one."""
    key = keys.by_name(keys.SITE, command.member.site)
    site = t.sites.get(key)
    assert site is not None
    if _is_full(site, command):
        spare = _spare(t, site, command)
        assert spare is not None, "checked before"
        left = tuple(der for der in site.issuing_certificates if der != spare)
        authorities.forget_unused(t, sha256(spare).digest())
        t.sites.put(key, msgspec.structs.replace(site, issuing_certificates=left))


def _put_node(
    t: Tables,
    command: ReplaceNode | RestoreCluster,
    role: MemberRole,
    *,
    votes_next: bool = False,
    earlier: tuple[tuple[str, bytes], ...] = (),
) -> None:
    member = msgspec.structs.replace(command.member, role=role)
    t.nodes.put(
        keys.by_name(keys.NODE, member.node_id),
        r.NodeRecord(
            member,
            command.certificate_fingerprint,
            command.passkey_key_id,
            command.passkey_public_key,
            command.enrol_address,
            command.server_name,
            command.token_digest if isinstance(command, ReplaceNode) else b"",
            t.now_ms,
            command.replaces,
            votes_next,
            earlier,
            command.version_least,
            command.version_most,
        ),
    )
    authorities.tell(t, member.node_id, site=sha256(command.issuing_certificate).digest())


def restore_cluster(t: Tables, command: RestoreCluster, asked: Asked) -> Outcome:
    """Begin a new epoch: one voter, no invitations; other sites come back by replacing their old nodes."""
    cluster, member = t.cluster, command.member
    if cluster is None:
        return NOT_FOUNDED
    if (asked.entry, asked.term) != (command.entry, command.term):
        return Refused(Refusal.WRONG_STATE, "a restore is the first entry of a log of its own")
    known = t.kv.get(keys.by_name(keys.REMOVED, member.node_id)) or t.nodes.get(
        keys.by_name(keys.NODE, member.node_id)
    )
    if known is not None or not is_name(member.node_id):
        return Refused(
            Refusal.EXISTS, f"a restored cluster begins with a new node, not with {member.node_id}"
        )
    site = find_site(t, member.site)
    if isinstance(site, Refused):
        return site
    now = t.now_ms.to_bytes(_TIME_BYTES, "big")
    for key, node in t.nodes.page(keys.NODE, keys.prefix_stop(keys.NODE), limits.NODES_MAX):
        votes = node.member.role is MemberRole.VOTER or node.votes_next
        t.nodes.delete(key)
        trust.hand_on(t, node.member.node_id, member.node_id)
        marker = now + (b"v" if votes else b"o") + node.member.site.encode()
        t.kv.put(keys.by_name(keys.REMOVED, node.member.node_id), marker)
    invitations = t.invitations.page(
        keys.INVITATION, keys.prefix_stop(keys.INVITATION), limits.INVITATIONS_MAX
    )
    for key, _ in invitations:
        t.invitations.delete(key)
    cluster.invitations = 0
    cluster.nodes = 1
    cluster.epoch += 1
    cluster.epoch_id = command.epoch_id
    cluster.members_changed_ms = t.now_ms
    t.save_cluster(cluster)
    note_refusal(t)
    admit_site(t, member.site, command.issuing_certificate)
    _put_node(t, command, MemberRole.VOTER)
    return Applied((f"epoch {cluster.epoch} begins with node {member.node_id} of site {member.site}",))
