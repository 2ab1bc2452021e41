"""Contexts: written, read, chosen and checked before they are shown to anybody."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import ConfigError, NotAllowed, NotFound
from iceprod_p2p.client import contexts
from iceprod_p2p.client.contexts import Context, NodeEntry
from iceprod_p2p.site.node_keys import found_keys, issue_person
from iceprod_p2p.wire.channel import TlsMaterial

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
NODE = NodeEntry("madison-1", "madison", "127.0.0.1:4410", "madison-1.madison.demo")


def material(*, began_ms: int = NOW_MS, lifetime_ms: int = DAY_MS) -> TlsMaterial:
    """The identity of a person of a cluster that was founded a moment before."""
    keys, _ = found_keys(cluster="demo", site="madison", node_id="madison-1", now_ms=began_ms)
    assert keys.people is not None
    chain, key = issue_person(keys.people, "ada", now_ms=began_ms, lifetime_ms=lifetime_ms)
    return TlsMaterial(chain, key, keys.root_pem)


def context(tls: TlsMaterial) -> Context:
    return Context("work", Path("/contexts/work"), "demo", "ada", (NODE,), tls)


def written(directory: Path, tls: TlsMaterial) -> Path:
    contexts.write_context(
        directory,
        cluster="demo",
        person="ada",
        nodes=[NODE],
        certificate_chain_pem=tls.certificate_chain_pem,
        private_key_pem=tls.private_key_pem,
        root_pem=tls.root_pem,
    )
    return directory


@pytest.fixture(scope="module")
def tls() -> TlsMaterial:
    return material()


def test_an_identity_in_order_passes(tls: TlsMaterial) -> None:
    contexts.check_identity(context(tls), now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("at_ms", "words"), [(NOW_MS + 2 * DAY_MS, "expired"), (NOW_MS - DAY_MS, "not valid yet")]
)
def test_a_certificate_out_of_date_is_named(tls: TlsMaterial, at_ms: int, words: str) -> None:
    with pytest.raises(NotAllowed, match=words) as caught:
        contexts.check_identity(context(tls), now_ms=at_ms)
    assert "/contexts/work" in caught.value.message and caught.value.remedy


def test_a_key_of_somebody_else_is_named(tls: TlsMaterial) -> None:
    mixed = replace(tls, private_key_pem=material().private_key_pem)
    with pytest.raises(ConfigError, match="are not a pair"):
        contexts.check_identity(context(mixed), now_ms=NOW_MS)


def test_a_certificate_of_another_cluster_is_named(tls: TlsMaterial) -> None:
    with pytest.raises(NotAllowed, match="is not one of cluster demo"):
        contexts.check_identity(context(replace(tls, root_pem=material().root_pem)), now_ms=NOW_MS)


@pytest.mark.parametrize("part", ["certificate_chain_pem", "private_key_pem", "root_pem"])
def test_an_unreadable_part_is_named(tls: TlsMaterial, part: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        contexts.check_identity(context(replace(tls, **{part: b"-----BEGIN NOTHING-----"})), now_ms=NOW_MS)


def test_a_context_is_written_for_its_owner_and_read_back(tls: TlsMaterial, tmp_path: Path) -> None:
    directory = written(tmp_path / "made", tls)
    read = contexts.load_context(f"{directory}/")
    assert (read.cluster, read.person, read.nodes, read.tls) == ("demo", "ada", (NODE,), tls)
    assert (directory / contexts.KEY_FILE).stat().st_mode & 0o077 == 0
    assert directory.stat().st_mode & 0o077 == 0


def test_programs_of_one_person_may_note_nodes_at_once(tls: TlsMaterial, tmp_path: Path) -> None:
    directory = tmp_path / "work"
    lists = [[replace(NODE, node_id=f"madison-{number}")] * (1 + 40 * number) for number in range(4)]

    def note(nodes: list[NodeEntry]) -> None:
        for _ in range(6):
            contexts.save_nodes(directory, cluster="demo", person="ada", nodes=nodes)

    written(directory, tls)
    with ThreadPoolExecutor(len(lists)) as pool:
        list(pool.map(note, lists))
    assert list(contexts.load_context(f"{directory}/").nodes) in lists
    assert len(list(directory.iterdir())) == 4, "nothing else is left"


def test_a_directory_that_cannot_be_written_is_one_error(tls: TlsMaterial, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the context") as caught:
        written(tmp_path / "file" / "below", tls)
    assert caught.value.remedy


def test_imported_contexts_are_named_after_their_cluster_and_the_first_is_used(
    tls: TlsMaterial, tmp_path: Path
) -> None:
    environ = {"ICEPROD_CONFIG": str(tmp_path / "config")}
    made = written(tmp_path / "made", tls)
    assert contexts.import_context(made, environ=environ) == "demo"
    assert contexts.import_context(made, "other", environ=environ) == "other"
    assert contexts.context_names(environ) == ["demo", "other"]
    assert contexts.load_context(environ=environ).name == "demo"
    contexts.use_context("other", environ=environ)
    assert contexts.load_context(environ=environ).name == "other"
    assert contexts.load_context("demo", environ=environ).name == "demo"
    contexts.remove_context("other", environ=environ)
    with pytest.raises(NotFound, match="no context"):
        contexts.load_context(environ=environ)


@pytest.mark.parametrize("name", ["../outside", "a/b", "x" * 64, ".hidden"])
def test_a_context_cannot_be_called_anything(tls: TlsMaterial, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a context"):
        contexts.import_context(
            written(tmp_path / "made", tls), name, environ={"ICEPROD_CONFIG": str(tmp_path / "config")}
        )
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"nodes": [{}]}', b"\xff", b" " * (2 << 20)])
def test_a_damaged_context_is_one_error_with_its_directory(
    tls: TlsMaterial, tmp_path: Path, text: bytes
) -> None:
    directory = written(tmp_path / "made", tls)
    (directory / contexts.CONTEXT_FILE).write_bytes(text)
    with pytest.raises(ConfigError, match=str(directory)):
        contexts.load_context(f"{directory}/")
