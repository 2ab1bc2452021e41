"""Whom the cluster believes: its roots, the issuing authorities that the ledger lists, and what was revoked.

Two questions.  `Trust.admit` is asked at every call: the TLS handshake has already checked signatures,
times and name constraints up to a root, and here the issuer must still stand in the ledger and vouch for
this kind of caller. `Trust.verify_chain` checks a whole chain from bytes, for places where no handshake
did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509

from iceprod_p2p.base.errors import NotAllowed
from iceprod_p2p.model.identity import PEOPLE, Identity, IdentityKind
from iceprod_p2p.security.ca import scope_constraints
from iceprod_p2p.security.certificates import (
    certificate_from_der,
    certificate_key,
    chain_from_pem,
    is_in_time,
    is_signed_by,
    key_identifier,
    to_der,
)
from iceprod_p2p.security.identity import identity_of


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuing authority as the ledger knows it: `scope` is its site, or ``people``."""

    scope: str
    certificate: x509.Certificate

    @property
    def key_id(self) -> str:
        """The name, in hex, by which certificates say that this authority issued them."""
        return key_identifier(certificate_key(self.certificate)).hex()


def read_issuer(der: bytes, *, scope: str, cluster: str) -> Issuer:
    """Read the issuing certificate of `scope`; NotAllowed unless it is limited to exactly that scope of the
    cluster.

    Whether a root signed it is asked by `Trust.verify_chain`, and by the TLS handshake at each connection.
    """
    certificate = certificate_from_der(der, name=f"the issuing certificate of {scope}")
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        limits = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as fault:
        raise NotAllowed(f"the issuing certificate of {scope} is none: {fault}") from fault
    if not basic.value.ca or basic.value.path_length != 0 or not usage.value.key_cert_sign:
        raise NotAllowed(f"the issuing certificate of {scope} is not one of an issuing authority")
    if limits.value != scope_constraints(scope, cluster) or not (limits.critical and basic.critical):
        raise NotAllowed(f"the issuing certificate of {scope} is not limited to {scope}.{cluster}")
    return Issuer(scope, certificate)


@dataclass(frozen=True, slots=True)
class Trust:
    """A snapshot of whom to believe; build a new one when the ledger's list of authorities changes.

    `issuers` maps key identifiers (hex) to authorities.  A people's authority need not be listed while
    none is: only a root can have made it, and its name constraint lets it speak for people alone.  `revoked` holds
    fingerprints of callers' certificates and key identifiers of authorities, in hex.  `shut_out` says of people
    whose access was ended whether it still is, and the wall time before which their certificates are refused.
    `sites` are those that take part: pilots of others are refused, whoever renewed their certificates.
    """

    cluster: str
    roots: tuple[x509.Certificate, ...]
    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    shut_out: Mapping[str, tuple[bool, int]] = field(default_factory=dict)
    sites: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        cluster: str,
        roots: Sequence[x509.Certificate],
        issuers: Iterable[Issuer],
        revoked: Iterable[str] = (),
        shut_out: Mapping[str, tuple[bool, int]] | None = None,
        sites: Iterable[str] | None = None,
    ) -> Trust:
        """Build a snapshot from lists; without `sites`, those of the authorities take part."""
        by_key = {issuer.key_id: issuer for issuer in issuers}
        if sites is None:
            sites = (issuer.scope for issuer in by_key.values())
        return cls(
            cluster, tuple(roots), by_key, frozenset(revoked), shut_out or {}, frozenset(sites) - {PEOPLE}
        )

    def admit(self, identity: Identity, *, now_ms: int) -> None:
        """Raise NotAllowed unless this caller, whose TLS handshake succeeded, may still speak at wall time
        `now_ms`.

        Cheap: made to be asked for every message of an open stream, so that revocation and expiry reach it.
        """
        if identity.cluster != self.cluster:
            raise NotAllowed(f"{identity.actor} belongs to cluster {identity.cluster}, not {self.cluster}")
        if identity.fingerprint in self.revoked or identity.issuer in self.revoked:
            raise NotAllowed(
                f"the certificate of {identity.actor} was revoked", remedy="ask an administrator"
            )
        if identity.kind is IdentityKind.PERSON and identity.name in self.shut_out:
            out, before_ms = self.shut_out[identity.name]
            if out or identity.made_ms <= before_ms:
                raise NotAllowed(
                    f"the certificate of {identity.actor} was revoked: an administrator ended their access",
                    remedy="log in again" if not out else "ask an administrator",
                )
        if identity.expires_ms < now_ms:
            raise NotAllowed(f"the certificate of {identity.actor} has expired", remedy="renew it")
        issuer = self.issuers.get(identity.issuer)
        if issuer is None and any(identity.issuer == _key_id(root) for root in self.roots):
            raise NotAllowed(f"the root itself vouches for {identity.actor}; roots make authorities only")
        if issuer is None:
            if identity.kind is IdentityKind.PERSON and not self._lists_people:
                return
            raise NotAllowed(
                f"the authority that vouched for {identity.actor} is not, or no longer, one of the cluster",
                remedy="enrol again at a site that is a member",
            )
        require_scope(identity, issuer.scope)
        if identity.kind is IdentityKind.PILOT:
            gone = {identity.site, identity.home_site} - self.sites
            if gone:
                raise NotAllowed(
                    f"site {min(gone)}, to which {identity.actor} belongs or which vouched for it, is banned, or not"
                    " in the cluster any more",
                    remedy="ask an administrator",
                )

    @property
    def _lists_people(self) -> bool:
        return any(issuer.scope == PEOPLE for issuer in self.issuers.values())

    def verify_chain(self, chain_pem: bytes, *, now_ms: int) -> Identity:
        """Return the identity of a chain (leaf, issuer, perhaps root); NotAllowed says which link fails and
        why.
        """
        leaf, *others = chain_from_pem(chain_pem)
        identity = identity_of(leaf)
        issuer = next((other for other in others if is_signed_by(leaf, other)), None)
        if issuer is None:
            raise NotAllowed(f"the certificate of {identity.actor} comes without the one of its issuer")
        scope = PEOPLE if identity.kind is IdentityKind.PERSON else identity.site
        read_issuer(to_der(issuer), scope=scope, cluster=self.cluster)
        if not descends(issuer, others, self.roots):
            raise NotAllowed(f"the issuer of {identity.actor} was not made by this cluster's root")
        for certificate, name in ((leaf, identity.actor), (issuer, f"the authority of {scope}")):
            if not is_in_time(certificate, now_ms):
                raise NotAllowed(
                    f"the certificate of {name} has expired or is not valid yet", remedy="renew it"
                )
        self.admit(identity, now_ms=now_ms)
        return identity


def descends(
    issuer: x509.Certificate, others: Iterable[x509.Certificate], roots: Sequence[x509.Certificate]
) -> bool:
    """Return whether a root made this authority, or a root that followed one of them, whose certificate by that one
    is among `others`.
    """
    followers = [other for other in others if _is_follower(other, roots)]
    return any(is_signed_by(issuer, root) for root in (*roots, *followers))


def _is_follower(certificate: x509.Certificate, roots: Sequence[x509.Certificate]) -> bool:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
    return basic.ca and basic.path_length == 1 and any(is_signed_by(certificate, root) for root in roots)


def succeeding_roots(
    known: Sequence[x509.Certificate],
    told: Sequence[x509.Certificate],
    above: Sequence[x509.Certificate],
) -> tuple[x509.Certificate, ...]:
    """Return the roots to believe from now on: those of `told` that are known, or that a believed root vouches for.

    `above` are certificates of keys of new roots by the roots before them.  When none of `told` can be believed, the
    known ones stay: whoever tells is wrong, or speaks of another cluster.
    """
    believed = list(known)
    accepted = [root for root in told if root in believed]
    while True:
        news = [root for root in told if root not in accepted and _is_vouched(root, above, believed)]
        if not news:
            break
        accepted += news
        believed += news
    return tuple(root for root in told if root in accepted) or tuple(known)


def _is_vouched(
    root: x509.Certificate, above: Sequence[x509.Certificate], believed: Sequence[x509.Certificate]
) -> bool:
    if not is_signed_by(root, root):
        return False
    key = key_identifier(certificate_key(root))
    return any(
        cross.subject == root.subject
        and key_identifier(certificate_key(cross)) == key
        and _is_follower(cross, believed)
        for cross in above
    )


@lru_cache(maxsize=64)
def _key_id(certificate: x509.Certificate) -> str:
    return key_identifier(certificate_key(certificate)).hex()


def require_scope(identity: Identity, scope: str) -> None:
    """Raise NotAllowed unless an authority of `scope` may vouch for this identity."""
    expected = PEOPLE if identity.kind is IdentityKind.PERSON else identity.site
    if scope != expected:
        raise NotAllowed(f"the authority of {scope} may not vouch for {identity.actor}")
