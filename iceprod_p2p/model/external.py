"""External modules: code that a steering file names by address, and what becomes of it.

    https://host/path/module.py                      a file, or a tar archive by its ending
    git+https://host/path/repo.git@REVISION#path     a file or directory of a repository, or the whole

A `revision` beside the address takes the place of the one in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from iceprod_p2p.base.errors import BadInput

SCHEMES: Final = ("https", "git+https")
ARCHIVE_ENDINGS: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
URL_CHARS_MAX: Final = 2_048
REVISION_DEFAULT: Final = "HEAD"

_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]{2,45}\]")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True, slots=True)
class External:
    """An address taken apart: `url` is what is connected to, without revision and path.

    `path` is inside a repository, empty for the whole; `file_name` is what the content is called on a worker node,
    where an archive is unpacked.
    """

    is_git: bool
    url: str
    host: str
    port: int
    revision: str
    path: str
    file_name: str

    @property
    def is_archive(self) -> bool:
        """Whether the content is a tar archive."""
        return self.file_name.endswith(ARCHIVE_ENDINGS)


def is_external(src: str) -> bool:
    """Return whether a source is an address of the world outside, well-formed or not."""
    return _ADDRESS.match(src) is not None and not src.lower().startswith("iceprod://")


def parse_external(src: str, revision: str = "") -> External:
    """Take an address apart.  BadInput for one that is not https, or that no module could have."""
    if len(src) > URL_CHARS_MAX or not src.isprintable() or " " in src:
        raise BadInput(f"the address {src[:100]!r} is too long, or holds what no address may")
    scheme, _, rest = src.partition("://")
    if scheme.lower() not in SCHEMES:
        raise BadInput(
            f"external modules are not fetched by {scheme[:40]!r} ({src[:100]!r})",
            remedy="use https:// or git+https://",
        )
    is_git = scheme.lower() == "git+https"
    try:
        parts = urlsplit("https://" + rest)
        port = parts.port or 443
    except ValueError as wrong:
        raise BadInput(f"{src[:100]!r} is no address: {wrong}") from wrong
    if parts.username is not None or parts.password is not None:
        raise BadInput(
            f"the address {parts.hostname or ''!r} holds a name or password, which every reader would see",
            remedy="publish the module where no password is needed, or put it beside the steering file",
        )
    before, colon, _ = parts.netloc.rpartition(":")
    host = before if colon and not parts.netloc.endswith("]") else parts.netloc
    if _HOST.fullmatch(host) is None:
        raise BadInput(f"{host[:100]!r} in {src[:100]!r} is no host")
    # The name that is judged is the name that is connected to, by git too: no dot at its end.
    netloc = host.removesuffix(".") + parts.netloc[len(host) :]
    path = parts.path
    if is_git:
        path, at, in_url = path.partition("@")
        revision = revision or (in_url if at else "")
    name, inner = _names(path, unquote(parts.fragment) if is_git else "", is_git=is_git)
    revision = revision or REVISION_DEFAULT
    if _REVISION.fullmatch(revision) is None or ".." in revision or "//" in revision:
        raise BadInput(f"{revision[:60]!r} is no revision", remedy="a branch, a tag, or a commit's full hash")
    query = f"?{parts.query}" if parts.query and not is_git else ""
    return External(
        is_git=is_git,
        url=f"https://{netloc}{path}{query}",
        host=host.strip("[]").rstrip(".").lower(),
        port=port,
        revision=revision,
        path=inner,
        file_name=name,
    )


def _names(path: str, fragment: str, *, is_git: bool) -> tuple[str, str]:
    """Return the name that the content gets, and its path in the repository."""
    inner = fragment.strip("/")
    if inner and (".." in inner.split("/") or inner.startswith("-") or len(inner) > 1_024):
        raise BadInput(f"{inner[:100]!r} is no path inside a repository")
    name = PurePosixPath(inner or unquote(path)).name
    if is_git and (not inner or not PurePosixPath(inner).suffix):
        name = f"{name.removesuffix('.git')}.tar.gz"
    if _FILE_NAME.fullmatch(name) is None:
        raise BadInput(
            f"the address ends with {name[:60]!r}, which cannot be the name of a file",
            remedy="name a file such as module.py",
        )
    return name, inner
