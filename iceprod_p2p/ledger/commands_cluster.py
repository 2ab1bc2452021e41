"""Commands about the cluster itself: its founding, nodes, people, time, settings and versions (see `commands`)."""

from __future__ import annotations

import msgspec

from iceprod_p2p.model.bounds import (
    Amount,
    Certificate,
    Digest,
    DigestOrEmpty,
    LedgerMs,
    Line,
    Name,
    Version,
    VersionOrNewest,
)
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.site import Member


class FoundCluster(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Entry 1 of every ledger: names the cluster and its first member; refused anywhere else."""

    cluster: Name
    root_certificate: Certificate  # DER
    site_grace_ms: LedgerMs = 600_000
    version: Version = 1  # The ledger's: the newest that the founder's program reads.


class AddNode(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Admit a node, its site (if new) and its keys; it becomes a member with the role given.

    `token_digest` is the SHA-256 of a one-time invitation, empty only for the founder's own node.  The same
    token and the same node id give the first outcome again, so a lost reply locks nobody out.
    """

    member: Member
    issuing_certificate: Certificate  # DER of the site's authority
    certificate_fingerprint: Digest  # SHA-256 of the node's certificate
    passkey_key_id: Name
    passkey_public_key: Digest  # Ed25519, 32 bytes
    token_digest: DigestOrEmpty = b""
    enrol_address: Line = ""
    server_name: Line = ""  # The unique DNS name in the node's certificate.
    version_least: Version = 1  # The versions of the ledger that its program reads.
    version_most: Version = 1


class Invite(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Record the digest of a one-time invitation for `site`."""

    token_digest: Digest
    site: Name
    lifetime_ms: LedgerMs = 900_000


class PromoteMember(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """Make an observer a voter."""

    node_id: Name


class RemoveMember(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """Remove a node from the cluster for ever; its id never returns."""

    node_id: Name


class RenewNode(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """Note a node's new certificate or address, and the authorities that it signs with."""

    member: Member
    certificate_fingerprint: Digest
    enrol_address: Line = ""
    server_name: Line = ""
    authority: DigestOrEmpty = (
        b""  # SHA-256 of the certificate of its site's authority; empty: as it told before.
    )
    people: DigestOrEmpty = b""  # The same of its authority for people.


class SetPerson(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """Give a person a role and groups."""

    name: Name
    role: Role
    groups: tuple[Name, ...] = ()


class RevokeCertificate(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    """Refuse a certificate from now on, by its SHA-256 fingerprint."""

    fingerprint: Digest
    reason: Line = ""


class Tick(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    """Advance the ledger's time; only the leader of `term` may, and time never goes back."""

    term: Amount
    now_ms: LedgerMs


class SetSettings(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """Change cluster settings; zero leaves a value as it is."""

    site_grace_ms: LedgerMs = 0


class AnnounceVersions(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=11):
    """Say which versions of the ledger a node's program reads, least to most; only the node itself may."""

    node_id: Name
    least: Version
    most: Version


class RaiseVersion(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=12):
    """Let the cluster use what a later version of the ledger brings; refused unless every node reads it.

    There is no way back.  `to` 0 means the newest version that all nodes read.
    """

    to: VersionOrNewest = 0
