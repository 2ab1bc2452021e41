"""A founder's keys: what is written is read back, and wrong or open files are refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.model.identity import IdentityKind
from iceprod_p2p.security.certificates import certificate_key, chain_from_pem, to_der
from iceprod_p2p.security.trust import Trust, read_issuer
from iceprod_p2p.site import node_keys

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def found(data_dir: Path) -> node_keys.NodeKeys:
    keys, signing_key = node_keys.found_keys(
        cluster="ice", site="madison", node_id="madison-1", now_ms=NOW_MS
    )
    node_keys.save_keys(data_dir, keys, signing_key)
    return keys


def load(data_dir: Path, *, site: str = "madison") -> node_keys.NodeKeys:
    return node_keys.load_keys(data_dir, cluster="ice", site=site, node_id="madison-1")


def test_what_a_founder_wrote_is_read_back_and_belongs_together(tmp_path: Path) -> None:
    keys = found(tmp_path / "data")
    again = load(tmp_path / "data")
    assert again.tls == keys.tls
    assert again.signer.public_key == keys.signer.public_key
    assert again.root is not None and again.people is not None
    roots = chain_from_pem(again.root_pem)
    issuer = read_issuer(to_der(again.authority.certificate), scope="madison", cluster="ice")
    identity = Trust.of("ice", roots, [issuer]).verify_chain(again.node_chain_pem, now_ms=NOW_MS)
    assert (identity.kind, identity.name, identity.site) == (IdentityKind.NODE, "madison-1", "madison")


def test_a_new_administrators_chain_is_of_the_cluster(tmp_path: Path) -> None:
    keys = found(tmp_path / "data")
    assert keys.people is not None
    chain, _ = node_keys.issue_person(keys.people, "ada", now_ms=NOW_MS, lifetime_ms=DAY_MS)
    identity = Trust.of("ice", chain_from_pem(keys.root_pem), []).verify_chain(chain, now_ms=NOW_MS)
    assert identity.actor == "person:ada"


def test_every_key_is_readable_by_its_owner_alone_and_an_open_one_is_refused(tmp_path: Path) -> None:
    found(tmp_path / "data")
    for path in (tmp_path / "data").rglob("*.key"):
        assert path.stat().st_mode & 0o077 == 0
    os.chmod(tmp_path / "data/keys/node.key", 0o644)
    with pytest.raises(ConfigError, match="others may read it"):
        load(tmp_path / "data")


def test_a_directory_without_keys_or_of_another_node_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to no cluster yet"):
        load(tmp_path / "none")
    found(tmp_path / "data")
    with pytest.raises(ConfigError, match="is the certificate of iceprod://madison"):
        load(tmp_path / "data", site="geneva")


def test_a_certificate_is_renewed_at_half_of_its_life_with_the_same_key(tmp_path: Path) -> None:
    keys = found(tmp_path / "data")
    assert keys.renewed(now_ms=NOW_MS + 30 * DAY_MS) is keys
    renewed = keys.renewed(now_ms=NOW_MS + 50 * DAY_MS)
    assert renewed.node_chain_pem != keys.node_chain_pem
    assert certificate_key(renewed.certificate) == certificate_key(keys.certificate)
