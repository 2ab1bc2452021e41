"""Key files and checksums: exact modes, whole or not at all; sums as published elsewhere."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import BadInput, ConfigError, IntegrityError, Unavailable
from iceprod_p2p.security.checksums import FileSum, check_file, check_sums, hash_file, hash_stream
from iceprod_p2p.security.keyfiles import (
    make_private_directory,
    read_public,
    read_secret,
    write_public,
    write_secret,
)

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_files_have_their_modes_whatever_the_umask_is(tmp_path: Path) -> None:
    for umask in (0o000, 0o022, 0o777):
        old = os.umask(umask)
        try:
            write_secret(tmp_path / "key", b"k")
            write_public(tmp_path / "crt", b"c")
        finally:
            os.umask(old)
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "crt").stat().st_mode) == 0o644
    assert (read_secret(tmp_path / "key"), read_public(tmp_path / "crt")) == (b"k", b"c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crt", "key"]


def test_a_secret_that_was_open_before_is_closed_by_writing_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"old")
    (tmp_path / "key").chmod(0o666)
    write_secret(tmp_path / "key", b"new")
    assert read_secret(tmp_path / "key") == b"new"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610])
def test_open_secrets_and_writable_certificates_are_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "key").write_bytes(b"k")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(ConfigError, match=f"key has mode {mode:04o}.*chmod 600"):
        read_secret(tmp_path / "key")
    (tmp_path / "key").chmod(0o646)
    with pytest.raises(ConfigError, match="others may change it"):
        read_public(tmp_path / "key")


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "big").write_bytes(bytes(100_000))
    (tmp_path / "big").chmod(0o600)
    for name, word in [("none", "No such file"), ("pipe", "not a plain file"), ("big", "more than")]:
        with pytest.raises(ConfigError, match=f"{name}.*{word}|{word}"):
            read_secret(tmp_path / name)
    with pytest.raises(ConfigError):
        read_secret(tmp_path)


def test_directories_are_private_or_refused(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        make_private_directory(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    make_private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o750)
    with pytest.raises(ConfigError, match=r"mode 0750.*chmod 700"):
        make_private_directory(tmp_path / "open")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot make"):
        make_private_directory(tmp_path / "file")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_secret(tmp_path / "key", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match=r"cannot write .*key: No space left"):
        write_secret(tmp_path / "key", b"new")
    assert read_secret(tmp_path / "key") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    with pytest.raises(Unavailable, match="No such file"):
        write_secret(tmp_path / "none" / "key", b"new")


def test_sums_are_the_published_ones(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    total = hash_file(tmp_path / "abc", others=["md5", "adler32"])
    assert total == FileSum(3, ABC, {"md5": "900150983cd24fb0d6963f7d28e17f72", "adler32": "024d0127"})
    assert hash_stream(io.BytesIO(bytes(3_000_000))) == hash_stream(io.BytesIO(bytes(3_000_000)))
    empty = hash_stream(io.BytesIO(), others=["adler32", "sha256"])
    assert empty.others == {"adler32": "00000001"}  # RFC 1950
    check_file(tmp_path / "abc", total)


def test_a_changed_file_is_found_by_size_or_by_sum(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abd")
    with pytest.raises(IntegrityError, match="instead of " + ABC):
        check_file(tmp_path / "abc", FileSum(3, ABC))
    (tmp_path / "abc").write_bytes(b"abcd")
    with pytest.raises(IntegrityError, match="4 bytes instead of 3"):
        check_file(tmp_path / "abc", FileSum(3, ABC))


def test_checksums_from_outside_are_read_strictly() -> None:
    assert check_sums({"sha256": ABC.upper()}) == {"sha256": ABC}
    for sums, word in [
        ({}, "needs a SHA-256"),
        ({"md5": "0" * 32}, "needs a SHA-256"),
        ({"sha256": ABC[:-1]}, "64 hexadecimal"),
        ({"sha256": "x" * 64}, "64 hexadecimal"),
        ({"sha256": ABC, "md5": "0"}, "32 hexadecimal"),
        ({"sha256": ABC, "crc7": "0"}, "not one of"),
    ]:
        with pytest.raises(BadInput, match=word):
            check_sums(sums)
    with pytest.raises(BadInput, match="not one of"):
        hash_stream(io.BytesIO(), others=["crc7"])
