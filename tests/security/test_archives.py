"""Archives of strangers: bombs, ways out by links upon links, headers that lead nowhere or backwards.

Written from the advisories on tarfile (CVE-2007-4559, 2024-6232, 2025-4330, 2025-4517, 2025-8194), zip-slip, and the
literature on decompression bombs.  What is refused when it is looked at is refused when it is unpacked, soon, in
little memory, and nothing is left of it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import BadInput, IntegrityError
from iceprod_p2p.modules.archive import inspect, unpack
from iceprod_p2p.modules.archive_headers import check_links
from tests.security.cost import bounded

FILE, DIRECTORY, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def entry(name: str, kind: bytes = FILE, aim: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, aim
    return info


def tar(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(max(0, member.size))))
    return out.getvalue()


def header(name: str, kind: bytes, size: int, **fields: object) -> bytes:
    """One block as it lies in an archive, whatever tarfile would think of it."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    field = fields.get("size_field")
    block[124:136] = field if isinstance(field, bytes) else b"%011o\0" % size
    extra = fields.get("at_345")
    if isinstance(extra, bytes):
        block[345 : 345 + len(extra)] = extra
    extended = fields.get("at_482")
    if isinstance(extended, bytes):
        block[482 : 482 + len(extended)] = extended
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*words: tuple[str, str], kind: bytes = b"x") -> bytes:
    body = b"".join(_record(name.encode(), value.encode()) for name, value in words)
    return header("pax", kind, len(body)) + body + bytes(-len(body) % 512)


def _record(name: bytes, value: bytes) -> bytes:
    length = len(name) + len(value) + 3
    digits = len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length + digits, name, value)


END = bytes(1_024)
MANY_WORDS = tuple((f"k{number}", "v") for number in range(50_000))
BOMBS: dict[str, Callable[[], bytes]] = {
    "a gzip of nothing but zeros": lambda: gzip.compress(header("z", FILE, 1 << 37) + bytes(16 << 20), 9),
    "a bzip2 of zeros": lambda: bz2.compress(header("z", FILE, 1 << 37) + bytes(8 << 20)),
    "an xz of zeros": lambda: lzma.compress(header("z", FILE, 1 << 37) + bytes(16 << 20)),
    "a gzip in a gzip": lambda: gzip.compress(gzip.compress(bytes(16 << 20))),
    "an old sparse file with a map without end": lambda: gzip.compress(
        header("s", b"S", 0, at_482=b"\x01") + (b"\x31" * 504 + b"\x01" + bytes(7)) * 40_000
    ),
    "a sparse file of the format 1.0 with a map without end": lambda: gzip.compress(
        pax(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "s"))
        + header("s", FILE, 1 << 30)
        + b"999999999\n"
        + b"0\n" * 4_000_000
    ),
    "a sparse file of the format 0.1": lambda: (
        pax(("GNU.sparse.map", ",".join(["0,1"] * 200_000)), ("GNU.sparse.size", "1"))
        + header("s", FILE, 0)
        + END
    ),
    "a sparse file of the format 0.0": lambda: (
        pax(*[("GNU.sparse.offset", "0"), ("GNU.sparse.numbytes", "1")] * 1_000, ("GNU.sparse.size", "1"))
        + header("s", FILE, 0)
        + END
    ),
    "words for all entries": lambda: gzip.compress(
        pax(*MANY_WORDS, kind=b"g") + b"".join(header(f"f{n}", FILE, 0) for n in range(5_000)) + END
    ),
    "words for one entry": lambda: pax(*MANY_WORDS) + header("f", FILE, 0) + END,
    "ten thousand headers before one entry": lambda: gzip.compress(
        pax(("comment", "x")) * 10_000 + header("f", FILE, 0) + END
    ),
    "ten thousand global headers": lambda: gzip.compress(
        pax(("comment", "x"), kind=b"g") * 10_000 + header("f", FILE, 0) + END
    ),
    "ten thousand long names": lambda: gzip.compress(
        (header("././@LongLink", b"L", 300) + b"n" * 300 + bytes(212)) * 10_000 + header("f", FILE, 0) + END
    ),
    "a long name of gigabytes": lambda: header("././@LongLink", b"L", 1 << 33) + bytes(1_024),
    "a header of gigabytes": lambda: header("pax", b"x", 1 << 33) + bytes(1_024),
    "a size below nothing": lambda: header("f", FILE, 0, size_field=b"\xff" * 11 + b"\x00") + END,
    "a size below nothing in a word": lambda: pax(("size", "-1024")) + header("f", FILE, 0) + END,
    "a size as large as numbers are": lambda: header("f", FILE, 0, size_field=b"\x80" + b"\x7f" * 11) + END,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar"
    path.write_bytes(BOMBS[name]())
    for look in (
        lambda: inspect(path),
        lambda: unpack(path, tmp_path / "in" / "tree", size_max_bytes=1 << 20),
    ):
        with bounded(cpu_s=5.0, memory_mib=64), pytest.raises((BadInput, IntegrityError)) as refusal:
            look()
        assert str(refusal.value).isprintable() and len(str(refusal.value)) < 500
    assert not (tmp_path / "in").exists() or not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize("size", ["NaN", "9" * 5_000, "1e9", "0x10"])
def test_a_size_that_is_no_number_gives_an_empty_file(size: str, tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(pax(("size", size)) + header("f", FILE, 0) + END)
    with bounded(cpu_s=1.0, memory_mib=16):
        unpack(tmp_path / "t.tar", tmp_path / "tree")
    assert (tmp_path / "tree" / "f").read_bytes() == b""


WAYS_OUT = {
    "up": [entry("../x")],
    "up from below": [entry("a/../../x")],
    "from the root": [entry("/etc/cron.d/x")],
    "from the root twice": [entry("//etc/x")],
    "a link to the root": [entry("l", LINK, "/")],
    "a link to the root, and through it": [entry("l", LINK, "/"), entry("l/tmp/x")],
    "a link up": [entry("l", LINK, "..")],
    "a link up from below": [entry("a/b/l", LINK, "../../..")],
    "a link to itself, and through it": [entry("l", LINK, "l"), entry("l/x")],
    "a second name of what is outside": [entry("h", HARD, "/etc/passwd")],
    "a second name of a link": [entry("l", LINK, "x"), entry("h", HARD, "l")],
    "links over links": [
        entry("p/q/up", LINK, "../.."),
        entry("out", LINK, "p/q/up/.."),
    ],
    "links over links, the later first": [
        entry("out", LINK, "p/q/up/../etc"),
        entry("p/q/up", LINK, "../.."),
    ],
    "a chain of directories and links": [
        entry("d/d/d/d", DIRECTORY),
        *(entry(f"l{n}", LINK, f"d/d/d/d/../../../../l{n + 1}" if n < 9 else "d/d/d/d") for n in range(10)),
        entry("d/d/d/back", LINK, "../../../l0/../../../.."),
        entry("out", LINK, "d/d/d/back/.."),
    ],
    "a name of a thousand letters": [entry("x" * 1_000)],
    "a device": [entry("dev", tarfile.CHRTYPE)],
    "a pipe": [entry("pipe", tarfile.FIFOTYPE)],
    "of an unknown kind": [entry("odd", b"Z")],
}


@pytest.mark.parametrize("name", WAYS_OUT)
def test_no_way_leads_out_of_an_archive(name: str, tmp_path: Path) -> None:
    path = tmp_path / "way.tar"
    path.write_bytes(tar(*WAYS_OUT[name]))
    for look in (lambda: inspect(path), lambda: unpack(path, tmp_path / "in" / "tree")):
        with bounded(cpu_s=1.0, memory_mib=16), pytest.raises((BadInput, IntegrityError)):
            look()
    assert {p.name for p in tmp_path.iterdir()} <= {"way.tar", "in"}
    assert not (tmp_path / "in").exists() or not list((tmp_path / "in").iterdir())


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "good.tar"
    path.write_bytes(
        tar(
            entry("lib/libx.so.1.2"),
            entry("lib/libx.so.1", LINK, "libx.so.1.2"),
            entry("lib/libx.so", LINK, "libx.so.1"),
            entry("lib64", LINK, "lib"),
            entry("share/doc/up", LINK, "../../lib64/../bin"),
            entry("loop", LINK, "loop"),
            entry("nowhere", LINK, "not/there"),
        )
    )
    unpack(path, tmp_path / "tree")
    assert (tmp_path / "tree" / "lib64" / "libx.so").resolve() == (
        tmp_path / "tree/lib/libx.so.1.2"
    ).resolve()


def test_links_that_double_at_each_step_are_given_up() -> None:
    links = {f"a{n}": "/".join([f"a{n + 1}", ".", f"a{n + 1}"]) for n in range(2_000)}
    links |= {f"b{n}": "/".join(["."] * 1_000) for n in range(2_000)}
    with bounded(cpu_s=10.0), pytest.raises(BadInput, match="too many other links"):
        check_links(links)
