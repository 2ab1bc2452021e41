"""Who a caller is: a node, a pilot or a person of one cluster, as its certificate's URI says.

    iceprod://SITE.CLUSTER/node/ID      iceprod://SITE.CLUSTER/pilot/ID      iceprod://people.CLUSTER/NAME

The site stands in the URI's host part because X.509 name constraints bind there: an issuing authority
limited to ``SITE.CLUSTER`` cannot speak for another site.  This module is the grammar alone; certificates
are read in `security.identity`, which turns their faults into refusals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SCHEME: Final = "iceprod"
PEOPLE: Final = "people"  # The host label of persons: no site may bear this name.
URI_LENGTH_MAX: Final = 255  # Three names of 63 characters and the words between fit easily.

# TLS libraries accept neither `_` in a host nor tell case apart there, so names of sites and clusters avoid
# both.
_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PATH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")


class IdentityKind(StrEnum):
    """What sort of caller holds a certificate."""

    NODE = "node"
    PILOT = "pilot"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Identity:
    """One caller, as far as its certificate tells; whether it may act is decided by policy and ledger.

    `site` is the site whose authority vouches for the caller (empty for persons); a pilot renewed by
    another site's node bears that node's site here, and its own one in `home` (empty for all others).  `fingerprint` is
    the SHA-256 of the certificate in hex, `key_digest` the SHA-256 of its public key (the *holder* of
    passkeys), `issuer` the key identifier of the issuing authority in hex, `expires_ms` the end of validity
    in wall time, `made_ms` when it was issued.  The last six are empty for an identity that did not come
    from a certificate.
    """

    kind: IdentityKind
    name: str
    site: str
    cluster: str
    fingerprint: str = ""
    key_digest: bytes = b""
    issuer: str = ""
    expires_ms: int = 0
    made_ms: int = 0
    home: str = ""

    @property
    def home_site(self) -> str:
        """The site that a pilot belongs to, wherever it was renewed."""
        return self.home or self.site

    @property
    def uri(self) -> str:
        """The URI that a certificate of this identity carries."""
        return identity_uri(self.kind, self.name, site=self.site, cluster=self.cluster)

    @property
    def actor(self) -> str:
        """The short form in audit and logs: ``node:ID``, ``pilot:SITE/ID`` or ``person:NAME``."""
        # Node ids are unique by themselves.
        site = f"{self.site}/" if self.kind is IdentityKind.PILOT else ""
        return f"{self.kind}:{site}{self.name}"


def is_host_label(text: str) -> bool:
    """Return whether `text` may name a cluster, a site or a node: lower-case letters, digits, inner `-`, at
    most 63.
    """
    return _HOST_LABEL.fullmatch(text) is not None


def is_site_name(text: str) -> bool:
    """Return whether `text` may name a site: a host label other than the one reserved for people."""
    return is_host_label(text) and text != PEOPLE


def is_person_name(text: str) -> bool:
    """Return whether `text` may name a person or a pilot: letters, digits and ``_ . @ -``, at most 63."""
    return _PATH_NAME.fullmatch(text) is not None


def identity_uri(kind: IdentityKind, name: str, *, site: str, cluster: str) -> str:
    """Return the URI of an identity; ValueError names the part that cannot stand in one."""
    if not is_host_label(cluster):
        raise ValueError(f"{cluster!r} cannot name a cluster: use lower-case letters, digits and '-'")
    if kind is IdentityKind.PERSON:
        if site:
            raise ValueError(f"a person belongs to no site, not to {site!r}")
        if not is_person_name(name):
            raise ValueError(f"{name!r} cannot name a person: use letters, digits and '_.@-'")
        return f"{SCHEME}://{PEOPLE}.{cluster}/{name}"
    if not is_site_name(site):
        raise ValueError(
            f"{site!r} cannot name a site: use lower-case letters, digits and '-'; 'people' is reserved"
        )
    if not (is_host_label(name) if kind is IdentityKind.NODE else is_person_name(name)):
        raise ValueError(f"{name!r} cannot name a {kind}")
    return f"{SCHEME}://{site}.{cluster}/{kind}/{name}"


def parse_identity_uri(uri: str) -> Identity:
    """Read one identity URI strictly; ValueError for anything that `identity_uri` would not write."""
    if len(uri) > URI_LENGTH_MAX or not uri.startswith(f"{SCHEME}://"):
        raise ValueError(f"{uri[:URI_LENGTH_MAX]!r} is not an {SCHEME}:// identity")
    host, _, path = uri[len(SCHEME) + 3 :].partition("/")
    site, dot, cluster = host.partition(".")
    parts = path.split("/")
    if not dot:
        raise ValueError(f"{uri!r} names no cluster after the site")
    if site == PEOPLE and len(parts) == 1:
        kind, name, site = IdentityKind.PERSON, parts[0], ""
    elif site != PEOPLE and len(parts) == 2 and parts[0] in (IdentityKind.NODE, IdentityKind.PILOT):
        kind, name = IdentityKind(parts[0]), parts[1]
    else:
        raise ValueError(f"{uri!r} is neither a node's, a pilot's nor a person's identity")
    if identity_uri(kind, name, site=site, cluster=cluster) != uri:
        raise ValueError(f"{uri!r} is not written as an identity must be")
    return Identity(kind, name, site, cluster)


def identity_from_names(uris: Sequence[str], dns_names: Sequence[str], *, other_names: int = 0) -> Identity:
    """Read the identity from a certificate's alternative names; ValueError unless they are exactly what
    they must be.

    One URI, always.  A node has its one server name beside it, pilots and persons have no further name, and
    names of other types (`other_names` counts them) are borne by nobody.
    """
    if len(uris) != 1:
        raise ValueError(f"a certificate must carry exactly one identity, not {len(uris)}")
    identity = parse_identity_uri(uris[0])
    expected: tuple[str, ...] = ()
    if identity.kind is IdentityKind.NODE:
        expected = (node_server_name(identity.name, site=identity.site, cluster=identity.cluster),)
    if tuple(dns_names) != expected or other_names:
        raise ValueError(f"the certificate of {identity.uri} carries names beside its identity")
    return identity


def node_server_name(node_id: str, *, site: str, cluster: str) -> str:
    """Return the unique DNS name in a node's certificate, dialled as TLS server name whatever the address
    is.
    """
    return f"{node_id}.{site}.{cluster}"
