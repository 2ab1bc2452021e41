"""What reads addresses, platforms and archives of strangers: an answer or a refusal, never anything else."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from hypothesis import strategies as st

from iceprod_p2p.base.errors import BadInput, IntegrityError, NotAllowed, Unavailable
from iceprod_p2p.model.external import parse_external
from iceprod_p2p.model.software import NotAPlatform, parse_platform
from iceprod_p2p.modules.archive import inspect, unpack
from iceprod_p2p.modules.outbound import OutboundPolicy, resolve

_PARTS = st.sampled_from(
    [
        "https://",
        "git+https://",
        "http://",
        "127.0.0.1",
        "[::ffff:10.0.0.1]",
        "[",
        "]",
        "@",
        ":",
        "/",
        "#",
        "..",
        "%2e",
    ]
)
ADDRESSES = st.lists(st.one_of(_PARTS, st.text(max_size=8)), max_size=8).map("".join)
PLATFORMS = st.lists(
    st.one_of(
        st.sampled_from(["linux", "x86_64", "glibc2.28", "py3.11", "RHEL_9_x86_64"]), st.text(max_size=6)
    ),
    max_size=6,
).map("-".join)
_NAMES = st.one_of(
    st.sampled_from(["a", "a/b", "../x", "/etc/x", "a/../../x", "./a", "link", "link/x", ".", ""]),
    st.text(max_size=6),
)
_KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]
)
ARCHIVES = st.tuples(
    st.lists(st.tuples(_NAMES, _KINDS, _NAMES), max_size=6),
    st.booleans(),
    st.integers(0, 10_240),
    st.binary(max_size=3),
)


def address(text: str) -> None:
    """An address is taken apart or refused; none that names this machine is ever let through."""
    try:
        external = parse_external(text)
    except BadInput:
        return
    assert external.url.startswith("https://") and "/" not in external.file_name
    if external.host.replace(".", "").isdigit() or ":" in external.host:
        try:
            found = resolve(external.host, external.port, OutboundPolicy(), timeout_s=2.0)
        except (NotAllowed, Unavailable):
            return
        assert all(one.is_global for one in found)


def platform(text: str) -> None:
    """A platform is read, and its text means the same again, or it is refused."""
    try:
        found = parse_platform(text)
    except NotAPlatform:
        return
    assert parse_platform(found.text) == found


def archive(drawn: tuple[list[tuple[str, bytes, str]], bool, int, bytes]) -> None:
    """What is unpacked lies inside its directory, and judging alone says the same as unpacking."""
    members, root_filesystem, at, noise = drawn
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
    content = bytearray(out.getvalue())
    content[at : at + len(noise)] = noise
    with tempfile.TemporaryDirectory() as scratch:
        path, target = Path(scratch) / "t.tar", Path(scratch) / "inner" / "tree"
        path.write_bytes(content)
        judged = unpacked = True
        try:
            inspect(path, root_filesystem=root_filesystem)
        except (BadInput, IntegrityError):
            judged = False
        try:
            unpack(path, target, root_filesystem=root_filesystem)
        except (BadInput, IntegrityError):
            unpacked = False
        assert judged or not unpacked, "what is refused when it is published is never unpacked"
        assert {entry.name for entry in Path(scratch).iterdir()} <= {"t.tar", "inner"}
        assert unpacked or not list((Path(scratch) / "inner").glob("*")), (
            "nothing is left of a refused archive"
        )


TARGETS = {
    "address": (ADDRESSES, address),
    "platform": (PLATFORMS, platform),
    "archive": (ARCHIVES, archive),
}
