"""Damage of a store is named page by page, without LMDB; a sound one is found sound, also while it is written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from iceprod_p2p.store.environment import Environment, look_into
from iceprod_p2p.store.errors import StoreBroken
from iceprod_p2p.store.verify import verify, verify_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with small and large values, deleted ones, and free pages."""
    environment = Environment(tmp_path, sync=False)
    chance = random.Random(7)
    for turn in range(8):
        transaction = environment.write()
        for number in range(200):
            size = 9_000 if number % 50 == 0 else 60
            transaction.ledger.put(chance.randbytes(8), chance.randbytes(size))
            transaction.log.put((200 * turn + number).to_bytes(8, "big"), b"entry")
        for number in range(100 * turn, 100 * turn + 50):
            transaction.log.delete(number.to_bytes(8, "big"))
        transaction.commit()
    environment.close()
    return tmp_path / "raft-000001"


def changed(store: Path, content: bytes) -> list[str]:
    (store / "data.mdb").write_bytes(content)
    return verify(store).faults


def test_a_sound_store_is_read_to_its_end(store: Path) -> None:
    found = verify_store(store.parent)
    assert found.faults == [] and found.records >= 1_600 + 8 * 150 and found.pages > 100


def test_every_changed_bit_of_a_value_or_key_of_the_ledger_is_found(store: Path) -> None:
    sound = (store / "data.mdb").read_bytes()
    with look_into(store.parent, is_live=False) as (snapshot, _, _):
        pairs = list(snapshot.ledger.scan(b"\0", b"\xff" * 9))
    chance = random.Random(3)
    for key, value in chance.sample(pairs, 40):
        for part in (key, value):
            at = sound.rfind(part)
            content = bytearray(sound)
            while at >= 0:  # Old pages that are free hold it too.
                content[at + chance.randrange(len(part))] ^= 1 << chance.randrange(8)
                at = sound.rfind(part, 0, at)
            assert changed(store, bytes(content)), f"{part.hex()} of {key.hex()}"


def test_cut_files_lost_pages_and_lost_heads_are_named(store: Path) -> None:
    sound = (store / "data.mdb").read_bytes()
    assert "cut short" in changed(store, sound[: len(sound) // 2])[0]
    assert changed(store, b"") == ["data.mdb is empty"]
    assert changed(store, bytes(8192) + sound[8192:]) == ["neither head of the file is readable"]
    used = [page for page in range(2, len(sound) // 4096) if sound[page * 4096 + 10] in (1, 2)]
    lost = 0
    for page in used:
        content = sound[: page * 4096] + bytes(4096) + sound[(page + 1) * 4096 :]
        lost += bool(changed(store, content))
    assert lost > len(used) // 3, "pages that are in use; the others are free"


def test_random_damage_never_ends_the_process_and_reads_in_bounded_time(store: Path) -> None:
    sound = (store / "data.mdb").read_bytes()
    chance = random.Random(11)
    for _ in range(60):
        content = bytearray(sound)
        for _ in range(chance.choice((1, 10, 200))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        assert len(changed(store, bytes(content))) <= 20


def test_a_store_is_read_beside_its_writer(tmp_path: Path) -> None:
    environment = Environment(tmp_path, sync=False)
    for turn in range(20):
        transaction = environment.write()
        for number in range(50):
            transaction.ledger.put(b"k%d" % number, b"v%d" % turn * 50)
        transaction.commit()
        environment.checkpoint()
        with environment.read() as snapshot:
            assert verify(tmp_path / "raft-000001", transaction=snapshot.number).faults == []
    environment.close()


def test_a_damaged_record_is_refused_when_it_is_read(tmp_path: Path) -> None:
    environment = Environment(tmp_path, sync=False)
    transaction = environment.write()
    transaction.ledger.put(b"key", b"some value")
    transaction.commit()
    environment.close()
    path = tmp_path / "raft-000001" / "data.mdb"
    with path.open("r+b") as file:
        content = file.read()
        file.seek(content.rfind(b"some value"))
        file.write(b"same value")
    environment = Environment(tmp_path, sync=False)
    with environment.read() as snapshot:
        with pytest.raises(StoreBroken, match=r"6b6579 of the ledger.*is damaged"):
            snapshot.ledger.get(b"key")
        with pytest.raises(StoreBroken):
            list(snapshot.ledger.scan(b"", b"\xff"))
    environment.close()
