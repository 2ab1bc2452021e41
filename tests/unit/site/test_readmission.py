"""Who may take the place of a lost node: its own site, by its authority's key, and only while the old one is silent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed, Refused
from iceprod_p2p.ledger import queries, versions
from iceprod_p2p.ledger.commands import AddNode, ControlSite, Invite, RemoveMember, SiteVerb
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import PrivateKey, new_key, to_der
from iceprod_p2p.security.enrolment import sign_readmission
from iceprod_p2p.site.node_keys import found_keys, issue_node, new_authority
from iceprod_p2p.site.readmission import words_of
from iceprod_p2p.wire.pb import enrol_pb2
from tests.unit.site.one_ledger import CLUSTER
from tests.unit.site.test_enrolment_and_access import NOW_MS, Door


class Geneva(Door):
    """A founder, and beside it the node geneva-1 of another site."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.geneva = self.authority("geneva")
        self.ledger.must(Invite(bytes(32), "geneva"))
        member = Member("geneva-1", "geneva", "127.0.0.1:1", MemberRole.OBSERVER)
        certificate = to_der(self.geneva.certificate)
        node = AddNode(member, certificate, bytes(32), "geneva-1", bytes(32), bytes(32))
        self.ledger.must(msgspec.structs.replace(node, version_most=versions.VERSION_MOST))

    def authority(self, site: str) -> Authority:
        """An authority that the cluster's root made."""
        assert self.keys.root is not None
        return new_authority(self.keys.root, site, now_ms=NOW_MS)

    def asked(
        self, new: str = "geneva-2", old: str = "geneva-1", *, authority: Authority | None = None
    ) -> tuple[enrol_pb2.ReadmitRequest, PrivateKey]:
        """What a new node asks, signed, and its key."""
        key = new_key()
        request = enrol_pb2.ReadmitRequest(
            site=(authority or self.geneva).scope,
            node_id=new,
            replaces=old,
            address="127.0.0.1:4410",
            enrol_address="127.0.0.1:4411",
            node_chain_pem=issue_node(authority or self.geneva, key, new, now_ms=NOW_MS),
            passkey_key_id=new,
            passkey_public_key=bytes(32),
            version_most=versions.VERSION_MOST,
        )
        request.signature = sign_readmission(key, cluster=CLUSTER, words=words_of(request))
        return request, key

    def ask(self, request: enrol_pb2.ReadmitRequest) -> enrol_pb2.JoinReply:
        """Ask at the founder's."""
        return asyncio.run(self.enrol.Readmit(request, None))

    def members(self) -> set[str]:
        """Who is a member now."""
        return {member.node_id for member in queries.members(self.ledger.kv)}


@pytest.fixture
def door(tmp_path: Path) -> Geneva:
    return Geneva(tmp_path)


def test_a_site_replaces_its_silent_node_and_may_repeat_that(door: Geneva) -> None:
    request, _ = door.asked()
    for _ in range(2):
        reply = door.ask(request)
        assert reply.cluster == CLUSTER and {node.node_id for node in reply.nodes} == door.members()
    assert door.members() == {"madison-1", "geneva-2"}
    assert set(queries.passkey_keys(door.ledger.kv)) >= {"geneva-1", "geneva-2"}, "old passkeys hold"


def test_a_new_authority_of_the_root_is_believed_although_the_ledger_does_not_list_it(door: Geneva) -> None:
    request, _ = door.asked(authority=door.authority("geneva"))
    door.ask(request)
    assert "geneva-2" in door.members()


def test_a_node_that_answers_is_not_pushed_out(door: Geneva) -> None:
    door.answering.add("geneva-1")
    with pytest.raises(NotAllowed, match="answers and takes part"):
        door.ask(door.asked()[0])
    assert "geneva-1" in door.members()


class Late(set[str]):
    """Nodes that answer only when they are asked a second time."""

    asked = 0

    def __contains__(self, node_id: object) -> bool:
        self.asked += 1
        return self.asked > 1


def test_a_node_that_was_silent_for_a_moment_is_not_pushed_out(door: Geneva) -> None:
    door.answering = Late()
    with pytest.raises(NotAllowed, match="answers and takes part"):
        door.ask(door.asked()[0])
    assert "geneva-1" in door.members()


def test_another_site_another_cluster_and_another_signature_are_refused(door: Geneva) -> None:
    other = found_keys(cluster=CLUSTER, site="geneva", node_id="x", now_ms=NOW_MS)[0]
    assert other.root is not None
    requests: list[tuple[enrol_pb2.ReadmitRequest, type[IceProdError], str]] = [
        (door.asked(authority=door.authority("uppsala"))[0], Refused, "belongs to geneva"),
        (door.asked(authority=other.authority)[0], NotAllowed, "not made by this cluster's root"),
    ]
    changed, _ = door.asked()
    changed.address = "127.0.0.1:9999"
    requests.append((changed, NotAllowed, "not signed with the key"))
    stolen, _ = door.asked()
    stolen.node_id, stolen.passkey_key_id = "geneva-3", "geneva-3"
    requests.append((stolen, NotAllowed, "not"))
    posing, key = door.asked()
    posing.site = "madison"
    posing.signature = sign_readmission(key, cluster=CLUSTER, words=words_of(posing))
    requests.append((posing, NotAllowed, "not limited to madison"))
    for request, error, words in requests:
        with pytest.raises(error, match=words):
            door.ask(request)
    assert door.members() == {"madison-1", "geneva-1"}


def test_malformed_requests_are_refused_by_name(door: Geneva) -> None:
    for field, value in (
        ("site", "No Site"),
        ("replaces", "a b"),
        ("address", "nowhere"),
        ("passkey_public_key", b"short"),
        ("node_chain_pem", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"),
        ("node_chain_pem", b"x" * 100_000),
    ):
        request, _ = door.asked()
        setattr(request, field, value)
        with pytest.raises((BadInput, NotAllowed)):
            door.ask(request)


def test_banned_sites_and_nodes_removed_by_an_administrator_stay_out(door: Geneva) -> None:
    door.ledger.must(ControlSite("geneva", SiteVerb.BAN, "trouble"))
    with pytest.raises(IceProdError, match="banned"):
        door.ask(door.asked()[0])
    door.ledger.must(ControlSite("geneva", SiteVerb.RESUME, ""))
    door.ledger.must(RemoveMember("geneva-1"))
    with pytest.raises(NotAllowed, match="an administrator must invite its site again"):
        door.ask(door.asked()[0])
    assert door.members() == {"madison-1"}
