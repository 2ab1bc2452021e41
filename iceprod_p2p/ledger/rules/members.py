"""The cluster's founding, its nodes and invitations.

The set of voters changes one node at a time: a change is BUSY unless whoever asks for it had seen the one
before.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from iceprod_p2p.base.ids import is_name
from iceprod_p2p.ledger import keys, limits, versions
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import (
    AddNode,
    FoundCluster,
    Invite,
    PromoteMember,
    RemoveMember,
    RenewNode,
    RevokeCertificate,
)
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules import authorities, trust
from iceprod_p2p.ledger.rules.asked import Asked, at_least
from iceprod_p2p.ledger.rules.people import note_refusal
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.site import MemberRole
from iceprod_p2p.model.trust import Renewal

NOT_FOUNDED = trust.NOT_FOUNDED


def found_cluster(t: Tables, command: FoundCluster, asked: Asked) -> Outcome:
    """Name the cluster; refused when it has a name."""
    if t.cluster is not None:
        return Refused(Refusal.EXISTS, f"cluster {t.cluster.name} was founded before")
    if not is_name(command.cluster):
        return Refused(Refusal.MALFORMED, f"{command.cluster!r} cannot name a cluster")
    if not limits.SITE_GRACE_MIN_MS <= command.site_grace_ms <= limits.SITE_GRACE_MAX_MS:
        return Refused(
            Refusal.LIMIT, f"the site grace is {limits.SITE_GRACE_MIN_MS} to {limits.SITE_GRACE_MAX_MS} ms"
        )
    versions.check(command.version)
    t.progress.version = command.version
    t.save_cluster(r.Cluster(command.cluster, command.root_certificate, command.site_grace_ms))
    return Applied((f"cluster {command.cluster} founded",))


def add_node(t: Tables, command: AddNode, asked: Asked) -> Outcome:
    """Admit a node by its invitation; repeated with the same invitation and id, it is admitted once."""
    cluster, member = t.cluster, command.member
    if cluster is None:
        return NOT_FOUNDED
    if not is_name(member.node_id) or not is_name(member.site):
        return Refused(Refusal.MALFORMED, "a node id and a site are made of letters, digits, '-' and '_'")
    key = keys.by_name(keys.NODE, member.node_id)
    known = t.nodes.get(key)
    if known is not None:
        same = (known.token_digest, known.fingerprint) == (
            command.token_digest,
            command.certificate_fingerprint,
        )
        if same and known.member.site == member.site:
            return Applied((f"node {member.node_id} was admitted before",))
        return Refused(Refusal.EXISTS, f"there is a node {member.node_id} already")
    if t.kv.get(keys.by_name(keys.REMOVED, member.node_id)) is not None:
        return Refused(Refusal.NOT_ALLOWED, f"node {member.node_id} was removed: its id never returns")
    refusal = check_invitation(t, command) or _check_room(t, command) or check_versions(t, command)
    if refusal is None and member.role is MemberRole.VOTER:
        refusal = check_turn(t, asked) or _check_voters(t)
    if refusal is not None:
        return refusal
    use_invitation(t, command)
    admit_site(t, member.site, command.issuing_certificate)
    t.nodes.put(
        key,
        r.NodeRecord(
            member,
            command.certificate_fingerprint,
            command.passkey_key_id,
            command.passkey_public_key,
            command.enrol_address,
            command.server_name,
            command.token_digest,
            t.now_ms,
            version_least=command.version_least,
            version_most=command.version_most,
        ),
    )
    authorities.tell(t, member.node_id, site=sha256(command.issuing_certificate).digest())
    cluster.nodes += 1
    if member.role is MemberRole.VOTER:
        cluster.members_changed_ms = t.now_ms
    t.save_cluster(cluster)
    return Applied((f"node {member.node_id} of site {member.site} admitted as {member.role}",))


def check_invitation(t: Tables, command: AddNode) -> Refused | None:
    """Check the invitation; the founder's own node needs none."""
    cluster, member = t.cluster, command.member
    assert cluster is not None
    if not command.token_digest:
        if cluster.nodes or cluster.sites:
            return Refused(Refusal.NOT_ALLOWED, "only the founder's own node joins without an invitation")
        return None
    key = keys.INVITATION + command.token_digest
    invitation = t.invitations.get(key)
    if invitation is None or invitation.expires_ms <= t.now_ms:
        return Refused(Refusal.NOT_ALLOWED, "the invitation is unknown or has expired")
    if invitation.site != member.site:
        return Refused(Refusal.WRONG_SITE, f"the invitation is for site {invitation.site}, not {member.site}")
    if invitation.node_id:
        return Refused(Refusal.NOT_ALLOWED, f"the invitation was used by node {invitation.node_id}")
    return None


def use_invitation(t: Tables, command: AddNode) -> None:
    """Note who used an invitation, so that nobody else can."""
    key = keys.INVITATION + command.token_digest
    invitation = t.invitations.get(key)
    if invitation is not None:
        t.invitations.put(key, msgspec.structs.replace(invitation, node_id=command.member.node_id))


def _check_room(t: Tables, command: AddNode) -> Refused | None:
    cluster = t.cluster
    assert cluster is not None
    site = t.site(command.member.site)
    if cluster.nodes >= limits.NODES_MAX or (site is None and cluster.sites >= limits.SITES_MAX):
        return Refused(
            Refusal.LIMIT, f"a cluster has at most {limits.NODES_MAX} nodes at {limits.SITES_MAX} sites"
        )
    if site is not None and len(site.issuing_certificates) >= limits.AUTHORITIES_MAX:
        return Refused(Refusal.LIMIT, f"a site has at most {limits.AUTHORITIES_MAX} authorities")
    return None


def check_turn(t: Tables, asked: Asked) -> Refused | None:
    """Refuse a change of the voters by somebody who had not seen the one before."""
    cluster = t.cluster
    assert cluster is not None
    if asked.made_at_ms <= cluster.members_changed_ms:
        return Refused(Refusal.BUSY, "the set of voters changed a moment ago: ask again")
    return None


def check_versions(t: Tables, command: AddNode) -> Refused | None:
    """Refuse a node that could not read what is written."""
    if command.version_least <= t.version <= command.version_most:
        return None
    reads = versions.in_words(command.version_least, command.version_most)
    return Refused(
        Refusal.WRONG_STATE,
        f"the cluster's ledger is at version {t.version}, but the program of node {command.member.node_id} reads"
        f" {reads}: install the release that the other nodes run",
    )


def admit_site(t: Tables, name: str, certificate: bytes) -> None:
    """Add a site, or another issuing certificate of one."""
    site = t.site(name)
    cluster = t.cluster
    assert cluster is not None
    if site is None:
        cluster.sites += 1
        site = r.SiteRecord(cluster.sites)
        t.kv.put(keys.by_number(keys.SITE_NAME, cluster.sites), name.encode())
    if certificate not in site.issuing_certificates:
        certificates = (*site.issuing_certificates, certificate)
        site = msgspec.structs.replace(site, issuing_certificates=certificates)
    t.sites.put(keys.by_name(keys.SITE, name), site)


def invite(t: Tables, command: Invite, asked: Asked) -> Outcome:
    """Record the digest of a one-time invitation."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    cluster = t.cluster
    if cluster is None:
        return NOT_FOUNDED
    if not is_name(command.site):
        return Refused(Refusal.MALFORMED, f"{command.site!r} cannot name a site")
    if not 0 < command.lifetime_ms <= limits.INVITATION_LIFETIME_MAX_MS:
        return Refused(Refusal.LIMIT, f"an invitation lives at most {limits.INVITATION_LIFETIME_MAX_MS} ms")
    if cluster.invitations >= limits.INVITATIONS_MAX:
        return Refused(
            Refusal.LIMIT, f"{limits.INVITATIONS_MAX} invitations are open: wait until some expire"
        )
    key = keys.INVITATION + command.token_digest
    if t.invitations.get(key) is not None:
        return Refused(Refusal.EXISTS, "this invitation was made before")
    expires_ms = t.now_ms + command.lifetime_ms
    t.invitations.put(key, r.InvitationRecord(command.site, expires_ms))
    t.kv.put(keys.other_timer(expires_ms, keys.INVITATION_TIMER, command.token_digest), b"")
    cluster.invitations += 1
    t.save_cluster(cluster)
    return Applied((f"site {command.site} is invited",))


def invitation_time_is_up(t: Tables, token_digest: bytes, at_ms: int) -> None:
    """Forget an invitation that has expired; who used it stands in the node's record."""
    key = keys.INVITATION + token_digest
    invitation = t.invitations.get(key)
    cluster = t.cluster
    if invitation is None or invitation.expires_ms != at_ms or cluster is None:
        return
    t.invitations.delete(key)
    cluster.invitations -= 1
    t.save_cluster(cluster)


def promote_member(t: Tables, command: PromoteMember, asked: Asked) -> Outcome:
    """Make an observer a voter."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    key = keys.by_name(keys.NODE, command.node_id)
    node = t.nodes.get(key)
    if node is None:
        return Refused(Refusal.NOT_FOUND, f"there is no node {command.node_id!r}")
    if node.member.role is MemberRole.VOTER:
        return Applied((f"node {command.node_id} is a voter already",))
    refusal = check_turn(t, asked) or _check_voters(t)
    if refusal is not None:
        return refusal
    member = msgspec.structs.replace(node.member, role=MemberRole.VOTER)
    t.nodes.put(key, msgspec.structs.replace(node, member=member, votes_next=False))
    note_change(t)
    return Applied((f"node {command.node_id} is a voter",))


def _count_voters(t: Tables) -> int:
    return sum(node.member.role is MemberRole.VOTER for _, node in t.nodes.under(keys.NODE, limits.NODES_MAX))


def _check_voters(t: Tables) -> Refused | None:
    if _count_voters(t) >= limits.VOTERS_MAX:
        return Refused(
            Refusal.LIMIT,
            f"a cluster has at most {limits.VOTERS_MAX} voters, and any number of observers: remove a voter first",
        )
    return None


def note_change(t: Tables) -> None:
    """Note that the set of voters changed now."""
    cluster = t.cluster
    assert cluster is not None
    cluster.members_changed_ms = t.now_ms
    t.save_cluster(cluster)


def remove_member(t: Tables, command: RemoveMember, asked: Asked) -> Outcome:
    """Remove a node for ever; the last voter stays."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    key = keys.by_name(keys.NODE, command.node_id)
    node = t.nodes.get(key)
    cluster = t.cluster
    if node is None or cluster is None:
        return Refused(Refusal.NOT_FOUND, f"there is no node {command.node_id!r}")
    if node.member.role is MemberRole.VOTER:
        refusal = check_turn(t, asked)
        if refusal is not None:
            return refusal
        if _count_voters(t) == 1:
            return Refused(Refusal.NOT_ALLOWED, f"node {command.node_id} is the last voter")
        note_change(t)
    t.nodes.delete(key)
    t.kv.put(keys.by_name(keys.REMOVED, command.node_id), t.now_ms.to_bytes(8, "big"))
    trust.forget_node(t, command.node_id)
    note_refusal(t)
    cluster.nodes -= 1
    t.save_cluster(cluster)
    return Applied((f"node {command.node_id} removed",))


def renew_node(t: Tables, command: RenewNode, asked: Asked) -> Outcome:
    """Note a node's new certificate or address; its site and role stay as they are."""
    key = keys.by_name(keys.NODE, command.member.node_id)
    node = t.nodes.get(key)
    if node is None:
        return Refused(Refusal.NOT_FOUND, f"there is no node {command.member.node_id!r}")
    if node.member.site != command.member.site:
        return Refused(Refusal.WRONG_SITE, f"node {command.member.node_id} belongs to {node.member.site}")
    # A node that introduces itself for the first time tells of the certificate that it was admitted with.
    if node.server_name and node.fingerprint != command.certificate_fingerprint:
        trust.forget_wish(t, Renewal.NODE, command.member.node_id)
    t.nodes.put(
        key,
        msgspec.structs.replace(
            node,
            member=msgspec.structs.replace(node.member, address=command.member.address),
            fingerprint=command.certificate_fingerprint,
            enrol_address=command.enrol_address or node.enrol_address,
            server_name=command.server_name or node.server_name,
        ),
    )
    authorities.tell(t, command.member.node_id, site=command.authority, people=command.people)
    return Applied((f"node {command.member.node_id} renewed",))


def revoke_certificate(t: Tables, command: RevokeCertificate, asked: Asked) -> Outcome:
    """Refuse a certificate from now on."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    key = keys.REVOKED + command.fingerprint
    if t.revoked.get(key) is None:
        t.revoked.put(key, r.RevokedRecord(command.reason, t.now_ms))
        note_refusal(t)
    return Applied(("the certificate is refused from now on",))
