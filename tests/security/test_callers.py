"""Callers who do not belong, at a real leader: certificates of every wrong kind, and right ones at wrong doors.

Corpus: the ways in which certificates have been misread (RFC 5280, "Frankencerts", "The most dangerous code in the
world", the NUL in a name, basic constraints unchecked), and what an authority of one site could sign for others.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from iceprod_p2p.base.errors import IceProdError, NotAllowed, Unavailable
from iceprod_p2p.model.identity import IdentityKind, node_server_name
from iceprod_p2p.raft import messages as raft
from iceprod_p2p.security.ca import Authority, found_root
from iceprod_p2p.security.certificates import key_to_pem, new_key, to_pem
from iceprod_p2p.site.node_keys import load_authority, new_authority
from iceprod_p2p.wire.channel import TlsMaterial, blocking_channel
from iceprod_p2p.wire.errors import from_rpc_error
from iceprod_p2p.wire.pb import (
    common_pb2,
    control_pb2,
    control_pb2_grpc,
    peer_pb2,
    peer_pb2_grpc,
    pilot_pb2,
    pilot_pb2_grpc,
)
from tests.security.scene import Scene, unmoved
from tests.unit.security.rings import issued

URI, DNS = x509.UniformResourceIdentifier, x509.DNSName
MINUTE = datetime.timedelta(minutes=1)


@dataclass(frozen=True)
class Keys:
    """Everything that a thief of all keys could use."""

    cluster: str
    root: Authority
    site: Authority
    people: Authority
    root_pem: bytes

    def uri(self, rest: str, scope: str = "") -> str:
        return f"iceprod://{scope or self.site.scope}.{self.cluster}/{rest}"

    def tls(self, chain: bytes, key: bytes) -> TlsMaterial:
        return TlsMaterial(chain, key, self.root_pem)


@pytest.fixture(scope="module")
def keys(scene: Scene) -> Keys:
    founder = scene.cluster.cluster.sites[0]
    data = founder.directory / "data"
    with scene.channel() as channel:
        cluster = (
            control_pb2_grpc.ControlStub(channel).WhoAmI(control_pb2.WhoAmIRequest(), timeout=30).cluster
        )
    return Keys(
        cluster,
        load_authority(data / "authority" / "root", cluster, ""),
        load_authority(data / "keys" / "authority", cluster, founder.name),
        load_authority(data / "authority" / "people", cluster, "people"),
        (data / "keys" / "root.pem").read_bytes(),
    )


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def sign(
    issuer: Authority,
    *names: x509.GeneralName,
    key: Any = None,
    ca: bool = False,
    usage: tuple[x509.ObjectIdentifier, ...] | None = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    begins: datetime.timedelta = -MINUTE,
    ends: datetime.timedelta = 10 * MINUTE,
    issuer_key_id: bytes | None = b"",
    common_name: str = "",
    digest: Any = hashes.SHA256(),
    more: tuple[x509.ExtensionType, ...] = (),
) -> tuple[bytes, bytes]:
    """A certificate as somebody with an authority's key could make it; its chain and key, PEM."""
    own = key or new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    builder = (
        x509.CertificateBuilder(
            issuer.certificate.subject, subject, own.public_key(), x509.random_serial_number()
        )
        .not_valid_before(now() + begins)
        .not_valid_after(now() + ends)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(
            x509.KeyUsage(True, False, False, False, False, ca, ca, False, False),
            critical=True,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    if issuer_key_id is not None:
        identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        key_id = issuer_key_id or identifier.digest
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(key_id, None, None), critical=False)
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    leaf = builder.sign(issuer.key, digest)
    private = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return to_pem(leaf, issuer.certificate), private


def self_signed(keys: Keys) -> tuple[bytes, bytes]:
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "me")])
    leaf = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now() - MINUTE)
        .not_valid_after(now() + MINUTE)
        .add_extension(x509.SubjectAlternativeName([URI(keys.uri("admin", "people"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return to_pem(leaf), key_to_pem(key)


def other_root(keys: Keys) -> tuple[bytes, bytes]:
    root = found_root(keys.cluster, new_key(), now_ms=int(now().timestamp() * 1_000))
    people = new_authority(root, "people", now_ms=int(now().timestamp() * 1_000))
    return sign(people, URI(keys.uri("admin", "people")))


def below_a_leaf(keys: Keys) -> tuple[bytes, bytes]:
    """A pilot's certificate that calls itself an authority, and another pilot's below it."""
    key = new_key()
    chain, _ = sign(keys.site, URI(keys.uri("pilot/p")), key=key, ca=True)
    middle = Authority(keys.cluster, keys.site.scope, x509.load_pem_x509_certificate(chain), key)
    below, own = sign(middle, URI(keys.uri("pilot/q")), issuer_key_id=None)
    return below + to_pem(keys.site.certificate), own


def wrong_certificates(keys: Keys) -> dict[str, Callable[[], tuple[bytes, bytes]]]:
    """Each made only when it is needed; all but a few are signed by a true authority of the cluster."""
    person, pilot = URI(keys.uri("admin", "people")), URI(keys.uri("pilot/p-1"))
    people, site = keys.people, keys.site
    server = (ExtendedKeyUsageOID.SERVER_AUTH,)
    day = 1_440 * MINUTE
    return {
        "expired": lambda: sign(people, person, begins=-2 * day, ends=-day),
        "not valid yet": lambda: sign(people, person, begins=day, ends=2 * day),
        "for servers": lambda: sign(people, person, usage=server),
        "for clients and servers": lambda: sign(
            people, person, usage=(ExtendedKeyUsageOID.CLIENT_AUTH, *server)
        ),
        "for any use": lambda: sign(people, person, usage=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
        "for signing code": lambda: sign(people, person, usage=(ExtendedKeyUsageOID.CODE_SIGNING,)),
        "for no use": lambda: sign(people, person, usage=None),
        "a leaf that is an authority": lambda: sign(people, person, ca=True),
        "without its issuer's key": lambda: sign(people, person, issuer_key_id=None),
        "with another issuer's key": lambda: sign(people, person, issuer_key_id=b"x" * 20),
        "with a short issuer's key": lambda: sign(people, person, issuer_key_id=b"x"),
        "self-signed": lambda: self_signed(keys),
        "of another root": lambda: other_root(keys),
        "of the root itself": lambda: sign(keys.root, person),
        "a person by a site": lambda: sign(site, person),
        "a node by the people's authority": lambda: sign(people, URI(keys.uri("node/n"))),
        "another site's pilot by a site": lambda: sign(site, URI(keys.uri("pilot/p", "elsewhere"))),
        "another cluster's person": lambda: sign(people, URI("iceprod://people.other/admin")),
        "two identities": lambda: sign(people, person, URI(keys.uri("bob", "people"))),
        "an identity twice": lambda: sign(people, person, person),
        "an identity and an address": lambda: sign(
            people, person, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        ),
        "an identity and mail": lambda: sign(people, person, x509.RFC822Name("a@b.example")),
        "an identity and a server's name": lambda: sign(people, person, DNS(f"x.people.{keys.cluster}")),
        "an identity and any server's name": lambda: sign(people, person, DNS(f"*.people.{keys.cluster}")),
        "no identity": lambda: sign(people, common_name="admin"),
        "an identity in the common name": lambda: sign(people, common_name=keys.uri("admin", "people")),
        "a web address": lambda: sign(people, URI("https://people.example/admin")),
        "capitals": lambda: sign(people, URI(keys.uri("admin", "PEOPLE"))),
        "an encoded letter": lambda: sign(people, URI(keys.uri("%61dmin", "people"))),
        "a port": lambda: sign(people, URI(f"iceprod://people.{keys.cluster}:1/admin")),
        "a name before the host": lambda: sign(people, URI(f"iceprod://root@people.{keys.cluster}/admin")),
        "a dot at the end": lambda: sign(people, URI(f"iceprod://people.{keys.cluster}./admin")),
        "a path upwards": lambda: sign(people, URI(keys.uri("../admin", "people"))),
        "a query": lambda: sign(people, URI(keys.uri("admin?x", "people"))),
        "a NUL": lambda: sign(people, URI(keys.uri("admin\0.evil", "people"))),
        "a line break": lambda: sign(people, URI(keys.uri("admin\nrole=administrator", "people"))),
        "an escape": lambda: sign(people, URI(keys.uri("admin\x1b[2J", "people"))),
        "too long": lambda: sign(people, URI(keys.uri("a" * 5_000, "people"))),
        "a key of RSA": lambda: sign(people, person, key=rsa.generate_private_key(65_537, 2_048)),
        "a small key of RSA": lambda: sign(people, person, key=rsa.generate_private_key(65_537, 1_024)),
        "a key of P-384": lambda: sign(people, person, key=ec.generate_private_key(ec.SECP384R1())),
        "a key of P-521": lambda: sign(people, person, key=ec.generate_private_key(ec.SECP521R1())),
        "a key of Ed25519": lambda: sign(people, person, key=ed25519.Ed25519PrivateKey.generate()),
        "signed over SHA-512": lambda: sign(people, person, digest=hashes.SHA512()),
        "a hundred thousand bytes": lambda: sign(
            people,
            person,
            more=(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9.9"), bytes(100_000)),),
        ),
        "twelve thousand bytes": lambda: sign(
            people,
            person,
            more=(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9.9"), bytes(12_000)),),
        ),
        "an unknown critical word": lambda: critical(people, person),
        "below a leaf": lambda: below_a_leaf(keys),
        "a pilot at a person's door": lambda: sign(site, pilot),
        "a node at a person's door": lambda: sign(
            site,
            URI(keys.uri("node/n-9")),
            DNS(node_server_name("n-9", site=site.scope, cluster=keys.cluster)),
            usage=(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
        ),
        "a person without a role": lambda: sign(people, URI(keys.uri("mallory", "people"))),
    }


def critical(issuer: Authority, name: x509.GeneralName) -> tuple[bytes, bytes]:
    key = new_key()
    leaf = (
        x509.CertificateBuilder(issuer.certificate.subject, x509.Name([]), key.public_key(), 1)
        .not_valid_before(now() - MINUTE)
        .not_valid_after(now() + MINUTE)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9.9"), b"x"), critical=True)
        .sign(issuer.key, hashes.SHA256())
    )
    return to_pem(leaf, issuer.certificate), key_to_pem(key)


def refusal(scene: Scene, tls: TlsMaterial, call: Callable[[grpc.Channel], Any]) -> IceProdError | None:
    """What a caller with this material is told; None when it is served."""
    with blocking_channel(scene.node.address, tls, server_name=scene.node.server_name) as channel:
        try:
            call(channel)
        except grpc.RpcError as failure:
            return from_rpc_error(failure)  # type: ignore[arg-type]
    return None


def list_datasets(channel: grpc.Channel) -> None:
    control_pb2_grpc.ControlStub(channel).ListDatasets(control_pb2.ListDatasetsRequest(), timeout=20)


def test_a_certificate_of_any_wrong_kind_opens_nothing(scene: Scene, keys: Keys) -> None:
    found: dict[str, str] = {}
    with unmoved(scene):
        good = keys.tls(*sign(keys.people, URI(keys.uri("admin", "people"))))
        who = control_pb2_grpc.ControlStub
        assert refusal(scene, good, lambda c: who(c).WhoAmI(control_pb2.WhoAmIRequest(), timeout=20)) is None
        for name, make in wrong_certificates(keys).items():
            try:
                chain, key = make()
            except (
                ValueError,
                TypeError,
            ):  # The library makes no such thing; then neither does a caller by it.
                continue
            told = refusal(scene, keys.tls(chain, key), list_datasets)
            if not isinstance(told, NotAllowed | Unavailable):
                found[name] = f"{type(told).__name__}: {told}"
            elif len(str(told)) > 2_000 or not str(told).replace("\n", " ").isprintable():
                found[name] = f"said badly: {str(told)[:300]!r}"
    assert not found, found


def test_right_certificates_at_wrong_doors_open_nothing(scene: Scene, keys: Keys) -> None:
    """Pilots and people at the nodes' door, nodes and people at the pilots', without any certificate at each."""
    now_ms = int(now().timestamp() * 1_000)
    pilot = keys.tls(*issued(keys.site, IdentityKind.PILOT, "p-9", now_ms=now_ms))
    node = keys.tls(*issued(keys.site, IdentityKind.NODE, "n-9", now_ms=now_ms))
    person = scene.context.tls
    nobody = replace(person, certificate_chain_pem=b"", private_key_pem=b"")
    frame = peer_pb2.Frame(body=raft.encode(raft.Heartbeat(1 << 40, 0, 1)))
    nodes: dict[str, Callable[[grpc.Channel], Any]] = {
        "Link": lambda c: list(peer_pb2_grpc.PeerStub(c).Link(iter([frame]), timeout=20)),
        "GetMember": lambda c: peer_pb2_grpc.PeerStub(c).GetMember(peer_pb2.GetMemberRequest(), timeout=20),
        "HasBlobs": lambda c: peer_pb2_grpc.PeerStub(c).HasBlobs(peer_pb2.HasBlobsRequest(), timeout=20),
        "GetBlob": lambda c: list(
            peer_pb2_grpc.PeerStub(c).GetBlob(common_pb2.BlobRequest(sha256="0" * 64), timeout=20)
        ),
        "PutBlob": lambda c: peer_pb2_grpc.PeerStub(c).PutBlob(iter([common_pb2.PutBlobPart()]), timeout=20),
        "VerifyCopies": lambda c: list(
            peer_pb2_grpc.PeerStub(c).VerifyCopies(control_pb2.VerifyFilesRequest(dataset="1"), timeout=20)
        ),
    }
    pilots: dict[str, Callable[[grpc.Channel], Any]] = {
        "Exchange": lambda c: pilot_pb2_grpc.PilotsStub(c).Exchange(pilot_pb2.ExchangeRequest(), timeout=20),
        "Renew": lambda c: pilot_pb2_grpc.PilotsStub(c).Renew(pilot_pb2.RenewRequest(), timeout=20),
        "CallSite": lambda c: pilot_pb2_grpc.PilotsStub(c).CallSite(pilot_pb2.SiteCall(), timeout=20),
    }
    found = []
    with unmoved(scene):
        for who, tls, doors in (
            ("pilot", pilot, nodes),
            ("person", person, nodes),
            ("nobody", nobody, {**nodes, **pilots}),
            ("node", node, pilots),
            ("person", person, pilots),
        ):
            for name, call in doors.items():
                told = refusal(scene, tls, call)
                if not isinstance(told, NotAllowed | Unavailable):
                    found.append(f"{who} at {name}: {told!r}")
    assert not found, found


def test_a_node_that_is_no_member_speaks_to_nobody(scene: Scene, keys: Keys) -> None:
    """Its site's authority made its certificate: the handshake succeeds.  It claims all that a leader may."""
    now_ms = int(now().timestamp() * 1_000)
    tls = keys.tls(*issued(keys.site, IdentityKind.NODE, "stranger", now_ms=now_ms))
    term = scene.status().term
    claims: list[Any] = []
    for ahead in (0, 1, 1_000, (1 << 62) - term):
        claims += [
            raft.Heartbeat(term + ahead, 1 << 62, 1),
            raft.Append(term + ahead, 0, 0, bytes(16), 1 << 62, [(term, b"\x00x")]),
            raft.VoteRequest(term + ahead, 1 << 62, term + ahead, 1 << 62, False, True),
            raft.AppendReply(term + ahead, False, 1, 1),
            raft.SnapshotOffer(term + ahead, bytes(16), 1 << 62, term, bytes(16)),
        ]
    deep = b"\x94\xc4\x10" + bytes(16) + b"\x00\xa1x" + b"\x91" * 40_000 + b"\xc0"
    claims += [
        raft.HandOver(""),
        raft.HelloRefused(1, "go"),
        raft.StateDiffers(1, b"x"),
        raft.Forward([(bytes(16), deep, True)]),
        raft.SnapshotPull(bytes(16), 0, b""),
    ]
    frames = [raft.encode(claim) for claim in claims]
    bodies = [
        raft.encode(frames),  # A message on a link is an array of frames.
        raft.encode([b"\xc1" * 10, b"", b"\x93\x12\x01\xa2\xff\xfe", b"\x91" * 200_000]),
        raft.encode([b""] * 100_000),
        b"\xc1",
        b"\x91" * 1_000_000,
        b"\xdd\xff\xff\xff\xff",
        raft.encode([b"x" * (3 << 20)]),
        raft.encode({"a": 1}),
        raft.encode(["text"]),
        b"",
    ]
    with unmoved(scene) as others_are_served:
        for body in bodies:

            def say(channel: grpc.Channel, body: bytes = body) -> None:
                messages = [peer_pb2.Frame(body=raft.encode([])), *[peer_pb2.Frame(body=body)] * 3]
                call = peer_pb2_grpc.PeerStub(channel).Link(iter(messages), timeout=3)
                for number, _ in enumerate(call):
                    if number > 3:
                        call.cancel()

            refusal(scene, tls, say)
        others_are_served()
