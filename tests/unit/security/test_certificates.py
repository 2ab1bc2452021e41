"""Authorities and chains: real certificates of every right and wrong kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from iceprod_p2p.base.errors import BadInput, ConfigError, NotAllowed
from iceprod_p2p.model.identity import IdentityKind
from iceprod_p2p.security.ca import Authority, found_root
from iceprod_p2p.security.certificates import (
    authority_claim,
    certificate_from_der,
    chain_from_pem,
    check_request,
    days_left,
    expires_ms,
    key_digest,
    key_from_pem,
    key_to_pem,
    make_request,
    new_key,
    problem_of,
    renewal_due_ms,
    to_der,
    to_pem,
)
from iceprod_p2p.security.identity import identity_of
from iceprod_p2p.security.trust import read_issuer
from tests.unit.security.rings import DAY_MS, HOUR_MS, NOW_MS, authority, icecube, issued, make_ring, request

NODE, PILOT, PERSON = IdentityKind.NODE, IdentityKind.PILOT, IdentityKind.PERSON


@pytest.mark.parametrize(
    ("kind", "name", "actor", "life_ms"),
    [
        (NODE, "madison-1", "node:madison-1", 90 * DAY_MS),
        (PILOT, "p-1", "pilot:madison/p-1", HOUR_MS),
        (PERSON, "ada", "person:ada", 12 * HOUR_MS),
    ],
)
def test_each_kind_is_issued_and_verified(kind: IdentityKind, name: str, actor: str, life_ms: int) -> None:
    ring = icecube()
    chain, key_pem = issued(ring.people if kind is PERSON else ring.madison, kind, name)
    identity = ring.trust().verify_chain(chain, now_ms=NOW_MS)
    assert identity.actor == actor
    assert identity.expires_ms == NOW_MS + life_ms
    assert identity.key_digest == key_digest(key_from_pem(key_pem, name="key").public_key())
    assert ring.trust().verify_chain(chain + ring.root_pem, now_ms=NOW_MS) == identity


def test_certificates_begin_five_minutes_early_and_end_on_time() -> None:
    chain, _ = issued(icecube().madison, PILOT, "p-1")
    leaf = chain_from_pem(chain)[0]
    trust = icecube().trust()
    assert trust.verify_chain(chain, now_ms=NOW_MS + HOUR_MS)
    # The authority is as old as the pilot here, so both begin at the same second.
    assert trust.verify_chain(chain, now_ms=NOW_MS - 300_000)
    for now_ms in (NOW_MS - 301_000, NOW_MS + HOUR_MS + 1_000):
        with pytest.raises(NotAllowed, match="expired or is not valid yet"):
            trust.verify_chain(chain, now_ms=now_ms)
    assert problem_of(leaf, NOW_MS) == ""
    assert "expired" in problem_of(leaf, NOW_MS + 2 * HOUR_MS)
    assert "not valid yet" in problem_of(leaf, NOW_MS - HOUR_MS)
    assert renewal_due_ms(leaf) == NOW_MS + 1_650_000
    assert days_left(leaf, NOW_MS) == 0
    assert days_left(icecube().root.certificate, NOW_MS) == 3_650


def test_a_certificate_never_outlasts_its_authority() -> None:
    ring = icecube()
    end_ms = expires_ms(ring.madison.certificate)
    chain, _ = issued(ring.madison, NODE, "madison-1", now_ms=end_ms - DAY_MS)
    assert expires_ms(chain_from_pem(chain)[0]) == end_ms
    with pytest.raises(NotAllowed, match="has ended"):
        issued(ring.madison, NODE, "madison-1", now_ms=end_ms)


def test_authorities_stay_inside_their_scope() -> None:
    ring = icecube()
    for issuer, kind, word in [
        (ring.madison, PERSON, "may not vouch for a person"),
        (ring.people, NODE, "may not vouch for a node"),
        (ring.people, PILOT, "may not vouch for a pilot"),
        (ring.root, NODE, "issues authorities only"),
    ]:
        pem, _ = request(kind, "x", "" if kind is PERSON else "madison")
        with pytest.raises(NotAllowed, match=word):
            issuer.issue(pem, kind=kind, name="x", now_ms=NOW_MS)
    for issuer in (ring.madison, ring.people):
        claim = make_request(new_key(), authority_claim("lund", "icecube"))
        with pytest.raises(NotAllowed, match="may not make further authorities"):
            issuer.issue_authority(claim, scope="lund", now_ms=NOW_MS)


def test_a_site_that_signs_for_another_is_found_out() -> None:
    ring = icecube()
    thief = replace(ring.zeuthen, scope="madison")  # The key is Zeuthen's, and so is the certificate.
    chain, _ = issued(thief, PILOT, "p-1")
    with pytest.raises(NotAllowed, match=r"not limited to madison\.icecube"):
        ring.trust().verify_chain(chain, now_ms=NOW_MS)
    with pytest.raises(NotAllowed, match="authority of zeuthen may not vouch"):
        ring.trust().admit(identity_of(chain_from_pem(chain)[0]), now_ms=NOW_MS)
    as_people = replace(ring.zeuthen, scope="people")
    with pytest.raises(NotAllowed, match=r"not limited to people\.icecube"):
        ring.trust().verify_chain(issued(as_people, PERSON, "ada")[0], now_ms=NOW_MS)


def test_another_cluster_of_the_same_name_is_refused() -> None:
    other = make_ring()
    chain, _ = issued(other.madison, PILOT, "p-1")
    with pytest.raises(NotAllowed, match="not made by this cluster's root"):
        icecube().trust().verify_chain(chain, now_ms=NOW_MS)
    renamed = make_ring("gen2")
    with pytest.raises(NotAllowed, match=r"not limited to madison\.icecube"):
        icecube().trust().verify_chain(issued(renamed.madison, PILOT, "p-1")[0], now_ms=NOW_MS)
    leaf = identity_of(chain_from_pem(issued(renamed.madison, PILOT, "p-1")[0])[0])
    with pytest.raises(NotAllowed, match="belongs to cluster gen2"):
        icecube().trust().admit(leaf, now_ms=NOW_MS)


def test_revocation_and_removal_reach_callers() -> None:
    ring = icecube()
    chain, _ = issued(ring.madison, PILOT, "p-1")
    identity = ring.trust().verify_chain(chain, now_ms=NOW_MS)
    with pytest.raises(NotAllowed, match="was revoked"):
        ring.trust(revoked=(identity.fingerprint,)).admit(identity, now_ms=NOW_MS)
    with pytest.raises(NotAllowed, match="was revoked"):
        ring.trust(revoked=(identity.issuer,)).admit(identity, now_ms=NOW_MS)
    with pytest.raises(NotAllowed, match="no longer, one of the cluster"):
        ring.trust(ring.zeuthen).admit(identity, now_ms=NOW_MS)
    with pytest.raises(NotAllowed, match="has expired"):
        ring.trust().admit(identity, now_ms=NOW_MS + 2 * HOUR_MS)
    person = identity_of(chain_from_pem(issued(ring.people, PERSON, "ada")[0])[0])
    ring.trust().admit(person, now_ms=NOW_MS)
    with pytest.raises(NotAllowed, match="was revoked"):
        ring.trust(revoked=(person.issuer,)).admit(person, now_ms=NOW_MS)


def test_two_roots_overlap_during_a_rotation() -> None:
    old, key = icecube(), new_key()
    root = found_root("icecube", key, now_ms=NOW_MS)
    lund = authority(root, "lund")
    trust = replace(old.trust(old.madison, lund), roots=(old.root.certificate, root.certificate))
    for issuer in (old.madison, lund):
        assert trust.verify_chain(issued(issuer, NODE, "n-1")[0], now_ms=NOW_MS).site == issuer.scope


def test_a_chain_without_its_issuer_or_upside_down_is_refused() -> None:
    chain, _ = issued(icecube().madison, PILOT, "p-1")
    leaf, issuer = chain_from_pem(chain)
    with pytest.raises(NotAllowed, match="without the one of its issuer"):
        icecube().trust().verify_chain(to_pem(leaf), now_ms=NOW_MS)
    with pytest.raises(NotAllowed, match="names no identity"):
        icecube().trust().verify_chain(to_pem(issuer, leaf), now_ms=NOW_MS)
    for pem in (b"", b"rubbish", chain + b"rubbish", chain * 4, chain[:-40], bytes(20_000)):
        with pytest.raises(BadInput):
            icecube().trust().verify_chain(pem, now_ms=NOW_MS)


def test_an_authority_without_limits_is_no_authority() -> None:
    ring = icecube()
    for scope, cluster in (("zeuthen", "icecube"), ("madison", "gen2"), ("people", "icecube")):
        with pytest.raises(NotAllowed, match="not limited"):
            read_issuer(to_der(ring.madison.certificate), scope=scope, cluster=cluster)
    leaf = chain_from_pem(issued(ring.madison, NODE, "madison-1")[0])[0]
    for certificate in (ring.root.certificate, leaf):
        with pytest.raises(NotAllowed):
            read_issuer(to_der(certificate), scope="madison", cluster="icecube")
    with pytest.raises(BadInput):
        read_issuer(b"\x30\x03rubbish", scope="madison", cluster="icecube")
    with pytest.raises(BadInput):
        certificate_from_der(bytes(1 << 20))


def test_a_leaf_of_other_uses_is_refused() -> None:
    """A pilot's certificate with a node's server use, signed by the right authority."""
    ring, key = icecube(), new_key()
    good = chain_from_pem(issued(ring.madison, PILOT, "p-1")[0])[0]
    builder = (
        x509.CertificateBuilder(good.issuer, good.subject, key.public_key(), good.serial_number)
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(good.not_valid_after_utc)
    )
    for extension in good.extensions:
        value = extension.value
        if isinstance(value, x509.ExtendedKeyUsage):
            value = x509.ExtendedKeyUsage([*value, x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(value, critical=extension.critical)
    forged = builder.sign(ring.madison.key, hashes.SHA256())
    with pytest.raises(NotAllowed, match="made for other uses"):
        ring.trust().verify_chain(to_pem(forged, ring.madison.certificate), now_ms=NOW_MS)


def test_requests_are_read_strictly() -> None:
    pem, key = request(PILOT, "p-1", "madison")
    uri = "iceprod://madison.icecube/pilot/p-1"
    assert key_digest(check_request(pem, claim=uri)) == key_digest(key.public_key())
    with pytest.raises(NotAllowed, match="asks for"):
        check_request(pem, claim="iceprod://madison.icecube/node/p-1")
    for damaged in (b"", b"rubbish", pem[:100], to_pem(icecube().root.certificate), bytes(5_000)):
        with pytest.raises(BadInput):
            check_request(damaged, claim=uri)
    middle = pem.index(b"\n", 200) - 5
    flipped = pem[:middle] + (b"A" if pem[middle : middle + 1] != b"A" else b"B") + pem[middle + 1 :]
    with pytest.raises((BadInput, NotAllowed)):
        check_request(flipped, claim=uri)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName("x.org")])
    both = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=False)
    with pytest.raises(NotAllowed, match="asks for"):
        check_request(both.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.PEM), claim=uri)
    nothing = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(new_key(), hashes.SHA256())
    with pytest.raises(BadInput):
        check_request(nothing.public_bytes(Encoding.PEM), claim=uri)


def test_keys_of_other_kinds_are_refused() -> None:
    uri = "iceprod://madison.icecube/pilot/p-1"
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=True)
    others = [
        (ed25519.Ed25519PrivateKey.generate(), None),
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
        (rsa.generate_private_key(65_537, 2048), hashes.SHA256()),
    ]
    for key, digest in others:
        with pytest.raises(NotAllowed, match="another kind than P-256"):
            check_request(builder.sign(key, digest).public_bytes(Encoding.PEM), claim=uri)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with pytest.raises(ConfigError, match=r"node\.key holds a key of another kind"):
            key_from_pem(pem, name="node.key")


def test_a_root_key_behind_a_passphrase_opens_only_with_it() -> None:
    pem = key_to_pem(icecube().root.key, passphrase=b"correct horse")
    assert b"ENCRYPTED" in pem
    again = key_from_pem(pem, name="root.key", passphrase=b"correct horse")
    assert key_digest(again.public_key()) == key_digest(icecube().root.key.public_key())
    with pytest.raises(ConfigError, match="give its passphrase"):
        key_from_pem(pem, name="root.key")
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        key_from_pem(pem, name="root.key", passphrase=b"battery staple")
    with pytest.raises(ConfigError, match="not encrypted"):
        key_from_pem(key_to_pem(new_key()), name="root.key", passphrase=b"x")
    with pytest.raises(ConfigError, match="no private key"):
        key_from_pem(b"rubbish", name="root.key")


def test_impossible_names_make_no_certificate() -> None:
    for cluster in ("Ice", "a.b", "", "x" * 64):
        with pytest.raises(BadInput):
            found_root(cluster, new_key(), now_ms=NOW_MS)
    with pytest.raises(BadInput):
        authority_claim("a/b", "icecube")
    pem, _ = request(PILOT, "p-1", "madison")
    with pytest.raises(BadInput):
        icecube().madison.issue(pem, kind=PILOT, name="../p", now_ms=NOW_MS)


def test_authorities_do_not_show_their_keys() -> None:
    assert "key" not in repr(Authority("c", "s", icecube().root.certificate, new_key())).lower()
