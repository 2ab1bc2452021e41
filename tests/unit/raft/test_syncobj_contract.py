"""PySyncObj's private names that we stand on: a new version that moves one is named here, not found in production."""

from __future__ import annotations

import ast
import random
import socket
from pathlib import Path

import pysyncobj
import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.version
import pytest
from pysyncobj.node import Node

from iceprod_p2p.raft import syncobj
from iceprod_p2p.raft.journal import Journal
from iceprod_p2p.raft.settings import RaftSettings
from tests.unit.raft.fakes import MemoryStore

ROOT = Path(syncobj.__file__).parents[1]


@pytest.fixture(scope="module")
def stock() -> pysyncobj.SyncObj:
    return pysyncobj.SyncObj(Node("a"), [], pysyncobj.SyncObjConf(autoTick=False), transport=syncobj._Seam())


def test_the_version_is_the_one_that_was_read() -> None:
    assert pysyncobj.version.VERSION == syncobj.VERSION


@pytest.mark.parametrize("name", syncobj.PRIVATE_ATTRIBUTES)
def test_private_attribute_is_where_it_was(name: str, stock: pysyncobj.SyncObj) -> None:
    assert name in vars(stock), f"PySyncObj has moved {name}"


@pytest.mark.parametrize("name", syncobj.PRIVATE_METHODS)
def test_private_method_is_where_it_was(name: str) -> None:
    assert callable(getattr(pysyncobj.SyncObj, name, None)), f"PySyncObj has moved {name}"


def test_the_queue_of_commands_is_where_it_was(stock: pysyncobj.SyncObj) -> None:
    assert len(stock._SyncObj__commandsQueue._FastQueue__queue) == 0


def test_every_private_name_in_use_is_listed() -> None:
    source = Path(syncobj.__file__).read_text()
    used = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_SyncObj__")
    }
    used |= {
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("_SyncObj__")
    }
    assert used <= set(syncobj.PRIVATE_ATTRIBUTES) | set(syncobj.PRIVATE_METHODS)


def test_no_other_file_knows_a_private_name() -> None:
    for path in ROOT.rglob("*.py"):
        if path != Path(syncobj.__file__):
            assert "_SyncObj__" not in path.read_text(), f"{path} reaches into PySyncObj"


def test_private_methods_of_the_engine_are_overridden_by_ours() -> None:
    for name in ("_onTick", "_SyncObj__onMessageReceived", "_SyncObj__sendAppendEntries"):
        assert getattr(syncobj.SafeSyncObj, name) is not getattr(pysyncobj.SyncObj, name)


def test_pickle_is_replaced_by_a_codec_that_knows_nodes_and_plain_data() -> None:
    packed = pysyncobj.pickle.dumps(["add", "a", Node("a")])
    assert pysyncobj.pickle.loads(packed) == ["add", "a", Node("a")]
    assert pysyncobj.journal.loads is pysyncobj.pickle.loads is syncobj.plain_loads
    with pytest.raises(TypeError, match="never pickled"):
        pysyncobj.pickle.dumps(object())
    with pytest.raises(Exception, match="MessagePack"):
        pysyncobj.pickle.loads(b"cos\nsystem\n(S'true'\ntR.")


def test_stock_dump_files_are_refused() -> None:
    with pytest.raises(AssertionError, match="store does"):
        pysyncobj.pickle.load(None)


class NoRules:
    def __getattr__(self, name: str) -> object:
        return lambda *_: None


def test_nothing_of_the_constructor_s_own_journal_is_left() -> None:
    store = MemoryStore()
    with store.read() as snapshot:
        journal = Journal(snapshot, cache_bytes=1_000)
    core = syncobj.SafeSyncObj("a", journal, NoRules(), settings=RaftSettings(), random=random.Random(1))
    assert (core.term, core.vote, core.commit, core.applied, len(journal)) == (0, None, 0, 0, 1)
    assert core.role is syncobj.Role.FOLLOWER


def test_stock_sending_past_the_rules_is_refused() -> None:
    with pytest.raises(AssertionError, match="past the engine's rules"):
        syncobj._Seam().send(Node("b"), {"type": "append_entries"})


def test_addresses_can_be_printed_after_pysyncobj_was_imported() -> None:
    assert socket.inet_ntop(socket.AF_INET, b"\x7f\0\0\1") == "127.0.0.1"
    assert socket.inet_ntop(socket.AF_INET6, bytes(15) + b"\1") == "::1"
