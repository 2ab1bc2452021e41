"""Layers over pages: every reader sees its own version, whatever is written, aborted or settled meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from iceprod_p2p.store import layers
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.store.errors import StoreError
from iceprod_p2p.store.layers import Layer, LayeredTable, WritableTable
from iceprod_p2p.store.memory_tables import MemoryTables

KEYS = st.binary(min_size=1, max_size=3).map(lambda key: bytes(byte % 4 for byte in key))
VALUES = st.binary(max_size=4)


def pairs(table: Any, start: bytes = b"", stop: bytes = b"\xff" * 4, *, reverse: bool = False) -> list[Any]:
    return list(table.scan(start, stop, reverse=reverse))


def within(known: dict[bytes, bytes], start: bytes, stop: bytes) -> list[tuple[bytes, bytes]]:
    return sorted(pair for pair in known.items() if start <= pair[0] < stop)


class Layers(RuleBasedStateMachine):
    """A store with readers of several ages, beside plain dictionaries."""

    directory: Path
    number = 0

    @initialize()
    def begin(self) -> None:
        type(self).number += 1
        self.path = self.directory / str(self.number)
        self.environment = Environment(self.path, sync=False, turn_bytes=400, map_size_bytes=1 << 22)
        self.now: dict[bytes, bytes] = {}
        self.readers: list[tuple[contextlib.ExitStack, Any, dict[bytes, bytes]]] = []

    @rule(
        writes=st.lists(st.tuples(KEYS, st.none() | VALUES), max_size=8),
        commit=st.sampled_from(["commit", "commit", "abort"]),
        lasting=st.booleans(),
        start=KEYS,
        stop=KEYS,
    )
    def write(
        self,
        writes: list[tuple[bytes, bytes | None]],
        commit: str,
        lasting: bool,
        start: bytes,
        stop: bytes,
    ) -> None:
        transaction, then = self.environment.write(), dict(self.now)
        try:
            self.write_and_look(transaction, then, writes, start, stop)
        except BaseException:
            transaction.abort()  # Or closing the store would wait for it.
            raise
        if commit == "commit":
            transaction.commit(lasting=lasting)
            self.now = then
        else:
            transaction.abort()

    def write_and_look(
        self,
        transaction: Any,
        then: dict[bytes, bytes],
        writes: list[tuple[bytes, bytes | None]],
        start: bytes,
        stop: bytes,
    ) -> None:
        for key, value in writes:
            if value is None:
                transaction.ledger.delete(key)
                then.pop(key, None)
            else:
                transaction.ledger.put(key, value)
                then[key] = value
            assert transaction.ledger.get(key) == value
            assert pairs(transaction.ledger, start, stop) == within(then, start, stop)
        assert pairs(transaction.ledger) == sorted(then.items())

    @rule()
    def open_a_reader(self) -> None:
        stack = contextlib.ExitStack()
        self.readers.append((stack, stack.enter_context(self.environment.read()), dict(self.now)))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 100))
    def close_a_reader(self, which: int) -> None:
        self.readers.pop(which % len(self.readers))[0].close()

    @rule()
    def checkpoint(self) -> None:
        self.environment.checkpoint()

    @precondition(lambda self: not self.readers)
    @rule()
    def restart(self) -> None:
        self.environment.close()
        self.environment = Environment(self.path, sync=False, turn_bytes=400, map_size_bytes=1 << 22)

    @rule(key=KEYS, stop=KEYS)
    def look(self, key: bytes, stop: bytes) -> None:
        for _, snapshot, known in self.readers:
            assert snapshot.ledger.get(key) == known.get(key)
            expected = within(known, key, stop)
            assert pairs(snapshot.ledger, key, stop) == expected
            assert pairs(snapshot.ledger, key, stop, reverse=True) == expected[::-1]

    @invariant()
    def every_reader_sees_its_own_version(self) -> None:
        for _, snapshot, known in getattr(self, "readers", ()):
            assert pairs(snapshot.ledger) == sorted(known.items())

    def teardown(self) -> None:
        for stack, _, _ in getattr(self, "readers", ()):
            stack.close()
        if hasattr(self, "environment"):
            self.environment.close()


@pytest.mark.parametrize("bound", [1, 16])
def test_readers_of_any_age_see_what_was_committed_when_they_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    monkeypatch.setattr(layers, "HOLE_LEAST", bound)  # So that a few deleted keys make a hole,
    monkeypatch.setattr(layers, "FEW", bound)  # and a few loose ones are sorted at once.

    class Here(Layers):
        directory = tmp_path

    Here.TestCase.settings = settings(
        max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    Here.TestCase().runTest()  # type: ignore[attr-defined]


@pytest.fixture
def layer() -> Iterator[Layer]:
    yield Layer()


def test_a_value_that_no_reader_can_see_is_let_go(layer: Layer) -> None:
    for version in range(1, 100):
        layer.put(b"counter", b"%d" % version, version, oldest=version - 1)
    depth, node = 0, layer.values[b"counter"]
    while node is not None:
        depth, node = depth + 1, node[2]
    assert depth == 2


def test_a_value_that_an_old_reader_sees_is_kept(layer: Layer) -> None:
    layer.put(b"k", b"1", 1, oldest=0)
    old = LayeredTable(layer, None, MemoryTables(), 1)
    for version in range(2, 50):
        layer.put(b"k", b"%d" % version, version, oldest=1)
    assert old.get(b"k") == b"1"
    assert LayeredTable(layer, None, MemoryTables(), 49).get(b"k") == b"49"


def test_a_frozen_layer_lies_between_the_live_one_and_the_pages() -> None:
    pages = MemoryTables({b"a": b"pages", b"b": b"pages", b"c": b"pages", b"d": b"pages"})
    frozen, live = Layer(), Layer()
    frozen.put(b"b", b"frozen", 1, 0)
    frozen.put(b"c", None, 1, 0)
    live.put(b"c", b"live", 2, 1)
    live.put(b"d", None, 2, 1)
    now, before = LayeredTable(live, frozen, pages, 2), LayeredTable(live, frozen, pages, 1)
    assert pairs(now) == [(b"a", b"pages"), (b"b", b"frozen"), (b"c", b"live")]
    assert pairs(before) == [(b"a", b"pages"), (b"b", b"frozen"), (b"d", b"pages")]
    assert pairs(now, reverse=True) == pairs(now)[::-1]


class CountedPages(MemoryTables):
    """Pages that know how many pairs were looked at."""

    looked = 0

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        for pair in super().scan(start, stop, reverse=reverse):
            self.looked += 1
            yield pair


def test_whoever_takes_the_first_of_many_does_not_pass_all_that_it_took_before(layer: Layer) -> None:
    pages = CountedPages({b"q%04d" % number: b"" for number in range(2_000)})
    for version in range(1, 1_000):
        table = WritableTable(layer, None, pages, version, version - 1)
        pages.looked = 0
        taken = [key for key, _ in islice(table.scan(b"q", b"r"), 2)]
        assert taken == [b"q%04d" % (2 * version - 2), b"q%04d" % (2 * version - 1)]
        assert pages.looked < 64
        for key in taken:
            table.delete(key)
    before = LayeredTable(layer, None, pages, 999)
    table = WritableTable(layer, None, pages, 1_000, 999)
    table.put(b"q0007", b"again")
    assert [key for key, _ in islice(table.scan(b"q", b"r"), 2)] == [b"q0007", b"q1998"]
    assert [key for key, _ in before.scan(b"q", b"r")] == [b"q1998", b"q1999"]


def test_a_snapshot_is_only_read_and_keys_have_bounds(layer: Layer) -> None:
    with pytest.raises(StoreError, match="only read"):
        LayeredTable(layer, None, MemoryTables(), 1).put(b"k", b"")
    with pytest.raises(StoreError, match="512 bytes"):
        WritableTable(layer, None, MemoryTables(), 1, 0).put(b"k" * 512, b"")
    with pytest.raises(StoreError, match="0 bytes"):
        WritableTable(layer, None, MemoryTables(), 1, 0).put(b"", b"")
