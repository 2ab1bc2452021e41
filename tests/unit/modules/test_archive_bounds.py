"""Archives of strangers: what is refused when it is looked at is what is refused when it is unpacked."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules.archive import inspect, unpack

FILE, DIRECTORY, LINK, HARD, DEVICE = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
)


def archive(path: Path, *members: tuple[str, bytes, str]) -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
    path.write_bytes(out.getvalue())
    return path


@pytest.mark.parametrize("root_filesystem", [False, True])
@pytest.mark.parametrize(
    "members",
    [
        [("../x", FILE, "")],
        [("a/../../x", FILE, "")],
        [(".", FILE, "")],
        [("a", FILE, ""), ("a", FILE, "")],
        [("a", FILE, ""), ("a/b", FILE, "")],
        [("a", FILE, ""), ("a", DIRECTORY, "")],
        [("a/b", FILE, ""), ("a", FILE, "")],
        [("link", LINK, ""), ("b", FILE, "")],
        [("link", LINK, "b"), ("link/c", FILE, "")],
        [("link", LINK, "/etc"), ("link/passwd", FILE, "")],
        [("x" * 255, FILE, "")],
        [("hard", HARD, "../../etc/passwd")],
        [("hard", HARD, "not-there")],
    ],
)
def test_what_would_leave_its_directory_or_cannot_be_is_refused(
    members: list[tuple[str, bytes, str]], root_filesystem: bool, tmp_path: Path
) -> None:
    path = archive(tmp_path / "t.tar", *members)
    for look in (
        lambda: inspect(path, root_filesystem=root_filesystem),
        lambda: unpack(path, tmp_path / "inner" / "tree", root_filesystem=root_filesystem),
    ):
        with pytest.raises(BadInput):
            look()
    assert not list((tmp_path / "inner").glob("*"))


def test_only_a_root_file_system_has_absolute_links_second_names_and_devices(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "t.tar",
        ("bin/sh", FILE, ""),
        ("bin/ash", HARD, "bin/sh"),
        ("etc/mtab", LINK, "/proc/mounts"),
        ("dev/null", DEVICE, ""),
    )
    with pytest.raises(BadInput):
        unpack(path, tmp_path / "plain")
    unpack(path, tmp_path / "root", root_filesystem=True)
    assert (tmp_path / "root" / "bin" / "ash").stat().st_nlink == 2
    assert not (tmp_path / "root" / "dev" / "null").exists()
    assert (tmp_path / "root" / "etc" / "mtab").readlink() == Path("/proc/mounts")


def test_xz_is_read_and_a_bomb_in_it_is_bounded(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("zeros")
        info.size = 20_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    (tmp_path / "t.tar.xz").write_bytes(lzma.compress(out.getvalue()))
    assert (tmp_path / "t.tar.xz").stat().st_size < 10_000
    with pytest.raises(BadInput, match="unpacks to more than"):
        unpack(tmp_path / "t.tar.xz", tmp_path / "small", size_max_bytes=1_000_000)
    assert unpack(tmp_path / "t.tar.xz", tmp_path / "whole").size_bytes == 20_000_000
