"""The library's modules: archives that trust nobody, transfers that verify, checksums, files, streams."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
import zlib
from pathlib import Path

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError, NotFound, Unavailable
from iceprod_p2p.modules.archive import Contents, pack, unpack
from iceprod_p2p.modules.checksum import ExpectedChecksum, file_digest
from iceprod_p2p.modules.files import WaitForFiles
from iceprod_p2p.modules.npz import write_npz
from iceprod_p2p.modules.registry import create
from iceprod_p2p.modules.seeds import stream_words
from iceprod_p2p.modules.transfer import Limits, copy


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.txt").write_text("a" * 1000)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("sub/a.txt")
    return root


def test_an_archive_gives_back_what_was_packed(tree, tmp_path):
    archive = tmp_path / "x.tar.gz"
    assert pack(archive, ["sub", "run.sh", "link"], root=tree) == Contents(2, 1010)
    assert unpack(archive, tmp_path / "out") == Contents(2, 1010)
    assert (tmp_path / "out/link").read_text() == "a" * 1000
    assert os.access(tmp_path / "out/run.sh", os.X_OK) and not os.access(tmp_path / "out/sub/a.txt", os.X_OK)


def test_equal_trees_pack_to_equal_bytes(tree, tmp_path):
    pack(tmp_path / "1.tar.gz", ["sub", "run.sh"], root=tree)
    os.utime(tree / "sub" / "a.txt", (1, 1))
    pack(tmp_path / "2.tar.gz", ["run.sh", "sub"], root=tree)
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()


@pytest.mark.parametrize("name", ["../tree/run.sh", "/etc/passwd", "nothing"])
def test_packing_refuses_what_is_outside_or_missing(tree, tmp_path, name):
    with pytest.raises((BadInput, NotFound)):
        pack(tmp_path / "x.tar.gz", [name], root=tree)


def entry(name: str, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def archive_of(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


ESCAPES = {
    "parent": [(entry("../evil"), b"x")],
    "deep parent": [(entry("a/../../evil"), b"x")],
    "absolute": [(entry("/tmp/evil"), b"x")],
    "link out": [(entry("l", type=tarfile.SYMTYPE, linkname="../.."), b"")],
    "absolute link": [(entry("l", type=tarfile.SYMTYPE, linkname="/etc"), b"")],
    "through a link": [
        (entry("d", type=tarfile.DIRTYPE), b""),
        (entry("l", type=tarfile.SYMTYPE, linkname="d"), b""),
        (entry("l/evil"), b"x"),
    ],
    "hard link": [(entry("a"), b"x"), (entry("b", type=tarfile.LNKTYPE, linkname="a"), b"")],
    "fifo": [(entry("p", type=tarfile.FIFOTYPE), b"")],
    "device": [(entry("z", type=tarfile.CHRTYPE, devmajor=1, devminor=5), b"")],
    "twice": [(entry("a"), b"x"), (entry("a"), b"y")],
}


@pytest.mark.parametrize("entries", ESCAPES.values(), ids=ESCAPES.keys())
def test_an_archive_that_would_leave_its_directory_is_refused_and_leaves_nothing(tmp_path, entries):
    folder = tmp_path / "jail"
    folder.mkdir()
    archive = archive_of(tmp_path / "x.tar.gz", *entries)
    with pytest.raises(BadInput):
        unpack(archive, folder / "out")
    assert not list(folder.iterdir())
    assert not (tmp_path / "evil").exists()


def test_a_bomb_is_refused_by_its_bounds(tmp_path):
    big = archive_of(tmp_path / "big.tar.gz", (entry("zeros"), bytes(5_000_000)))
    assert big.stat().st_size < 10_000
    with pytest.raises(BadInput, match="more than"):
        unpack(big, tmp_path / "out", size_max_bytes=1_000_000)
    many = archive_of(tmp_path / "many.tar.gz", *((entry(f"f{number}"), b"") for number in range(50)))
    with pytest.raises(BadInput, match="more than 49 entries"):
        unpack(many, tmp_path / "out", members_max=49)
    assert not (tmp_path / "out").exists()


def test_a_header_that_claims_gigabytes_is_refused_without_memory_for_it(tmp_path):
    header = entry("././@PaxHeader", type=tarfile.XHDTYPE, size=8 * 1024**3).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(header + bytes(1024)))
    with pytest.raises(BadInput, match="header of"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("cut", [10, 100, -5])
def test_a_damaged_archive_is_an_integrity_error(tree, tmp_path, cut):
    pack(tmp_path / "x.tar.gz", ["sub", "run.sh"], root=tree)
    data = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(data[:cut])
    with pytest.raises(IntegrityError):
        unpack(tmp_path / "cut.tar.gz", tmp_path / "out")
    (tmp_path / "text").write_text("no archive at all, but long enough " * 100)
    with pytest.raises(IntegrityError):
        unpack(tmp_path / "text", tmp_path / "out")


def test_checksums_are_verified_by_name_and_length(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"ice")
    digest = hashlib.sha256(b"ice").hexdigest()
    assert file_digest(path) == digest
    assert file_digest(path, "adler32") == f"{zlib.adler32(b'ice'):08x}"
    assert str(ExpectedChecksum.parse(digest)) == f"sha256:{digest}"
    for wrong in ("", "abc", "crc32:12345678", "sha256:12", "z" * 64):
        with pytest.raises(BadInput):
            ExpectedChecksum.parse(wrong)


def run(name: str, **parameters):
    module = create(name)
    for parameter, value in parameters.items():
        module.SetParameter(parameter, value)
    stats: dict[str, float] = {}
    assert module.Execute(stats) == 0
    return stats


def test_the_checksum_module_stops_at_a_wrong_file_and_names_both_sums(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").write_bytes(b"ice")
    right, wrong = hashlib.md5(b"ice").hexdigest(), hashlib.md5(b"water").hexdigest()
    assert run("Checksum", files=["a"], expected=[f"md5:{right}"], output="sums") == {
        "files_checked": 1,
        "bytes_checked": 3,
    }
    assert Path("sums").read_text() == f"{hashlib.sha256(b'ice').hexdigest()}  a\n"
    with pytest.raises(IntegrityError, match=rf"a has md5 {right}, not the {wrong}"):
        run("Checksum", files=["a"], expected=[wrong])
    with pytest.raises(BadInput, match="2 files were given with 1"):
        run("Checksum", files=["a", "a"], expected=[wrong])


def test_files_are_joined_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("1")
    Path("b").write_text("2")
    assert run("Concatenate", infiles="a,b", outfile="c") == {"files_merged": 2, "bytes_merged": 2}
    assert Path("c").read_text() == "12"
    with pytest.raises(NotFound, match="gone"):
        run("Concatenate", infiles=["a", "gone"], outfile="d")
    assert not Path("d").exists()


def test_waiting_ends_when_the_files_are_there_or_says_which_are_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clock = ManualClock()
    monkeypatch.setattr("time.sleep", clock.advance)
    module = WaitForFiles(clock)
    module.SetParameters(("files", ["late"]), ("timeout", 3))
    with pytest.raises(Unavailable, match=r"after 3 s .* late"):
        module.Execute({})
    Path("late").touch()
    stats: dict[str, float] = {}
    assert module.Execute(stats) == 0 and stats == {"files_found": 1}


class Server(http.server.BaseHTTPRequestHandler):
    """Answers by path: /file, /flaky (fails twice first), /short, /away (redirects), else 404; keeps what is PUT."""

    data = b"photons " * 10_000
    failures = 0
    stored: bytes | None = None

    def do_GET(self):
        cls = type(self)
        if self.path == "/flaky" and cls.failures < 2:
            cls.failures += 1
            self.send_error(503)
        elif self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "ftp://elsewhere/file")
            self.end_headers()
        elif self.path in ("/file", "/flaky", "/short"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.data)))
            self.end_headers()
            self.wfile.write(self.data[: 100 if self.path == "/short" else None])
        elif self.path == "/store" and cls.stored is not None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(cls.stored)))
            self.end_headers()
            self.wfile.write(cls.stored)
        else:
            self.send_error(404)

    def do_PUT(self):
        type(self).stored = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    Server.failures, Server.stored = 0, None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


FAST = Limits(attempts=3, pause_s=0.01, timeout_s=60)
GOOD = ExpectedChecksum.parse(hashlib.sha256(Server.data).hexdigest())


def test_files_come_over_http_verified_and_after_passing_failures(web, tmp_path):
    for name in ("file", "flaky"):
        copied = copy(f"{web}/{name}", str(tmp_path / "deep" / name), expected=GOOD, limits=FAST)
        assert copied.sha256 == GOOD.digest and copied.size_bytes == len(Server.data)
        assert (tmp_path / "deep" / name).read_bytes() == Server.data


@pytest.mark.parametrize(
    ("name", "expected", "error"),
    [
        ("file", "sha256:" + "0" * 64, IntegrityError),
        ("short", "", Unavailable),
        ("gone", "", NotFound),
        ("away", "", BadInput),
    ],
)
def test_a_transfer_that_fails_leaves_the_destination_as_it_was(web, tmp_path, name, expected, error):
    target = tmp_path / "out"
    target.write_text("before")
    checksum = ExpectedChecksum.parse(expected) if expected else None
    with pytest.raises(error):
        copy(f"{web}/{name}", str(target), expected=checksum, limits=FAST)
    assert target.read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_go_to_http_and_to_paths(web, tmp_path):
    source = tmp_path / "a b"
    source.write_bytes(Server.data)
    copy(str(source), f"{web}/store", expected=GOOD, limits=FAST)
    assert Server.stored == Server.data
    copy(source.as_uri(), f"file://{tmp_path}/c", expected=GOOD, limits=FAST)
    assert (tmp_path / "c").read_bytes() == Server.data


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("ftp://x/y", "z"),
        ("file://other/x", "z"),
        ("https://name:word@127.0.0.1:1/x", "z"),
        ("http://127.0.0.1:1/a\nb", "z"),
        ("s3://bucket", "z"),
        ("missing", "z"),
    ],
)
def test_what_cannot_be_copied_is_refused(tmp_path, monkeypatch, source, destination):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IceProdError) as refused:
        copy(source, destination, limits=FAST)
    assert isinstance(refused.value, BadInput | NotFound)
    assert not list(tmp_path.iterdir())


def test_an_unreachable_server_is_unavailable_after_all_attempts(tmp_path):
    with pytest.raises(Unavailable, match="3 attempts"):
        copy("http://127.0.0.1:9/x", str(tmp_path / "x"), limits=FAST)


def test_streams_of_a_seed_differ_by_name_and_never_change():
    words = stream_words(1311, "cosmic_rays")
    assert len(words) == 8 and all(0 <= word < 2**32 for word in words)
    assert words == stream_words(1311, "cosmic_rays")
    others = [stream_words(1312, "cosmic_rays"), stream_words(1311, "cosmic", "_rays"), stream_words(1311)]
    assert len({tuple(other) for other in (words, *others)}) == 4
    # Written down: a change here would change every production that is run again.
    assert words[:2] == [2503680348, 1190339281]


def test_npz_files_are_read_by_numpy_and_do_not_depend_on_the_time(tmp_path):
    numpy = pytest.importorskip("numpy", reason="the extra [examples] is not installed")
    arrays = {
        "f": numpy.linspace(0, 1, 7),
        "i": numpy.arange(6, dtype="int64").reshape(2, 3),
        "t": numpy.array([[1, 2], [3, 4]], "float32").T,
        "b": numpy.array([True, False]),
        "empty": numpy.zeros((0, 3)),
        "u": numpy.array(5, "uint8"),
    }
    size = write_npz(tmp_path / "a.npz", arrays)
    assert size == (tmp_path / "a.npz").stat().st_size
    write_npz(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with numpy.load(tmp_path / "a.npz") as file:
        assert file.files == list(arrays)
        for name, array in arrays.items():
            assert file[name].dtype == array.dtype and numpy.array_equal(file[name], array)
    for wrong in (numpy.array([None]), numpy.array(["a"]), 5):
        with pytest.raises(BadInput, match="'wrong'"):
            write_npz(tmp_path / "c.npz", {"wrong": wrong})
