"""A program that knows more than its cluster's version reads every entry as the programs of that version read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iceprod_p2p.ledger import codec, commands, queries, versions
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import Damaged, decode_entry, encode_entry
from iceprod_p2p.ledger.commands import (
    AnnounceVersions,
    Command,
    FoundCluster,
    RaiseVersion,
    RecordBlob,
    SetDataset,
    Tick,
)
from iceprod_p2p.ledger.outcome import Applied, Refusal, Refused
from iceprod_p2p.ledger.versions import ProgramTooOld
from iceprod_p2p.raft.machine import ledger_machine
from iceprod_p2p.store.memory_tables import MemoryTables
from tests.ledger_in_hand import LedgerInHand

BLOB = RecordBlob("0" * 64, 1, ("n0",))
OLD_FIELDS = 6  # Of SetDataset, before its last one came.
NOW = versions.VERSION_MOST
NEXT = NOW + 1


def as_next(patch: pytest.MonkeyPatch) -> None:
    """As if this program were the next release, which brought RecordBlob and SetDataset's description."""
    patch.setattr(versions, "VERSION_MOST", NEXT)
    patch.setitem(versions.COMMANDS_SINCE, 62, NEXT)
    patch.setitem(versions.FIELDS_SINCE, (24, OLD_FIELDS + 1), NEXT)


@pytest.fixture
def next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next release throughout the test."""
    as_next(monkeypatch)


class OldSetDataset(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """SetDataset as this release would then have had it."""

    dataset: commands.Number32
    priority: commands.Number32 | None = None
    sites_allowed: tuple[commands.Name, ...] | None = None
    sites_excluded: tuple[commands.Name, ...] | None = None
    attempts_max: commands.Number32 | None = None
    alias: commands.Name | None = None


@contextmanager
def this_release() -> Iterator[None]:
    """Read entries with the decoders that this release would then have had."""
    kinds = [kind for kind in Command.__args__ if kind not in (RecordBlob, SetDataset)]
    union: Any = OldSetDataset
    for kind in kinds:
        union |= kind
    old = msgspec.defstruct(
        "Proposal",
        [(name, kind) for name, kind in (("request_id", commands.Id16), ("made_at_ms", commands.LedgerMs))]
        + [("actor", commands.Actor), ("command", union)],
        array_like=True,
        frozen=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_entry", msgspec.msgpack.Decoder(list[old]))  # type: ignore[valid-type]
        patch.setattr(codec, "_proposal", msgspec.msgpack.Decoder(old))
        patch.setattr(codec, "COMMAND_NUMBERS", codec.COMMAND_NUMBERS - {62})
        yield


def shown(found: list[Any]) -> list[Any]:
    """What was read, comparable across releases."""
    rows: list[Any] = []
    for one in found:
        if isinstance(one, Damaged):
            rows.append(one.refusal)
            continue
        command = msgspec.to_builtins(one.command)
        rows.append([one.request_id, one.actor, command[: OLD_FIELDS + 1] if command[0] == 24 else command])
    return rows


numbers = st.integers(-1, 2**33)
words = st.text(max_size=70)
set_datasets = st.lists(st.one_of(st.none(), numbers, words, st.lists(words, max_size=2)), max_size=8).map(
    lambda fields: [24, *fields]
)
good_sets = st.builds(
    lambda priority, text: msgspec.to_builtins(SetDataset(1, priority=priority, description=text)),
    st.one_of(st.none(), st.integers(0, 1_000)),
    st.one_of(st.none(), st.text(max_size=20)),
)
blobs = st.lists(st.one_of(numbers, words, st.just("0" * 64)), max_size=4).map(lambda fields: [62, *fields])
others = st.sampled_from([[9, 1, 5], [9, 1], [99, 1], [], "no", msgspec.to_builtins(BLOB)])
deep = st.recursive(st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=1), max_leaves=60).map(
    lambda nest: [24, 1, None, None, None, None, None, nest]
)
proposals = st.tuples(
    st.binary(min_size=15, max_size=16),
    st.integers(-1, 5),
    words,
    st.one_of(set_datasets, good_sets, blobs, others, deep),
).map(list)


@given(st.one_of(st.lists(proposals, max_size=4), st.just("no list"), st.lists(words, max_size=2)))
@settings(max_examples=400, deadline=None)
def test_in_an_old_cluster_a_newer_program_reads_exactly_what_an_old_one_does(parts: Any) -> None:
    entry = msgspec.msgpack.encode(parts)
    with this_release():
        expected = shown(decode_entry(entry))
    with pytest.MonkeyPatch.context() as patch:
        as_next(patch)
        assert shown(decode_entry(entry, NOW)) == expected


def founded(version: int = NOW) -> LedgerInHand:
    ledger = LedgerInHand()
    ledger.entry(FoundCluster("ice", b"root", 600_000, version))
    return ledger


@pytest.mark.usefixtures("next_one")
def test_what_a_command_needs_is_counted_with_its_fields() -> None:
    assert versions.needed(Tick(1, 1)) == 1
    assert versions.needed(BLOB) == NEXT
    assert versions.needed(SetDataset(1, priority=3)) == 1
    assert versions.needed(SetDataset(1, description="new")) == NEXT
    assert versions.fields_known(24, NOW) == OLD_FIELDS and versions.fields_known(24, NEXT) is None


@pytest.mark.usefixtures("next_one")
def test_what_is_newer_than_the_cluster_is_not_proposed() -> None:
    machine, kv = ledger_machine(), MemoryTables()

    @contextmanager
    def view() -> Iterator[MemoryTables]:
        yield kv

    refused = machine.too_new(BLOB, view)
    assert (
        isinstance(refused, Refused)
        and f"needs ledger version {NEXT}, but the cluster is at 1" in refused.detail
    )
    assert machine.too_new(Tick(1, 1), view) is None


@pytest.mark.usefixtures("next_one")
def test_a_command_counts_from_the_version_on_that_brought_it() -> None:
    ledger = founded()
    before = ledger.entry(BLOB)[0]
    assert before == Refused(Refusal.UNKNOWN_COMMAND, codec.UNKNOWN.detail)
    assert isinstance(ledger.entry(RaiseVersion(NEXT))[0], Applied)
    assert isinstance(ledger.entry(BLOB)[0], Applied)


def test_a_program_stops_by_name_where_its_cluster_goes_beyond_it() -> None:
    kv = MemoryTables()
    entry = encode_entry(
        [commands.Proposal(b"r" * 16, 0, "node:n0", FoundCluster("ice", b"root", 600_000, NEXT))]
    )
    with pytest.raises(ProgramTooOld, match=f"at version {NEXT}, but this program reads"):
        apply(kv, 1, 1, entry)
    ledger = founded()
    digest = queries.state_digest(ledger.kv)
    with pytest.raises(ProgramTooOld):
        ledger.entry(RaiseVersion(NEXT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "VERSION_MOST", NEXT)
        ledger = founded(NEXT)
        digest = queries.state_digest(ledger.kv)
    with pytest.raises(ProgramTooOld):
        ledger.entry(AnnounceVersions("n0", 1, 1))
    assert queries.state_digest(ledger.kv) == digest


def test_the_founding_entry_may_hold_what_its_version_knows() -> None:
    forget = commands.ForgetBlobs(("0" * 64,))
    found, first = LedgerInHand(checked=False).entry(FoundCluster("ice", b"root", 600_000, NOW), forget)
    assert isinstance(found, Applied) and isinstance(first, Applied)


def test_a_program_that_dropped_old_versions_asks_for_the_one_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(versions, "VERSION_LEAST", 2)
    monkeypatch.setattr(versions, "VERSION_MOST", 3)
    with pytest.raises(ProgramTooOld, match="at version 1, but this program reads versions 2 to 3"):
        versions.check(1)


def test_a_founders_one_entry_may_hold_what_its_own_version_brought() -> None:
    news = commands.AddAuthority("n0", "people", b"certificate")
    assert versions.needed(news) > 1, "it needs more than the first version"
    kv = MemoryTables()
    proposals = [
        commands.Proposal(bytes(15) + bytes([number]), 0, "node:n0", command)
        for number, command in enumerate((FoundCluster("ice", b"root", 60_000, NOW), news))
    ]
    outcomes = apply(kv, 1, 1, encode_entry(proposals))
    assert isinstance(outcomes[0], Applied)
    assert not (isinstance(outcomes[1], Refused) and outcomes[1].code is Refusal.UNKNOWN_COMMAND), outcomes
