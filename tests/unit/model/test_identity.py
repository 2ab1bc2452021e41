"""The grammar of identities: what is written is read back, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.model.identity import (
    IdentityKind,
    identity_from_names,
    identity_uri,
    is_host_label,
    node_server_name,
    parse_identity_uri,
)

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}", fullmatch=True)


@given(kind=st.sampled_from(["node", "pilot"]), site=LABELS, cluster=LABELS, name=LABELS)
def test_what_is_written_is_read_back(kind: str, site: str, cluster: str, name: str) -> None:
    if site == "people":
        return
    uri = identity_uri(IdentityKind(kind), name, site=site, cluster=cluster)
    identity = parse_identity_uri(uri)
    assert (identity.kind, identity.name, identity.site, identity.cluster) == (kind, name, site, cluster)
    assert identity.uri == uri


@given(name=NAMES, cluster=LABELS)
def test_people_are_read_back(name: str, cluster: str) -> None:
    identity = parse_identity_uri(identity_uri(IdentityKind.PERSON, name, site="", cluster=cluster))
    assert (identity.kind, identity.name, identity.site, identity.cluster) == ("person", name, "", cluster)
    assert identity.actor == f"person:{name}"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "iceprod://",
        "iceprod:///node/n",
        "iceprod://madison/node/n",
        "iceprod://madison.icecube",
        "iceprod://madison.icecube/",
        "iceprod://madison.icecube/node",
        "iceprod://madison.icecube/node/",
        "iceprod://madison.icecube/node/n/",
        "iceprod://madison.icecube/node/n/m",
        "iceprod://madison.icecube//node/n",
        "iceprod://madison.icecube/root/n",
        "iceprod://madison.icecube/person/ada",
        "iceprod://madison.icecube/Node/n",
        "iceprod://Madison.icecube/node/n",
        "iceprod://madison.icecube:443/node/n",
        "iceprod://x@madison.icecube/node/n",
        "iceprod://madison.icecube/node/n?x=1",
        "iceprod://madison.icecube/node/n#x",
        "iceprod://madison.icecube/node/%6e",
        "iceprod://madison.icecube/node/n\n",
        "iceprod://madison.icecube/node/../x",
        "iceprod://madison.sub.icecube/node/n",
        "iceprod://mad_ison.icecube/node/n",
        "iceprod://-madison.icecube/node/n",
        "iceprod://madіson.icecube/node/n",  # A Cyrillic letter.
        "iceprod://people.icecube/node/n",
        "iceprod://people.icecube/pilot/p",
        "iceprod://people.icecube/",
        "iceprod://people.icecube/.hidden",
        "http://madison.icecube/node/n",
        "ICEPROD://madison.icecube/node/n",
        "iceprod://madison.icecube/node/" + "n" * 64,
        "iceprod://madison.icecube/node/" + "n" * 10_000,
    ],
)
def test_anything_else_is_refused(uri: str) -> None:
    with pytest.raises(ValueError):
        parse_identity_uri(uri)


def test_names_that_tls_libraries_confuse_are_no_host_labels() -> None:
    assert is_host_label("madison-2")
    for name in ("Madison", "mad_ison", "madison.", "-m", "m-", "", "m" * 64, "ma dison", "1.2"):
        assert not is_host_label(name), name


def test_a_node_carries_its_server_name_and_nobody_else_does() -> None:
    node = ["iceprod://madison.icecube/node/n1"]
    name = node_server_name("n1", site="madison", cluster="icecube")
    assert name == "n1.madison.icecube"
    assert identity_from_names(node, [name]).actor == "node:n1"
    pilot = ["iceprod://madison.icecube/pilot/p1"]
    assert identity_from_names(pilot, []).actor == "pilot:madison/p1"
    for uris, dns, others in [
        (node, [], 0),
        (node, [name, name], 0),
        (node, ["n2.madison.icecube"], 0),
        (node, [name], 1),
        (pilot, ["p1.madison.icecube"], 0),
        (node + pilot, [name], 0),
        ([], [name], 0),
    ]:
        with pytest.raises(ValueError):
            identity_from_names(uris, dns, other_names=others)


def test_impossible_parts_are_named() -> None:
    for kind, name, site, cluster, word in [
        (IdentityKind.NODE, "n", "people", "c", "reserved"),
        (IdentityKind.NODE, "n", "s", "C", "cluster"),
        (IdentityKind.NODE, "n_1", "s", "c", "cannot name a node"),
        (IdentityKind.PERSON, "ada", "s", "c", "belongs to no site"),
        (IdentityKind.PERSON, "a/b", "", "c", "cannot name a person"),
    ]:
        with pytest.raises(ValueError, match=word):
            identity_uri(kind, name, site=site, cluster=cluster)
