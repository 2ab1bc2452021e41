"""The commands by which authorities take turns, certificates are asked to be made anew, and people leave.

Everything that `ledger.commands` says of commands holds for these.  Whether a certificate is signed as it must be is
not asked here: each node checks what it reads (`site.cluster_facts`) before it believes it.
"""

from __future__ import annotations

import msgspec

from iceprod_p2p.model.bounds import Amount, Certificate, Digest, Line, Name
from iceprod_p2p.model.trust import Renewal


class AddAuthority(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=15):
    """List a further authority beside those that stand: of the node's own site, of ``people``, or a root (no scope).

    Only the node itself may ask; a people's authority needs a voter.  Repeated it changes nothing.
    """

    node_id: Name
    scope: Name
    certificate: Certificate  # DER
    above: Certificate = b""  # Of a root: the certificate of its key by the root before.


class RetireAuthority(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=16):
    """List an authority no more: what it vouched for is refused from now on.  The last of its kind stays."""

    node_id: Name
    scope: Name
    certificate: Certificate


class EndAuthority(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=19):
    """List an authority of a site or of ``people`` no more, as an administrator wishes: a lost node's, or a stray one.

    Refused while a node signs with it, while a node of the site has not told what it signs with, and for the last
    that nodes of the site, or people, need.
    """

    scope: Name
    authority: Digest  # SHA-256 of the certificate
    reason: Line = ""


class AskRenewal(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=17):
    """Let a node make its certificate, its site's or people's authority, or the cluster's root anew, now.

    The node does so within seconds; until then the wish stands in the ledger.
    """

    what: Renewal
    node_id: Name = ""  # Empty for the root.


class RemovePerson(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=18):
    """End a person's access: no role, and every certificate that began before `before_ms` (wall time) is refused.

    Datasets stay theirs.  `SetPerson` lets them in again, with certificates that are made later.
    """

    name: Name
    before_ms: Amount
    reason: Line = ""
