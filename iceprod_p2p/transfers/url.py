"""URLs of files, as steering files write them: checked, normalised, and shown without what may be secret in them.

A path with spaces or letters beyond ASCII is taken as it is and encoded for the wire; what is percent-encoded already
stays so.  Names and passwords in a URL are refused, because URLs are recorded and shown to everybody.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import BadInput

LENGTH_MAX: Final = 4_096
_SAFE: Final = "!$&'()*+,-./:;=@_~"  # May stand in a path as they are (RFC 3986).
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST: Final = re.compile(r"[A-Za-z0-9._~-]*(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Url:
    """One file of one server; `encoded_path` begins with a slash and is percent-encoded, `query` is as written."""

    scheme: str
    host: str
    encoded_path: str
    query: str = ""

    @property
    def path(self) -> str:
        """The path with nothing encoded; bytes that are no UTF-8 come back as surrogates, as in file names."""
        return urllib.parse.unquote(self.encoded_path, errors="surrogateescape")

    @property
    def text(self) -> str:
        """The whole URL, as it goes over the wire."""
        return self.shown + (f"?{self.query}" if self.query else "")

    @property
    def shown(self) -> str:
        """The URL for messages and logs: without its query, which may carry a signature."""
        return f"{self.scheme}://{self.host}{self.encoded_path}"

    @property
    def place(self) -> tuple[str, str]:
        """What two URLs of one server have in common."""
        return self.scheme, self.host.lower()

    def with_scheme(self, scheme: str) -> Url:
        """Return the same file by another scheme."""
        return replace(self, scheme=scheme)

    def __str__(self) -> str:
        return self.shown


def parse(text: str) -> Url:
    """Read a URL, or a plain path as the URL of a local file; BadInput when it is neither."""
    if "://" not in text:
        return of_path(Path(text).expanduser())
    if len(text) > LENGTH_MAX:
        raise BadInput(f"a URL of {len(text)} characters is longer than the {LENGTH_MAX} allowed")
    if any(not char.isprintable() and not "\udc80" <= char <= "\udcff" for char in text):
        raise BadInput(f"the URL {text[:200]!a} holds control characters", remedy="percent-encode them")
    scheme, _, rest = text.partition("://")
    rest, _, query = rest.partition("#")[0].partition("?")
    host, slash, path = rest.partition("/")
    if "@" in host:
        raise BadInput(
            f"the URL {scheme}://...@{host.rpartition('@')[2]} holds a name or password",
            remedy="URLs are recorded and shown: put them into the site's file of credentials",
        )
    if _HOST.fullmatch(host) is None or re.fullmatch("[A-Za-z][A-Za-z0-9+.-]*", scheme) is None:
        raise BadInput(f"{text[:200]!r} is not a URL", remedy="write scheme://host/path")
    return Url(scheme.lower(), host, _encoded(slash + path), query)


def of_path(path: Path) -> Url:
    """Return the URL of a local file."""
    return Url("file", "", urllib.parse.quote(os.path.abspath(path), safe=_SAFE, errors="surrogateescape"))


def _encoded(path: str) -> str:
    whole = _STRAY_PERCENT.sub("%25", path)
    return urllib.parse.quote(whole, safe=_SAFE + "%", errors="surrogateescape")
