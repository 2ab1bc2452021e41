"""Who may call what: one table, method x caller, default no.

The table decides whether a kind of caller may try a method at all.  What it may do there with whose dataset
(one's own, one's group's) is decided by the service, and states by the ledger.  A test fails for a method
without a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from iceprod_p2p.base.errors import NotAllowed
from iceprod_p2p.model.identity import Identity, IdentityKind
from iceprod_p2p.model.person import ROLE_RANK, Role


class Caller(StrEnum):
    """Columns of the table; persons have roles, each including the ones before it."""

    ANYONE = "anyone"  # The enrolment port: no certificate, the method asks for a secret itself.
    NODE = "node"
    PILOT = "pilot"
    PERSON = "person"  # Even without a role.
    VIEWER = "viewer"
    PRODUCTION = "production"
    OPERATOR = "operator"
    ADMINISTRATOR = "administrator"


_PACKAGE: Final = "/iceprod.v1."

POLICY: Final[Mapping[str, frozenset[Caller]]] = {
    f"{_PACKAGE}{method}": frozenset(callers)
    for method, callers in {
        "Enrol/GetRoot": {Caller.ANYONE},
        "Enrol/Join": {Caller.ANYONE},
        "Enrol/Readmit": {Caller.ANYONE},  # A certificate of its site's authority, shown in the request.
        "Enrol/EnrolPilot": {Caller.ANYONE},
        "Enrol/Login": {Caller.ANYONE},
        "Peer/Link": {Caller.NODE},
        "Peer/GetBlob": {Caller.NODE},
        "Peer/PutBlob": {Caller.NODE},
        "Peer/GetUpload": {Caller.NODE},
        "Peer/HasBlobs": {Caller.NODE},
        "Peer/GetMember": {Caller.NODE},
        "Peer/IssueAuthority": {Caller.NODE},  # Of its own site; voters also for people.
        "Peer/VerifyCopies": {Caller.NODE},
        "Peer/GetGridJobs": {Caller.NODE},
        "Peer/GetPilots": {Caller.NODE},
        "Peer/TestGrid": {Caller.NODE},
        "Pilots/Exchange": {Caller.PILOT},
        "Pilots/Resolve": {Caller.PILOT},
        "Pilots/GetBlob": {Caller.PILOT},
        "Pilots/PutBlob": {Caller.PILOT},
        "Pilots/GetUpload": {Caller.PILOT},
        "Pilots/CallSite": {Caller.PILOT},
        "Pilots/FindFiles": {Caller.PILOT},
        "Pilots/GetSoftware": {Caller.PILOT},
        "Pilots/Renew": {Caller.PILOT},
        "Pilots/GetCredentials": {Caller.PILOT},  # Of the node's own site alone, as the service checks.
        "Control/WhoAmI": {Caller.PERSON},
        "Control/GetBlob": {Caller.VIEWER},
        "Control/ListDatasets": {Caller.VIEWER},
        "Control/GetDataset": {Caller.VIEWER},
        "Control/GetStatistics": {Caller.VIEWER},
        "Control/ListJobs": {Caller.VIEWER},
        "Control/ListTasks": {Caller.VIEWER},
        "Control/GetTask": {Caller.VIEWER},
        "Control/ListFiles": {Caller.VIEWER},
        "Control/ListSites": {Caller.VIEWER},
        "Control/ListGridJobs": {Caller.VIEWER},
        "Control/ListPilots": {Caller.VIEWER},
        "Control/ListPeople": {Caller.VIEWER},  # Who may be asked for a role.
        "Control/ListSoftware": {Caller.VIEWER},
        "Control/ClusterStatus": {Caller.VIEWER},
        "Control/ListAuthorities": {Caller.VIEWER},
        "Control/VerifyFiles": {Caller.PRODUCTION},  # Reads whole files at every site.
        "Control/PutBlob": {Caller.PRODUCTION},
        "Control/Submit": {Caller.PRODUCTION},
        "Control/ControlDataset": {Caller.PRODUCTION},
        "Control/ControlTasks": {Caller.PRODUCTION},
        "Control/SetDataset": {Caller.PRODUCTION},
        "Control/PublishSoftware": {Caller.PRODUCTION},
        "Control/RetireSoftware": {Caller.PRODUCTION},  # Its own; operators every.
        "Control/ControlSite": {Caller.OPERATOR},
        "Control/TestSite": {Caller.OPERATOR},  # Submits to the site's batch system.
        "Control/CheckCluster": {Caller.OPERATOR},  # Scans the whole ledger.
        "Control/ListAudit": {Caller.OPERATOR},
        "Control/Backup": {Caller.ADMINISTRATOR},  # Everything that the cluster knows.
        "Control/Invite": {Caller.ADMINISTRATOR},
        "Control/ControlMember": {Caller.ADMINISTRATOR},
        "Control/Rotate": {Caller.ADMINISTRATOR},
        "Control/EndAuthority": {Caller.ADMINISTRATOR},
        "Control/RaiseVersion": {Caller.ADMINISTRATOR},
        "Control/SetPerson": {Caller.ADMINISTRATOR},
        "Control/RevokePerson": {Caller.ADMINISTRATOR},
    }.items()
}


def allowed(method: str, kind: IdentityKind | None, role: Role | None = None) -> bool:
    """Return whether a caller of `kind` (None: without a certificate) and `role` may call
    ``/package.Service/Method``.

    A role counts for persons only, and includes the ones before it.  An unknown method is allowed to nobody.
    """
    callers = POLICY.get(method, frozenset())
    if kind is None:
        return Caller.ANYONE in callers
    if Caller(kind) in callers:
        return True
    if kind is not IdentityKind.PERSON or role is None:
        return False
    return any(Caller(lower) in callers for lower in Role if ROLE_RANK[lower] <= ROLE_RANK[role])


def require(method: str, identity: Identity | None, role: Role | None = None) -> None:
    """Raise NotAllowed, in words for people, unless `allowed`."""
    if allowed(method, identity.kind if identity is not None else None, role):
        return
    what = method.rpartition("/")[2]
    if identity is None:
        raise NotAllowed(f"{what} needs a certificate", remedy="log in or enrol first")
    if identity.kind is not IdentityKind.PERSON:
        raise NotAllowed(f"a {identity.kind} may not call {what}")
    needed = next((str(level) for level in Role if Caller(level) in POLICY.get(method, frozenset())), "")
    if not needed:
        raise NotAllowed(f"people may not call {what}")
    has = f"role {role}" if role is not None else "no role"
    raise NotAllowed(
        f"{what} needs the role {needed}; {identity.name} has {has}",
        remedy="ask an administrator for the role",
    )
