"""A small cluster of real keys and certificates that tests share, at a fixed time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from iceprod_p2p.model.identity import PEOPLE, IdentityKind, identity_uri
from iceprod_p2p.security.ca import Authority, found_root
from iceprod_p2p.security.certificates import (
    PrivateKey,
    authority_claim,
    key_to_pem,
    make_request,
    new_key,
    to_der,
    to_pem,
)
from iceprod_p2p.security.trust import Trust, read_issuer

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Ring:
    """The authorities of one cluster."""

    root: Authority
    madison: Authority
    zeuthen: Authority
    people: Authority

    @property
    def root_pem(self) -> bytes:
        return to_pem(self.root.certificate)

    def trust(self, *sites: Authority, revoked: tuple[str, ...] = ()) -> Trust:
        """What the ledger says, listing `sites` (both by default)."""
        issuers = [
            read_issuer(to_der(site.certificate), scope=site.scope, cluster=site.cluster)
            for site in (sites or (self.madison, self.zeuthen))
        ]
        return Trust.of(self.root.cluster, (self.root.certificate,), issuers, revoked)


def make_ring(cluster: str = "icecube", now_ms: int = NOW_MS) -> Ring:
    """Found a cluster of two sites."""
    root = found_root(cluster, new_key(), now_ms=now_ms)
    return Ring(root, *(authority(root, scope, now_ms=now_ms) for scope in ("madison", "zeuthen", PEOPLE)))


@cache
def icecube() -> Ring:
    """The cluster that most tests speak of."""
    return make_ring()


def authority(root: Authority, scope: str, *, now_ms: int = NOW_MS) -> Authority:
    """A new issuing authority below `root`."""
    key = new_key()
    request = make_request(key, authority_claim(scope, root.cluster))
    return Authority(root.cluster, scope, root.issue_authority(request, scope=scope, now_ms=now_ms), key)


def request(kind: IdentityKind, name: str, site: str, cluster: str = "icecube") -> tuple[bytes, PrivateKey]:
    """A certificate request and its key."""
    key = new_key()
    return make_request(key, identity_uri(kind, name, site=site, cluster=cluster)), key


def issued(
    issuer: Authority,
    kind: IdentityKind,
    name: str,
    *,
    now_ms: int = NOW_MS,
    lifetime_ms: int | None = None,
    home: str = "",
) -> tuple[bytes, bytes]:
    """Chain and key, PEM, of a new certificate."""
    site = "" if kind is IdentityKind.PERSON else issuer.scope
    pem, key = request(kind, name, site, issuer.cluster)
    leaf = issuer.issue(pem, kind=kind, name=name, now_ms=now_ms, lifetime_ms=lifetime_ms, home=home)
    return to_pem(leaf, issuer.certificate), key_to_pem(key)
