"""Entries: damage stays where it is, requests count once, time comes from ticks, digests tell replicas apart."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.apply import LedgerBug, apply
from iceprod_p2p.ledger.codec import (
    Damaged,
    decode_command,
    decode_entry,
    decode_outcome,
    encode_command,
    encode_entry,
    encode_outcome,
)
from iceprod_p2p.ledger.limits import REQUEST_HORIZON_MS
from iceprod_p2p.ledger.nesting import NESTING_MAX, is_flat_enough
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.table import RULES
from iceprod_p2p.store.memory_tables import MemoryTables
from tests.ledger_in_hand import PAIR, STEERING, LedgerInHand


@pytest.fixture
def ledger() -> LedgerInHand:
    hand = LedgerInHand()
    hand.found("madison")
    return hand


def codes(outcomes: list[Outcome]) -> list[str]:
    return [outcome.code if isinstance(outcome, Refused) else "applied" for outcome in outcomes]


def test_every_command_has_a_rule_and_a_number_of_its_own() -> None:
    assert set(RULES) == set(c.Command.__args__)
    numbers = [kind.__struct_config__.tag for kind in c.Command.__args__]
    assert len(set(numbers)) == len(numbers)


def test_a_damaged_proposal_spoils_no_other(ledger: LedgerInHand) -> None:
    good = [msgspec.to_builtins(ledger.proposal(c.SetSettings(0)), builtin_types=(bytes,)) for _ in range(2)]
    unknown = [b"u" * 16, 0, "node:n0", [999, 1, 2]]
    wrong = [b"w" * 16, 0, "node:n0", [21, "not a number", 1]]
    huge = [b"h" * 16, 0, "node:n0", [21, 2**40, 1]]
    entry = msgspec.msgpack.encode([good[0], unknown, wrong, "nothing", huge, good[1]])
    outcomes = ledger.raw(entry)
    assert codes(outcomes) == ["applied", "unknown_command", "malformed", "malformed", "malformed", "applied"]


@pytest.mark.parametrize(
    "entry", [b"", b"\xc1", b"\x01", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\x90 "]
)
def test_an_entry_that_is_none_is_refused_as_a_whole(ledger: LedgerInHand, entry: bytes) -> None:
    assert codes(ledger.raw(entry)) == ["malformed"]


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_without_an_exception(entry: bytes) -> None:
    for outcome in apply(MemoryTables(), 1, 1, entry):
        assert isinstance(outcome, Refused)


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_flipped_byte_is_answered_without_an_exception(place: int, value: int) -> None:
    proposal = c.Proposal(b"r" * 16, 0, "person:ada", c.SubmitDataset(STEERING, 5, PAIR, 1, "ada"))
    entry = bytearray(encode_entry([proposal]))
    entry[place % len(entry)] = value
    assert apply(MemoryTables(), 1, 1, bytes(entry))


def test_a_field_that_a_newer_version_added_is_left_out() -> None:
    newer = msgspec.msgpack.encode([[b"r" * 16, 0, "node:n0", [21, 1, 5, "new field"], "newer still"]])
    assert decode_entry(newer) == [c.Proposal(b"r" * 16, 0, "node:n0", c.AddJobs(1, 5))]


def _with_extra_field(extra: bytes) -> bytes:
    good = msgspec.msgpack.encode([[b"r" * 16, 0, "node:n0", [21, 1, 5]]])
    return good.replace(b"\x93\x15", b"\x94\x15") + extra


def _deeper(frames: int, entry: bytes) -> list[c.Proposal | Damaged]:
    return _deeper(frames - 1, entry) if frames else decode_entry(entry)


@pytest.mark.parametrize("depth", [1, 20, 28, 40, 300, 600, 900, 1_100, 50_000])
def test_a_nested_field_is_read_alike_however_deep_the_stack_of_the_reader(depth: int) -> None:
    entry = _with_extra_field(b"\x91" * depth + b"\xc0")
    read = {repr(_deeper(frames, entry)) for frames in (0, 300, 600)}
    assert len(read) == 1
    assert ("Damaged" in read.pop()) is (depth > 30)


@given(
    st.recursive(
        st.integers(-(2**40), 2**40) | st.text(max_size=40) | st.binary(max_size=300) | st.floats(),
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=4), inner, max_size=20),
    )
)
def test_depth_is_measured_as_it_is(value: object) -> None:
    def depth(item: object) -> int:
        inside = list(item.values()) if isinstance(item, dict) else item if isinstance(item, list) else None
        return 0 if inside is None else 1 + max((depth(each) for each in inside), default=-1)

    levels = depth(value)
    wrapped = value
    for _ in range(NESTING_MAX - levels):
        wrapped = [wrapped]
    assert is_flat_enough(msgspec.msgpack.encode(wrapped))
    if levels:
        assert not is_flat_enough(msgspec.msgpack.encode([wrapped]))


def test_commands_and_outcomes_come_back_from_their_bytes() -> None:
    command = c.SubmitDataset(STEERING, 5, PAIR, 1, "ada", sites_allowed=("madison",))
    assert decode_command(encode_command(command)) == command
    for outcome in (Applied(("a",), 3), Refused(Refusal.LIMIT, "too many")):
        assert decode_outcome(encode_outcome(outcome)) == outcome
    with pytest.raises(ValueError, match="not a ledger command"):
        decode_command(b"\x93\x01")


def test_a_request_asked_again_gets_the_first_outcome_and_changes_nothing(ledger: LedgerInHand) -> None:
    proposal = ledger.proposal(c.SubmitDataset(STEERING, 5, PAIR, 1, "ada"))
    first = ledger.propose([proposal, proposal])
    ledger.tick()
    later = ledger.propose([proposal])
    assert first == [later[0], later[0]]
    assert len(queries.datasets(ledger.kv).rows) == 1


def test_a_request_older_than_the_memory_is_refused(ledger: LedgerInHand) -> None:
    proposal = ledger.proposal(c.SubmitDataset(STEERING, 5, PAIR, 1, "ada"))
    ledger.propose([proposal])
    ledger.tick(REQUEST_HORIZON_MS + 1)
    ledger.tick()
    ledger.tick()
    assert codes(ledger.propose([proposal])) == ["expired"]
    assert len(queries.datasets(ledger.kv).rows) == 1


def test_a_request_from_the_future_is_refused(ledger: LedgerInHand) -> None:
    proposal = c.Proposal(b"f" * 16, ledger.now_ms + 1, "node:n0", c.SetSettings())
    assert codes(ledger.propose([proposal])) == ["malformed"]


def test_a_tick_of_another_term_moves_nothing(ledger: LedgerInHand) -> None:
    before = queries.ledger_time_ms(ledger.kv)
    assert ledger.refused(c.Tick(7, before + 1_000)).code is Refusal.STALE_TERM
    assert queries.ledger_time_ms(ledger.kv) == before


def test_time_never_goes_back(ledger: LedgerInHand) -> None:
    before = queries.ledger_time_ms(ledger.kv)
    ledger.done(c.Tick(ledger.term, before - 500))
    assert queries.ledger_time_ms(ledger.kv) == before


def test_the_digest_tells_entries_apart_and_the_index_is_kept() -> None:
    one, other = LedgerInHand(), LedgerInHand()
    one.found("madison")
    other.found("madison")
    assert queries.state_digest(one.kv) == queries.state_digest(other.kv)
    one.submit(1)
    other.submit(2)
    assert queries.state_digest(one.kv) != queries.state_digest(other.kv)
    assert queries.applied_index(one.kv) == one.index


def test_an_entry_applied_again_is_a_bug_of_the_caller(ledger: LedgerInHand) -> None:
    with pytest.raises(LedgerBug, match="comes after entry"):
        apply(ledger.kv, ledger.index, 1, encode_entry([]))


def test_ten_million_jobs_are_a_few_hundred_bytes(ledger: LedgerInHand) -> None:
    def size() -> int:
        return sum(len(key) + len(value) for key, value in ledger.kv.items())

    ledger.checked = False
    ledger.submit(1)
    before = size()
    entry_bytes = len(encode_entry([ledger.proposal(c.SubmitDataset(STEERING, 10_000_000, PAIR, 1, "ada"))]))
    ledger.submit(10_000_000)
    assert entry_bytes < 1_000
    assert size() - before < 1_000
