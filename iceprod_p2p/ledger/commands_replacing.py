"""The commands by which a node takes another's place, and a cluster begins anew from a backup.

Everything that `ledger.commands` says of commands holds for these.
"""

from __future__ import annotations

import msgspec

from iceprod_p2p.model.bounds import Amount, Certificate, Digest, DigestOrEmpty, Id16, Line, Name, Version
from iceprod_p2p.model.site import Member


class ReplaceNode(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=13):
    """Admit a node in the place of one of its own site whose data directory may not be used again.

    The old id never returns.  The new node begins as an observer; if the old one was a voter, it is promoted
    once it has caught up.  `token_digest` names an invitation; empty when the caller has shown, at the edge,
    the key of an authority of its site.
    """

    member: Member  # Its role does not count: every newcomer begins as an observer.
    replaces: Name
    issuing_certificate: Certificate  # DER of the site's authority
    certificate_fingerprint: Digest
    passkey_key_id: Name
    passkey_public_key: Digest
    enrol_address: Line = ""
    server_name: Line = ""
    token_digest: DigestOrEmpty = b""
    version_least: Version = 1  # The versions of the ledger that its program reads.
    version_most: Version = 1


class RestoreCluster(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=14):
    """Begin a new epoch with this node as the only member: every earlier node is removed for ever.

    `iceprod-node restore` writes it as the first entry of a log of its own, after the tables of a backup;
    refused anywhere but at the `entry` and `term` that it names.
    """

    member: Member
    issuing_certificate: Certificate
    certificate_fingerprint: Digest
    passkey_key_id: Name
    passkey_public_key: Digest
    enrol_address: Line
    server_name: Line
    entry: Amount
    term: Amount
    epoch_id: Id16
    version_least: Version = 1
    version_most: Version = 1
    replaces: Line = ""  # The node of this directory before.
