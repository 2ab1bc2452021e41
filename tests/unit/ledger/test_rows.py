"""Programs of unlike releases in one cluster write the same rows, byte for byte, until the version is raised."""

from __future__ import annotations

import inspect
from pathlib import Path

import msgspec

from iceprod_p2p.ledger import keys, records, records_trust, versions
from iceprod_p2p.ledger.commands import FoundCluster, RaiseVersion, SetPerson
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.model.person import Role
from tests.ledger_in_hand import LedgerInHand

GOLDEN = Path(__file__).parents[2] / "golden" / "rows.txt"


def fields_by_version(kind: type[msgspec.Struct]) -> list[int]:
    """How many fields of a record a program writes in a cluster of each version."""
    whole = len(kind.__struct_fields__)
    span = range(versions.VERSION_LEAST, versions.VERSION_MOST + 1)
    return [versions.row_fields_known(kind.__name__, version) or whole for version in span]


def test_a_record_that_grows_says_since_when() -> None:
    kinds = {
        name: kind
        for module in (records, records_trust)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, msgspec.Struct) and kind.__module__ == module.__name__
    }
    now = [" ".join(map(str, [name, *fields_by_version(kind)])) for name, kind in sorted(kinds.items())]
    assert now == GOLDEN.read_text().splitlines(), (
        "a record has other fields than before: give new ones, at its end, with defaults, their version in"
        f" `ledger.versions.ROW_FIELDS_SINCE`, and only then write these lines to {GOLDEN.name}"
    )
    assert {kind for kind, _ in versions.ROW_FIELDS_SINCE} <= kinds.keys()


def row(ledger: LedgerInHand) -> list[object]:
    value = ledger.kv.get(keys.CLUSTER)
    assert value is not None
    fields: list[object] = msgspec.msgpack.decode(value)
    return fields


def test_rows_of_an_older_cluster_are_written_as_old_programs_write_them() -> None:
    ledger = LedgerInHand(checked=False)
    (outcome,) = ledger.entry(FoundCluster("ice", b"root", 600_000, 2))
    assert isinstance(outcome, Applied)
    ledger.entry(SetPerson("ada", Role.ADMINISTRATOR))
    assert len(row(ledger)) == 16 == fields_by_version(records.Cluster)[1]
    decoded = msgspec.msgpack.decode(ledger.kv.get(keys.CLUSTER), type=records.Cluster)
    assert (decoded.name, decoded.people, decoded.administrators) == ("ice", 1, 0)


def test_a_raised_version_writes_whole_rows_in_its_own_entry() -> None:
    ledger = LedgerInHand(checked=False)
    ledger.entry(FoundCluster("ice", b"root", 600_000, 2))
    ledger.entry(SetPerson("ada", Role.ADMINISTRATOR))
    (outcome,) = ledger.entry(RaiseVersion(3), actor="person:ada")
    assert isinstance(outcome, Applied), outcome
    assert len(row(ledger)) == len(records.Cluster.__struct_fields__)
    assert row(ledger)[16] == 1, "the administrators were counted"
