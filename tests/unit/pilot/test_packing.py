"""Compressed files are told by their content, opened within bounds, and made reproducibly."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
from iceprod_pilot.packing import pack, unpack

from iceprod_p2p.base.errors import BadInput, IntegrityError

TEXT = b"photon tables " * 1_000


@pytest.mark.parametrize(
    ("compress", "ending"), [(gzip.compress, ".gz"), (bz2.compress, ".bz2"), (lzma.compress, ".xz")]
)
def test_a_compressed_file_is_opened_and_loses_its_ending(
    tmp_path: Path, compress: object, ending: str
) -> None:
    path = tmp_path / f"tables.dat{ending}"
    path.write_bytes(compress(TEXT))  # type: ignore[operator]
    unpack(path, tmp_path, bytes_max=len(TEXT))
    assert [entry.name for entry in tmp_path.iterdir()] == ["tables.dat"]
    assert (tmp_path / "tables.dat").read_bytes() == TEXT


def test_a_file_that_is_not_packed_stays(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(TEXT)
    unpack(path, tmp_path, bytes_max=10)
    assert path.read_bytes() == TEXT


def test_an_archive_is_unpacked_beside_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "software.tgz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("tool/run.sh")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"true"))
    unpack(path, tmp_path, bytes_max=1_000_000)
    assert (tmp_path / "tool" / "run.sh").read_bytes() == b"true"
    with pytest.raises(BadInput, match="overwrite"):
        unpack(path, tmp_path, bytes_max=1_000_000)


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(BadInput, match="larger than"):
        unpack(path, tmp_path, bytes_max=2_000_000)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tables.gz"
    path.write_bytes(gzip.compress(TEXT)[:-20])
    with pytest.raises(IntegrityError, match=r"tables\.gz is damaged"):
        unpack(path, tmp_path, bytes_max=1_000_000)


@pytest.mark.parametrize("word", ["gzip", "bz2", "xz"])
def test_equal_outputs_are_packed_to_equal_bytes(tmp_path: Path, word: str) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first, second):
        path.mkdir()
        (path / "out").write_bytes(TEXT)
    packed = [pack(path / "out", path, compression=word) for path in (first, second)]
    assert packed[0].read_bytes() == packed[1].read_bytes() != TEXT
    assert pack(packed[0], first, compression=word) == packed[0], "what is packed already is left alone"


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(TEXT)
    with pytest.raises(BadInput, match="zstd"):
        pack(tmp_path / "out", tmp_path, compression="zstd")
