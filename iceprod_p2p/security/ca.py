"""The authorities: one root per cluster, and issuing authorities below it, each bound to one site or to
people.

    root            self-signed, may have authorities below it; its key is kept by the founder, best behind
    a passphrase authority       issuing, path length 0, limited by name constraints to ``SITE.CLUSTER`` or
    ``people.CLUSTER`` node, pilot     issued by their site's authority; nodes serve and call, pilots only
    call person          issued by a people's authority; calls only

Keys are made by those who use them and never travel; authorities see certificate requests alone.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from iceprod_p2p.base.errors import BadInput, NotAllowed
from iceprod_p2p.model.identity import (
    PEOPLE,
    IdentityKind,
    identity_uri,
    is_host_label,
    is_site_name,
    node_server_name,
)
from iceprod_p2p.security.certificates import (
    CLOCK_TOLERANCE_MS,
    PrivateKey,
    PublicKey,
    at,
    authority_claim,
    certificate_key,
    check_request,
    expires_ms,
    home_extension,
    key_identifier,
    to_pem,
)

DAY_MS: Final = 86_400_000
ROOT_LIFETIME_MS: Final = 3_650 * DAY_MS
AUTHORITY_LIFETIME_MS: Final = 730 * DAY_MS
NODE_LIFETIME_MS: Final = 90 * DAY_MS
PERSON_LIFETIME_MS: Final = DAY_MS // 2
PILOT_LIFETIME_MS: Final = 3_600_000

_LIFETIME_MS: Final = {
    IdentityKind.NODE: NODE_LIFETIME_MS,
    IdentityKind.PILOT: PILOT_LIFETIME_MS,
    IdentityKind.PERSON: PERSON_LIFETIME_MS,
}


@dataclass(frozen=True, slots=True)
class Authority:
    """A key that may issue certificates, and its own certificate; `scope` is a site, ``people``, or empty:
    the root.
    """

    cluster: str
    scope: str
    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    # Shown behind it: the certificate of its root's key by the root before, for those who know that one alone.
    above: tuple[x509.Certificate, ...] = ()

    def issue(
        self,
        request_pem: bytes,
        *,
        kind: IdentityKind,
        name: str,
        now_ms: int,
        lifetime_ms: int | None = None,
        home: str = "",
    ) -> x509.Certificate:
        """Issue a node's, pilot's or person's certificate for the key of `request_pem`, beginning at
        `now_ms`.

        The caller has decided that the requester is `name`; the request must ask for exactly that identity.
        `home` is the site of a pilot that another site's node renews; it stands in the certificate, so that the
        end of that site reaches the pilot wherever it is.
        Life defaults to the kind's (90 days, 1 h, 12 h) and never outlasts the authority's.  BadInput and
        NotAllowed as `check_request`; NotAllowed for a kind outside this authority's scope.
        """
        site = _site_of(self, kind)
        uri = _identity_uri(kind, name, site=site, cluster=self.cluster)
        key = check_request(request_pem, claim=uri)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if kind is IdentityKind.NODE:
            names.append(x509.DNSName(node_server_name(name, site=site, cluster=self.cluster)))
            usage.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = _begin(self, key, f"{kind} {name}"[:64], now_ms, lifetime_ms or _LIFETIME_MS[kind])
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if home and home != site:
            builder = builder.add_extension(home_extension(home), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def chain(self, certificate: x509.Certificate) -> bytes:
        """Return what the holder of a certificate of this authority shows: it, this, and what leads further up."""
        return to_pem(certificate, self.certificate, *self.above)

    def issue_authority(self, request_pem: bytes, *, scope: str, now_ms: int) -> x509.Certificate:
        """Issue the certificate of the issuing authority of a site, or of ``people``; only the root may.

        The request must be `make_request(key, authority_claim(scope, cluster))`.
        """
        if self.scope:
            raise NotAllowed(f"the authority of {self.scope} may not make further authorities")
        key = check_request(request_pem, claim=authority_claim(scope, self.cluster))
        name = f"{scope[:40]} authority {key_identifier(key).hex()[:12]}"  # Subjects never repeat.
        builder = _begin(self, key, name, now_ms, AUTHORITY_LIFETIME_MS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(scope_constraints(scope, self.cluster), critical=True)
        return builder.sign(self.key, hashes.SHA256())


def found_root(cluster: str, key: PrivateKey, *, now_ms: int) -> Authority:
    """Make the self-signed root of a new cluster, valid for ten years; BadInput for an impossible name."""
    if not is_host_label(cluster):
        raise BadInput(
            f"{cluster!r} cannot name a cluster", remedy="use lower-case letters, digits and '-', at most 63"
        )
    public = key.public_key()
    subject = _subject(cluster, f"root {key_identifier(public).hex()[:12]}")
    builder = _certificate(subject, subject, public, public, now_ms, now_ms + ROOT_LIFETIME_MS)
    # Below it may stand the root that follows it, and below that one the issuing authorities.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=2), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return Authority(cluster, "", builder.sign(key, hashes.SHA256()), key)


def follow_root(old: Authority, key: PrivateKey, *, now_ms: int) -> Authority:
    """Make the root that follows `old`; `above` it holds its key's certificate by the old one.

    Whoever believes the old root alone believes what the new one made, as long as that certificate is shown: so
    roots take turns while everybody learns of it in their own time.
    """
    new = found_root(old.cluster, key, now_ms=now_ms)
    public = key.public_key()
    end_ms = expires_ms(old.certificate)
    builder = _certificate(
        new.certificate.subject, old.certificate.subject, public, old.key.public_key(), now_ms, end_ms
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return replace(new, above=(builder.sign(old.key, hashes.SHA256()),))


def scope_constraints(scope: str, cluster: str) -> x509.NameConstraints:
    """Return the limits of an issuing authority: identities and server names of ``SCOPE.CLUSTER``, no
    addresses.

    Both kinds of name are always limited: a kind that is not listed would be free.
    """
    host = f"{scope}.{cluster}"
    return x509.NameConstraints(
        permitted_subtrees=[x509.UniformResourceIdentifier(host), x509.DNSName(host)],
        excluded_subtrees=[
            x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
            x509.IPAddress(ipaddress.ip_network("::/0")),
        ],
    )


def _site_of(authority: Authority, kind: IdentityKind) -> str:
    if not authority.scope:
        raise NotAllowed("the root issues authorities only", remedy="use a site's or the people's authority")
    if (authority.scope == PEOPLE) != (kind is IdentityKind.PERSON):
        raise NotAllowed(f"the authority of {authority.scope} may not vouch for a {kind}")
    return "" if authority.scope == PEOPLE else authority.scope


def _identity_uri(kind: IdentityKind, name: str, *, site: str, cluster: str) -> str:
    assert not site or is_site_name(site)
    try:
        return identity_uri(kind, name, site=site, cluster=cluster)
    except ValueError as fault:
        raise BadInput(str(fault)) from fault


def _begin(
    authority: Authority, key: PublicKey, name: str, now_ms: int, lifetime_ms: int
) -> x509.CertificateBuilder:
    end_ms = min(now_ms + lifetime_ms, expires_ms(authority.certificate))
    if end_ms <= now_ms:
        raise NotAllowed(
            f"the certificate of the authority of {authority.scope or 'the cluster'} has ended",
            remedy="renew the authority, or set this machine's clock",
        )
    subject = _subject(authority.cluster, name)
    issuer_key = certificate_key(authority.certificate)
    return _certificate(subject, authority.certificate.subject, key, issuer_key, now_ms, end_ms)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, issuer_key: PublicKey, now_ms: int, end_ms: int
) -> x509.CertificateBuilder:
    authority = x509.AuthorityKeyIdentifier(key_identifier(issuer_key), None, None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at(now_ms) - timedelta(milliseconds=CLOCK_TOLERANCE_MS))
        .not_valid_after(at(end_ms))
        .add_extension(x509.SubjectKeyIdentifier(key_identifier(key)), critical=False)
        .add_extension(authority, critical=False)
    )


def _subject(cluster: str, name: str) -> x509.Name:
    """A name for people who read certificates; nothing in this project reads it."""
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster)
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
