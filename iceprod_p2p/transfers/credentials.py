"""Which keys, tokens and certificates go to which server: one TOML file of the site, for its owner alone.

    [[server]]
    urls = ["https://dav.example.org/data/"]     # this and everything below it; the longest one that fits counts
    token_file = "/run/iceprod/dav.token"

Nothing of it is ever logged, recorded or put into a URL; it goes to the servers that are named, and to no other, not
even after a redirect.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import ConfigError, NotAllowed
from iceprod_p2p.base.settings import Faults, Setting, read_section
from iceprod_p2p.base.toml_lines import key_lines
from iceprod_p2p.transfers.url import Url

FILE_BYTES_MAX: Final = 1024 * 1024
TOKEN_BYTES_MAX: Final = 64 * 1024
SERVER: Final = (
    Setting("urls", "texts", None, "URLs whose files these are for: each with everything below it"),
    Setting("token", "text", "", "bearer token (https, root)"),
    Setting("token_file", "path", "", "file with a bearer token, read for each transfer"),
    Setting("username", "text", "", "for HTTP's basic authentication"),
    Setting("password", "text", "", "for HTTP's basic authentication"),
    Setting("x509_proxy", "path", "", "proxy certificate with its key (gsiftp, root, https)"),
    Setting("client_certificate", "path", "", "certificate, instead of a proxy"),
    Setting("client_key", "path", "", "its key, mode 0600"),
    Setting("ca_file", "path", "", "authorities that may vouch for the server; default: the machine's"),
    Setting(
        "ca_directory", "path", "", "the same as a directory by hash, such as /etc/grid-security/certificates"
    ),
    Setting("access_key", "text", "", "of S3"),
    Setting("secret_key", "text", "", "of S3"),
    Setting("session_token", "text", "", "of S3, for temporary keys"),
    Setting("endpoint", "text", "", "URL of the S3 service; empty: Amazon's"),
    Setting("region", "text", "us-east-1", "of S3"),
    Setting(
        "read_back", "switch", True, "read what was written when the server keeps no checksum to compare"
    ),
)

FILE_FIELDS: Final = ("token_file", "x509_proxy", "client_certificate", "client_key", "ca_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What one table ``[[server]]`` says; each field as the table `SERVER` says, nothing of it shown by repr."""

    urls: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    token_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    x509_proxy: str = ""
    client_certificate: str = ""
    client_key: str = ""
    ca_file: str = ""
    ca_directory: str = ""
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    endpoint: str = ""
    region: str = "us-east-1"
    read_back: bool = True

    def bearer(self) -> str:
        """Return the token of the moment, empty without one; NotAllowed when its file cannot be read, or by others."""
        if not self.token_file:
            return self.token
        try:
            with open(self.token_file, encoding="ascii") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise NotAllowed(
                        f"the token file {self.token_file} can be read by others",
                        remedy=f"chmod 600 {self.token_file}",
                    )
                return file.read(TOKEN_BYTES_MAX).strip()
        except (OSError, UnicodeDecodeError) as failure:
            raise NotAllowed(
                f"the token file {self.token_file} cannot be read: {failure}", remedy="renew it"
            ) from failure

    def environment(self) -> dict[str, str]:
        """Return the variables by which command-line tools of the Grid find these credentials; errors as `bearer`."""
        pairs = {
            "X509_USER_PROXY": self.x509_proxy,
            "X509_USER_CERT": self.client_certificate,
            "X509_USER_KEY": self.client_key,
            "X509_CERT_DIR": self.ca_directory,
            "BEARER_TOKEN": self.bearer(),
        }
        return {name: value for name, value in pairs.items() if value}


_NONE: Final = Credential()


class Credentials:
    """Those of a site, by URL."""

    def __init__(self, entries: Sequence[Credential] = ()) -> None:
        self.entries = tuple(entries)
        self._by_url = sorted(
            ((prefix.rstrip("/"), entry) for entry in entries for prefix in entry.urls),
            key=lambda pair: len(pair[0]),
            reverse=True,
        )

    def of(self, url: Url) -> Credential:
        """Return what goes to the server of this URL; an empty credential when none is named for it."""
        for prefix, entry in self._by_url:
            if url.shown == prefix or url.shown.startswith(f"{prefix}/"):
                return entry
        return _NONE


def load(path: Path) -> Credentials:
    """Read the file; ConfigError names every fault, or says that others can read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(FILE_BYTES_MAX + 1)
        if mode & 0o077:
            raise ConfigError(f"{path} can be read by others", remedy=f"chmod 600 {path}")
        if len(content) > FILE_BYTES_MAX:
            raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes", remedy="is it the right file?")
        text = content.decode("utf-8")
        document = tomllib.loads(text)
    except OSError as failure:
        raise ConfigError(
            f"the file of credentials {path} cannot be read: {failure.strerror}",
            remedy="name it in site.toml: [transfers] credentials",
        ) from failure
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as failure:
        raise ConfigError(f"{path} is not TOML: {type(failure).__name__}", remedy="mend it") from failure
    faults = Faults(key_lines(text))
    entries = _entries(document, faults)
    if faults.found:
        raise ConfigError(f"{path} has {len(faults.found)} fault(s):", faults=faults.sentences())
    return Credentials(entries)


def _entries(document: dict[str, object], faults: Faults) -> list[Credential]:
    for name in document:
        if name != "server":
            faults.add((name,), "there is no such section; write [[server]]")
    tables = document.get("server", [])
    if not isinstance(tables, list):
        faults.add(("server",), "is not a list of tables; write [[server]]")
        return []
    known = {entry.name for entry in fields(Credential)}
    entries = []
    for number, table in enumerate(tables):
        path = ("server", str(number))
        before = len(faults.found)
        values = read_section(SERVER, table, path, faults)
        if len(faults.found) > before:
            continue
        if not all("://" in prefix for prefix in values["urls"]):
            faults.add((*path, "urls"), "has one that is no URL; write scheme://host/path")
        if bool(values["client_certificate"]) != bool(values["client_key"]):
            faults.add((*path, "client_key"), "client_certificate and client_key belong together")
        entries.append(Credential(**{name: value for name, value in values.items() if name in known}))
    return entries
