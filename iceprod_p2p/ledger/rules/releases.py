"""Which versions of the ledger the nodes read, and the cluster's own, which only grows."""

from __future__ import annotations

import msgspec

from iceprod_p2p.ledger import keys, limits, versions
from iceprod_p2p.ledger.commands import AnnounceVersions, RaiseVersion
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules import people, roots
from iceprod_p2p.ledger.rules.asked import Asked, at_least
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.person import Role


def announce_versions(t: Tables, command: AnnounceVersions, asked: Asked) -> Outcome:
    """Note which versions a node's program reads; a node speaks for itself alone."""
    key = keys.by_name(keys.NODE, command.node_id)
    node = t.nodes.get(key)
    if node is None:
        return Refused(Refusal.NOT_FOUND, f"there is no node {command.node_id!r}")
    if asked.actor != f"node:{command.node_id}":
        return Refused(Refusal.NOT_ALLOWED, f"only node {command.node_id} says what its own program reads")
    if command.least > command.most:
        return Refused(Refusal.MALFORMED, f"versions {command.least} to {command.most} are none")
    t.nodes.put(key, msgspec.structs.replace(node, version_least=command.least, version_most=command.most))
    reads = versions.in_words(command.least, command.most)
    return Applied((f"node {command.node_id} reads ledger {reads}",))


def raise_version(t: Tables, command: RaiseVersion, asked: Asked) -> Outcome:
    """Raise the cluster's version, if every node reads the new one; ProgramTooOld where this program does not."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    if t.cluster is None:
        return Refused(Refusal.WRONG_STATE, "the cluster has not been founded")
    nodes = [node for _, node in t.nodes.under(keys.NODE, limits.NODES_MAX)]
    possible = min((node.version_most for node in nodes), default=t.version)
    to = command.to or max(possible, t.version)
    if to <= t.version:  # It never goes back.
        notes = [f"the cluster's ledger is at version {t.version} already"]
        behind = next((node for node in nodes if node.version_most <= t.version), None)
        if behind is not None and any(node.version_most > t.version for node in nodes):
            notes.append(f"node {behind.member.node_id} of site {behind.member.site} reads nothing newer")
        return Applied(tuple(notes))
    for node in nodes:
        if not node.version_least <= to <= node.version_most:
            reads = versions.in_words(node.version_least, node.version_most)
            return Refused(
                Refusal.WRONG_STATE,
                f"node {node.member.node_id} of site {node.member.site} reads ledger {reads}, not {to}:"
                " install a release there that does, or remove it",
            )
    versions.check(to)
    if t.version < versions.NAMED_BLOBS <= to:
        t.cluster.datasets_unnamed = t.cluster.datasets
        t.save_cluster(t.cluster)
    if t.version < versions.AUTHORITIES_TOLD <= to:
        people.count_people(t)
        roots.forget_rows_of_retired(t)
    t.progress.version = to
    return Applied((f"the cluster's ledger is at version {to}",))
