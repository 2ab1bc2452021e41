"""Who gets in: pilots with their secret, sites with their invitation, and callers the ledger still
believes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import BadInput, ConfigError, NotAllowed, NotFound, Refused, Unavailable
from iceprod_p2p.ledger import queries, versions
from iceprod_p2p.ledger.commands import ControlSite, Invite, RemoveMember, RevokeCertificate, SiteVerb
from iceprod_p2p.ledger.commands_replacing import RestoreCluster
from iceprod_p2p.ledger.commands_trust import AddAuthority
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.identity import IdentityKind, identity_uri
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.security.ca import Authority, scope_constraints
from iceprod_p2p.security.certificates import (
    at,
    authority_claim,
    chain_from_pem,
    make_request,
    new_key,
    to_der,
    to_pem,
)
from iceprod_p2p.security.enrolment import make_one_time_secret, secret_digest
from iceprod_p2p.security.identity import identity_of
from iceprod_p2p.site import interceptors
from iceprod_p2p.site.cluster_facts import ClusterFacts
from iceprod_p2p.site.cluster_view import ClusterView
from iceprod_p2p.site.enrol_service import EnrolService
from iceprod_p2p.site.grid_jobs import GridJob, GridJobBook, GridJobPhase
from iceprod_p2p.site.interceptors import AccessInterceptor
from iceprod_p2p.site.node_keys import AUTHORITY, issue_person
from iceprod_p2p.site.people import People
from iceprod_p2p.site.readmission import Readmission
from iceprod_p2p.wire.pb import control_pb2, enrol_pb2
from tests.unit.site.one_ledger import CLUSTER, NOW_MS, OneLedger, root_of

DAY_MS = 86_400_000


@dataclass
class Caller:
    """A connection as gRPC would show it."""

    certificate_pem: bytes
    tls: bytes = b"TLSv1.3"

    def auth_context(self) -> Mapping[str, Any]:
        return {"x509_pem_cert": [self.certificate_pem], "ssl_tls_version": [self.tls]}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


class Door:
    """The enrolment service and the access check of a founder."""

    def __init__(self, directory: Path) -> None:
        self.ledger = OneLedger()
        self.keys = self.ledger.found()
        self.clock = ManualClock(wall_ms=NOW_MS)
        roots = root_of(self.keys)
        facts = ClusterFacts(self.ledger, cluster=CLUSTER, roots=lambda: roots, clock=self.clock)  # type: ignore[arg-type]
        self.cluster = ClusterView(self.ledger, facts, cluster=CLUSTER, clock=self.clock)  # type: ignore[arg-type]
        self.book = GridJobBook(directory)
        self.people = People(
            keys=lambda: self.keys,
            data_dir=directory,
            lifetime_ms=DAY_MS // 2,
            consensus=self.ledger,
            cluster=self.cluster,
            clock=self.clock,
        )
        self.answering: set[str] = set()
        readmission = Readmission(
            keys=lambda: self.keys,
            consensus=self.ledger,
            cluster=self.cluster,
            answers=self._answers,
            clock=self.clock,
        )
        self.enrol = EnrolService(
            keys=lambda: self.keys,
            readmission=readmission,
            people=self.people,
            book=self.book,
            consensus=self.ledger,
            cluster=self.cluster,
            pilot_lifetime_ms=3_600_000,
            clock=self.clock,
        )
        self.access = AccessInterceptor(self.cluster, self.clock)

    async def _answers(self, node_id: str) -> bool:
        return node_id in self.answering

    def pilot_job(self, pilot: str) -> str:
        secret, record = make_one_time_secret(pilot, now_ms=NOW_MS, lifetime_ms=DAY_MS)
        self.book.put(
            GridJob(
                pilot,
                "cpu",
                1,
                GridJobPhase.QUEUED,
                NOW_MS,
                secret_digest=record.digest.hex(),
                secret_expires_ms=record.expires_ms,
            )
        )
        return secret

    def leaf(self, kind: IdentityKind, name: str, *, lifetime_ms: int = DAY_MS) -> Caller:
        site = "" if kind is IdentityKind.PERSON else self.keys.site
        authority = self.keys.people if kind is IdentityKind.PERSON else self.keys.authority
        assert authority is not None
        request = make_request(new_key(), identity_uri(kind, name, site=site, cluster=CLUSTER))
        certificate = authority.issue(request, kind=kind, name=name, now_ms=NOW_MS, lifetime_ms=lifetime_ms)
        return Caller(to_pem(certificate))


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def ask(pilot: str, secret: str, key: Any, *, site: str = "madison") -> enrol_pb2.EnrolPilotRequest:
    uri = identity_uri(IdentityKind.PILOT, pilot, site=site, cluster=CLUSTER)
    return enrol_pb2.EnrolPilotRequest(pilot=pilot, secret=secret, csr_pem=make_request(key, uri), host="w1")


async def test_a_pilots_secret_is_good_for_one_key_and_may_be_repeated_with_it(door: Door) -> None:
    secret, key = door.pilot_job("p-1"), new_key()
    for _ in range(2):
        reply = await door.enrol.EnrolPilot(ask("p-1", secret, key), None)
        identity = identity_of(chain_from_pem(reply.chain_pem)[0])
        assert (identity.name, identity.site, reply.nodes[0].node_id) == ("p-1", "madison", "madison-1")
    with pytest.raises(NotAllowed, match="another key"):
        await door.enrol.EnrolPilot(ask("p-1", secret, new_key()), None)
    job = door.book.get("p-1")
    assert job is not None and job.phase is GridJobPhase.RUNNING and job.host == "w1"


async def test_wrong_late_foreign_and_ended_secrets_are_refused_alike(door: Door) -> None:
    secret, key = door.pilot_job("p-1"), new_key()
    other = door.pilot_job("p-2")
    for pilot, given in (("p-1", other), ("p-1", ""), ("nobody", secret)):
        with pytest.raises(NotAllowed, match="not valid for this name"):
            await door.enrol.EnrolPilot(ask(pilot, given, key), None)
    with pytest.raises(NotAllowed):
        await door.enrol.EnrolPilot(ask("p-1", secret, key, site="geneva"), None)
    door.book.end("p-2", phase=GridJobPhase.ENDED, now_ms=NOW_MS, reason="removed")
    with pytest.raises(NotAllowed, match="not valid"):
        await door.enrol.EnrolPilot(ask("p-2", other, key), None)
    door.clock.advance(DAY_MS / 1_000 + 1)
    with pytest.raises(NotAllowed, match="expired"):
        await door.enrol.EnrolPilot(ask("p-1", secret, key), None)


def joining(
    token: str, *, site: str = "geneva", keys: tuple[Any, Any] | None = None
) -> enrol_pb2.JoinRequest:
    node_key, authority_key = keys or (new_key(), new_key())
    node_id = f"{site}-1"
    uri = identity_uri(IdentityKind.NODE, node_id, site=site, cluster=CLUSTER)
    return enrol_pb2.JoinRequest(
        token=token,
        site=site,
        node_id=node_id,
        address="127.0.0.1:5000",
        enrol_address="127.0.0.1:5001",
        node_csr_pem=make_request(node_key, uri),
        authority_csr_pem=make_request(authority_key, authority_claim(site, CLUSTER)),
        passkey_key_id=node_id,
        passkey_public_key=b"p" * 32,
        version_most=versions.VERSION_MOST,
    )


async def test_a_site_joins_once_and_a_repeat_with_its_keys_gives_the_same_certificate(door: Door) -> None:
    door.ledger.must(Invite(secret_digest("word"), "geneva"), actor="person:ada")
    keys = (new_key(), new_key())
    first = await door.enrol.Join(joining("word", keys=keys), None)
    again = await door.enrol.Join(joining("word", keys=keys), None)
    assert first.authority_pem == again.authority_pem
    assert sorted((node.node_id, node.role) for node in again.nodes) == [
        ("geneva-1", "observer"),
        ("madison-1", "voter"),
    ]
    with pytest.raises(NotAllowed, match="another key"):
        await door.enrol.Join(joining("word"), None)


async def test_a_site_without_or_with_another_sites_invitation_is_refused(door: Door) -> None:
    door.ledger.must(Invite(secret_digest("word"), "geneva"), actor="person:ada")
    for request in (joining("guess"), joining("word", site="zeuthen")):
        with pytest.raises((NotAllowed, NotFound, Refused)):
            await door.enrol.Join(request, None)
    with pytest.raises(BadInput, match="token is missing"):
        await door.enrol.Join(joining(""), None)
    malformed = joining("word")
    malformed.address = "nowhere"
    with pytest.raises(BadInput, match="has no port"):
        await door.enrol.Join(malformed, None)


async def test_a_node_without_the_root_key_says_where_to_join(door: Door) -> None:
    door.keys = replace(door.keys, root=None)
    with pytest.raises(ConfigError, match="does not hold the cluster's root key"):
        await door.enrol.Join(joining("word"), None)


EXCHANGE, WHO, LINK = "/iceprod.v1.Pilots/Exchange", "/iceprod.v1.Control/WhoAmI", "/iceprod.v1.Peer/Link"
AUDIT, PUT_BLOB = "/iceprod.v1.Control/ListAudit", "/iceprod.v1.Pilots/PutBlob"


@dataclass
class Details:
    """What gRPC tells of a call before it is served."""

    method: str


def returns(handler: Any) -> Any:
    """What gRPC gives an interceptor to find the method's handler by."""

    async def found(details: Details) -> Any:
        return handler

    return found


def test_callers_are_let_in_by_kind_role_and_date(door: Door) -> None:
    door.access.check(door.leaf(IdentityKind.PILOT, "p-1"), EXCHANGE)
    door.access.check(door.leaf(IdentityKind.PERSON, "ada"), AUDIT)
    door.access.check(door.leaf(IdentityKind.PERSON, "bob"), WHO)
    for caller, method in (
        (door.leaf(IdentityKind.PERSON, "bob"), AUDIT),
        (door.leaf(IdentityKind.PILOT, "p-1"), WHO),
        (door.leaf(IdentityKind.PILOT, "p-1"), LINK),
        (door.leaf(IdentityKind.NODE, "madison-1"), EXCHANGE),
        (Caller(b""), EXCHANGE),
        (Caller(door.leaf(IdentityKind.PILOT, "p-1").certificate_pem, tls=b"TLSv1.2"), EXCHANGE),
    ):
        with pytest.raises(NotAllowed):
            door.access.check(caller, method)
    assert sum(door.access.refusals.values()) == 6
    short = door.leaf(IdentityKind.PILOT, "p-2", lifetime_ms=60_000)
    door.clock.advance(61)
    with pytest.raises(NotAllowed, match="expired"):
        door.access.check(short, EXCHANGE)


async def test_no_caller_holds_a_call_for_ever(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptors, "UNARY_S_MAX", 0.05)

    async def endless(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    async def gather(requests: Any, context: Any) -> list[int]:
        return [message async for message in requests]

    async def some(*, then_silent: bool) -> AsyncIterator[int]:
        yield 1
        yield 2
        if then_silent:
            await asyncio.Event().wait()

    pilot = door.leaf(IdentityKind.PILOT, "p-1")
    unary = grpc.unary_unary_rpc_method_handler(endless)
    upload = grpc.stream_unary_rpc_method_handler(gather)
    call = (await door.access.intercept_service(returns(unary), Details(EXCHANGE))).unary_unary
    with pytest.raises(Unavailable, match="Exchange took longer"):
        await call(None, pilot)
    send = (await door.access.intercept_service(returns(upload), Details(PUT_BLOB))).stream_unary
    assert await send(some(then_silent=False), pilot) == [1, 2]
    monkeypatch.setattr(interceptors, "SILENCE_S_MAX", 0.05)
    with pytest.raises(Unavailable, match="PutBlob brought nothing"):
        await send(some(then_silent=True), pilot)


def test_a_revoked_certificate_and_a_banned_site_are_out_within_a_moment(door: Door) -> None:
    caller = door.leaf(IdentityKind.PERSON, "ada")
    door.access.check(caller, WHO)
    fingerprint = bytes.fromhex(identity_of(chain_from_pem(caller.certificate_pem)[0]).fingerprint)
    door.ledger.must(RevokeCertificate(fingerprint), actor="person:ada")
    door.clock.advance(1)
    with pytest.raises(NotAllowed, match="revoked"):
        door.access.check(caller, WHO)
    pilot = door.leaf(IdentityKind.PILOT, "p-1")
    door.ledger.must(ControlSite("madison", SiteVerb.BAN), actor="person:ada")
    door.clock.advance(1)
    with pytest.raises(NotAllowed, match="not, or no longer"):
        door.access.check(pilot, EXCHANGE)


@pytest.mark.parametrize("method", ["GetBlob", "PutBlob", "HasBlobs", "GetMember", "VerifyCopies"])
async def test_a_removed_node_and_one_of_a_banned_site_are_told_nothing_more(door: Door, method: str) -> None:
    """Their authority is the root's work still, so the handshake lets them in: the ledger decides."""
    door.ledger.must(Invite(secret_digest("word"), "geneva"), actor="person:ada")
    key = new_key()
    reply = await door.enrol.Join(joining("word", keys=(new_key(), key)), None)
    geneva = Authority(CLUSTER, "geneva", chain_from_pem(reply.authority_pem)[0], key)

    def node(name: str) -> Caller:
        asked = make_request(new_key(), identity_uri(IdentityKind.NODE, name, site="geneva", cluster=CLUSTER))
        leaf = geneva.issue(asked, kind=IdentityKind.NODE, name=name, now_ms=NOW_MS, lifetime_ms=DAY_MS)
        return Caller(to_pem(leaf))

    call = f"/iceprod.v1.Peer/{method}"
    door.clock.advance(1)
    door.access.check(node("geneva-1"), call)
    door.cluster.admit_link(identity_of(chain_from_pem(node("geneva-2").certificate_pem)[0]), now_ms=NOW_MS)
    door.ledger.must(RemoveMember("geneva-1"), actor="person:ada")
    door.clock.advance(1)
    with pytest.raises(NotAllowed, match="was removed"):
        door.access.check(node("geneva-1"), call)
    door.access.check(node("geneva-2"), call)
    door.ledger.must(ControlSite("geneva", SiteVerb.BAN), actor="person:ada")
    door.clock.advance(1)
    with pytest.raises(NotAllowed, match="is banned"):
        door.access.check(node("geneva-2"), call)
    with pytest.raises(NotAllowed, match="is banned"):
        door.cluster.admit_link(
            identity_of(chain_from_pem(node("geneva-2").certificate_pem)[0]), now_ms=NOW_MS
        )


def test_a_restored_cluster_lets_no_link_of_an_earlier_epoch_in(door: Door) -> None:
    """What was lost and returns has no quorum with the restored nodes, and is told by name to rejoin."""
    old = identity_of(chain_from_pem(door.leaf(IdentityKind.NODE, "madison-1").certificate_pem)[0])
    door.cluster.admit_link(old, now_ms=NOW_MS)
    member = Member("madison-2", "madison", "restored:1", MemberRole.VOTER)
    authority = door.keys.authority.certificate.public_bytes(Encoding.DER)
    restore = RestoreCluster(
        member, authority, bytes(32), "key-2", bytes(32), "", "", door.ledger.index + 1, 1, bytes(16)
    )
    door.ledger.must(restore)
    with door.ledger.view() as kv:
        now = queries.settings(kv)
    assert now is not None and now.epoch == 2
    door.clock.advance(1)
    with pytest.raises(NotAllowed, match="node madison-1 was removed from the cluster") as refused:
        door.cluster.admit_link(old, now_ms=NOW_MS)
    assert "rejoin" in refused.value.remedy


def test_a_link_from_a_member_that_this_node_has_not_heard_of_is_let_in(tmp_path: Path) -> None:
    """A newcomer's ledger is empty, and it fills through that very link."""
    door = Door(tmp_path)
    caller = door.leaf(IdentityKind.NODE, "madison-1")
    door.ledger.kv = type(door.ledger.kv)()
    door.clock.advance(1)
    door.access.check(caller, LINK)
    with pytest.raises(NotAllowed):
        door.access.check(door.leaf(IdentityKind.PILOT, "p-1"), EXCHANGE)


async def test_the_founders_administrator_is_who_the_certificate_says(door: Door) -> None:
    assert door.keys.people is not None
    chain, _ = issue_person(door.keys.people, "ada", now_ms=NOW_MS, lifetime_ms=DAY_MS)
    door.access.check(Caller(to_pem(chain_from_pem(chain)[0])), AUDIT)


@pytest.mark.parametrize("scope", ["madison", "people"])
@pytest.mark.parametrize("kind", ["no certificate", "a key of another kind"])
async def test_an_authority_that_is_none_ends_nobody_elses_calls(door: Door, scope: str, kind: str) -> None:
    """Any node may list what it calls its own authority: each of the others must judge it by itself."""
    caller = door.leaf(IdentityKind.PILOT, "p-1")
    der = b"no certificate" if kind == "no certificate" else _of_another_key(scope)
    door.ledger.must(AddAuthority("madison-1", scope, der))
    door.clock.advance(1)
    door.access.check(caller, EXCHANGE)
    assert len(door.cluster.trust().issuers) == 1


def _of_another_key(scope: str) -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(at(NOW_MS)).not_valid_after(at(NOW_MS + DAY_MS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(scope_constraints(scope, CLUSTER), critical=True)
    return to_der(builder.sign(key, hashes.SHA256()))


async def test_a_person_is_revoked_in_a_cluster_of_version_1_too(door: Door, tmp_path: Path) -> None:
    """While releases are mixed there is no `RemovePerson`: the certificates of this node end all the same."""
    tables = Tables(door.ledger.kv)
    tables.progress.version = 1
    tables.flush()
    (tmp_path / AUTHORITY).mkdir()
    door.people._accounts.set_password("eve", "a long enough word")
    uri = identity_uri(IdentityKind.PERSON, "eve", site="", cluster=CLUSTER)
    request = enrol_pb2.LoginRequest(
        name="eve", password="a long enough word", csr_pem=make_request(new_key(), uri)
    )
    reply = await door.people.log_in(request, caller="127.0.0.1")
    caller = Caller(reply.chain_pem)
    door.access.check(caller, WHO)
    await door.people.revoke(control_pb2.RevokePersonRequest(name="eve", reason="left"), "ada")
    door.clock.advance(1)
    with pytest.raises(NotAllowed, match="revoked"):
        door.access.check(caller, WHO)
    with pytest.raises(NotAllowed):
        await door.people.log_in(request, caller="127.0.0.1")
