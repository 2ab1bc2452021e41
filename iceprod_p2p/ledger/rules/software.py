"""Software by name and version: builds are published and retired, and a name never changes what it stands for."""

from __future__ import annotations

import msgspec

from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands_software import PublishSoftware, RetireSoftware
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, at_least, person_of, role_of
from iceprod_p2p.ledger.rules.blobs import release_blob, use_blob
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.person import ROLE_RANK, Role
from iceprod_p2p.model.software import VARIABLES_MAX, is_variable_name


def publish(t: Tables, command: PublishSoftware, asked: Asked) -> Outcome:
    """Register a build; equal content is applied once, other content under the same name is a conflict."""
    refusal = at_least(t, asked, Role.PRODUCTION)
    if refusal is not None:
        return refusal
    cluster = t.cluster
    if cluster is None:
        return Refused(Refusal.WRONG_STATE, "the cluster has not been founded")
    build, name = command.build, f"{command.name} {command.version} for {command.build.platform.text}"
    if len(build.variables) > VARIABLES_MAX or not all(map(is_variable_name, build.variables)):
        return Refused(Refusal.MALFORMED, f"a build sets at most {VARIABLES_MAX} environment variables")
    key = keys.software(command.name, command.version, build.platform.text)
    known = t.software.get(key)
    if known is not None and known.build != build:
        return Refused(
            Refusal.CONFLICT,
            f"{name} was published by {known.owner} with SHA-256 {known.build.sha256[:12]}...: "
            "what a version is never changes",
        )
    if known is not None and not known.retired:
        return Applied((f"{name} was published before",))
    if known is None:
        prefix = keys.software(command.name, command.version)
        if len(t.software.under(prefix, limits.SOFTWARE_PLATFORMS_MAX)) >= limits.SOFTWARE_PLATFORMS_MAX:
            return Refused(Refusal.LIMIT, f"a version has at most {limits.SOFTWARE_PLATFORMS_MAX} platforms")
        if cluster.software >= limits.SOFTWARE_MAX:
            return Refused(Refusal.LIMIT, f"a cluster knows at most {limits.SOFTWARE_MAX} builds")
        cluster.software += 1
        t.save_cluster(cluster)
    elif (stranger := _not_owner(t, asked, known)) is not None:
        return stranger
    t.software.put(key, r.SoftwareRecord(build, command.owner, command.description, t.now_ms))
    use_blob(t, bytes.fromhex(build.sha256), key)
    use_blob(t, bytes.fromhex(build.sha256), key)
    return Applied((f"{name} published",))


def retire(t: Tables, command: RetireSoftware, asked: Asked) -> Outcome:
    """Offer builds no longer to new datasets; with `forget` remove their records."""
    refusal = at_least(t, asked, Role.OPERATOR if command.forget else Role.PRODUCTION)
    if refusal is not None:
        return refusal
    if t.cluster is None:
        return Refused(Refusal.WRONG_STATE, "the cluster has not been founded")
    prefix = keys.software(command.name, command.version)
    found = [
        (key, record)
        for key, record in t.software.under(prefix, limits.SOFTWARE_PLATFORMS_MAX)
        if command.platform in ("", record.build.platform.text)
    ]
    if not found:
        what = f"{command.name} {command.version}" + (f" for {command.platform}" if command.platform else "")
        return Refused(Refusal.NOT_FOUND, f"there is no software {what}")
    for _, record in found:
        stranger = _not_owner(t, asked, record)
        if stranger is not None:
            return stranger
    for key, record in found:
        if command.forget:
            t.software.delete(key)
            release_blob(t, bytes.fromhex(record.build.sha256), key)
            release_blob(t, bytes.fromhex(record.build.sha256), key)
        else:
            t.software.put(key, msgspec.structs.replace(record, retired=True))
    if command.forget:
        t.cluster.software -= len(found)
        t.save_cluster(t.cluster)
    done = "forgotten" if command.forget else "retired"
    return Applied((f"{len(found)} builds of {command.name} {command.version} {done}",))


def _not_owner(t: Tables, asked: Asked, record: r.SoftwareRecord) -> Refused | None:
    """Refuse production people who did not publish a build; operators may change all."""
    person = person_of(asked.actor)
    if not person or person == record.owner:
        return None
    role, _ = role_of(t, person)
    if role is not None and ROLE_RANK[role] >= ROLE_RANK[Role.OPERATOR]:
        return None
    return Refused(Refusal.NOT_ALLOWED, f"it was published by {record.owner}: the role operator is needed")
