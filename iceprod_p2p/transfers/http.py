"""``https`` and ``http``, WebDAV beside them (``davs``, ``dav``), and third-party copies as storage systems do them."""

from __future__ import annotations

import base64
import http.client
import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from iceprod_p2p.base.errors import BadInput, ConfigError, IceProdError, NotAllowed, NotFound, Unavailable
from iceprod_p2p.transfers import http_wire
from iceprod_p2p.transfers.credentials import Credential, Credentials
from iceprod_p2p.transfers.limits import Limits, Watch
from iceprod_p2p.transfers.storage import Reading, Stat, Storage, check_size
from iceprod_p2p.transfers.sums import Measured, from_header
from iceprod_p2p.transfers.url import Url, parse

_WIRE: Final = {"http": "http", "https": "https", "dav": "http", "davs": "https"}
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_WANTED: Final = {"sha256": "sha-256", "sha512": "sha-512", "sha1": "sha", "md5": "md5", "adler32": "adler32"}
_IDENTITY: Final = {"Accept-Encoding": "identity"}  # Any other would make the promised length another one.
_NO_COLLECTION: Final = frozenset({409, 500})  # WebDAV says 409 where a directory is missing, nginx says 500.
_BUSY: Final = frozenset({408, 425, 429, 503})
MARKER_BYTES_MAX: Final = 16 * 1024 * 1024


class HttpReading(Reading):
    """A response body being read, under a watch."""

    def __init__(self, response: http.client.HTTPResponse, watch: Watch, url: Url) -> None:
        self._response = response
        self._watch = watch
        self._url = url
        self._open = True

    def read(self, size_bytes: int) -> bytes:
        """Read on; see `Reading`."""
        try:
            # One call of the socket at a time, so that what drips is seen by the watch.
            data = self._response.read1(size_bytes)
        except (OSError, http.client.HTTPException, ValueError) as broken:
            raise Unavailable(f"reading {self._url} failed: {broken or type(broken).__name__}") from broken
        self._watch.moved(len(data))
        return data

    def close(self) -> None:
        """Close the connection; Unavailable when it was the watch that ended it."""
        if self._open:
            self._open = False
            self._response.close()
            self._watch.__exit__(None, None, None)


class HttpStorage(Storage):
    """Web servers and the HTTP doors of storage systems."""

    schemes = tuple(_WIRE)

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def stat(self, url: Url, limits: Limits) -> Stat:
        """HEAD; where a server does not know it, GET without reading on."""
        try:
            response, _ = self._whole("HEAD", url, limits, headers=_IDENTITY)
        except BadInput:
            with self.open(url, limits, part_of=Stat()) as reading:
                return reading.stat
        return _stat(response)

    def open(self, url: Url, limits: Limits, *, part_of: Stat, offset: int = 0) -> Reading:
        """GET, from the offset when the server knows it is the same file."""
        headers = dict(_IDENTITY)
        going_on = 0 < offset < part_of.size_bytes and bool(part_of.version)
        if going_on:
            # With its end: XrdHttp 5.5 answers an open range with nothing.
            headers |= {"Range": f"bytes={offset}-{part_of.size_bytes - 1}", "If-Range": part_of.version}
        link = http_wire.Link()
        watch = Watch(limits, f"GET {url}", link.break_off)
        watch.__enter__()
        try:
            response = http_wire.request(
                "GET", self._wire(url), headers=headers, limits=limits, link=link, **self._who()
            )
        except BaseException as failure:
            watch.__exit__(type(failure), failure, None)
            raise
        reading = HttpReading(response, watch, url)
        try:
            reading.stat, reading.offset = _place(response, part_of, offset if going_on else 0)
            check_size(url, reading.stat.size_bytes, limits)
        except IceProdError:
            reading.close()
            raise
        return reading

    def store(self, path: Path, url: Url, measured: Measured, limits: Limits) -> bool:
        """PUT; where a collection above is missing, it is made and the PUT repeated."""
        try:
            self._put(path, url, measured, limits)
        except (NotFound, http_wire.Answered) as failure:
            if isinstance(failure, http_wire.Answered) and failure.code not in _NO_COLLECTION:
                raise
            forbidden = self._make_collections(url, limits)
            try:
                self._put(path, url, measured, limits)
            except (NotFound, http_wire.Answered) as again:
                raise forbidden or again from again
        return False

    def sums(self, url: Url, algorithms: Sequence[str], limits: Limits) -> Mapping[str, str]:
        """Ask with Want-Digest (RFC 3230) and Want-Repr-Digest (RFC 9530), one algorithm after the other."""
        for algorithm in algorithms:
            word = _WANTED.get(algorithm)
            if word is None:
                continue
            headers = {**_IDENTITY, "Want-Digest": word, "Want-Repr-Digest": f"{word}=1"}
            try:
                response, _ = self._whole("HEAD", url, limits, headers=headers)
            except BadInput:
                return {}
            found = _stat(response).sums
            if algorithm in found:
                return found
        return {}

    def copy(self, source: Url, destination: Url, limits: Limits) -> bool:
        """COPY: within one server as WebDAV has it, between two as HTTP-TPC: drawn by the destination, else pushed."""
        if source.scheme not in _WIRE or destination.scheme not in _WIRE:
            return False
        ways = [("pull", destination, source), ("push", source, destination)]
        if self._wire(source).split("/")[:3] == self._wire(destination).split("/")[:3]:
            ways = [("push", source, destination), ("pull", destination, source)]
        return any(self._third_party(*way, limits) for way in ways)

    def remove(self, url: Url, limits: Limits) -> None:
        """DELETE."""
        self._whole("DELETE", url, limits, headers={})

    def _third_party(self, way: str, active: Url, passive: Url, limits: Limits) -> bool:
        """Ask `active` to copy; False when it does not know how, Unavailable when it tried and failed."""
        headers = {
            "Source" if way == "pull" else "Destination": self._wire(passive),
            "Overwrite": "T",
            "Depth": "0",
        }
        if self._wire(active).split("/")[:3] != self._wire(passive).split("/")[:3]:
            headers["Credential"] = "none"
            headers["RequireChecksumVerification"] = "false"  # It is compared afterwards, by the engine.
            passed = self._authorize(self._wire(passive)).get("Authorization")
            if passed:
                headers["TransferHeaderAuthorization"] = passed
        try:
            return self._ask_copy(active, headers, limits)
        except http_wire.Answered as failure:
            if way == "pull" or failure.code not in _NO_COLLECTION:
                if failure.code in _BUSY:
                    raise
                return False
        except NotFound:
            return False
        self._make_collections(passive, limits)
        try:
            return self._ask_copy(active, headers, limits)
        except (NotFound, http_wire.Answered):
            return False

    def _ask_copy(self, active: Url, headers: Mapping[str, str], limits: Limits) -> bool:
        link = http_wire.Link()
        with Watch(limits, f"COPY by {active}", link.break_off) as watch:
            try:
                response = http_wire.request(
                    "COPY", self._wire(active), headers=headers, limits=limits, link=link, **self._who()
                )
            except (BadInput, NotAllowed):
                return False
            with response:
                return _copied(response, watch, active)

    def _put(self, path: Path, url: Url, measured: Measured, limits: Limits) -> None:
        headers = {"Content-Length": str(measured.size_bytes), "Content-Type": "application/octet-stream"}
        if measured.size_bytes:
            headers["Expect"] = "100-continue"
        with path.open("rb") as file:
            self._whole("PUT", url, limits, headers=headers, moved=lambda watch: _Counted(file, watch))

    def _make_collections(self, url: Url, limits: Limits) -> NotAllowed | None:
        """Make what is above a file, from the top; return the refusal of the last one, if it was refused."""
        forbidden = None
        parts = url.encoded_path.strip("/").split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            above = Url(url.scheme, url.host, "/" + "/".join(parts[:depth]) + "/")
            try:
                self._whole("MKCOL", above, limits, headers={})
                forbidden = None
            except NotAllowed as refusal:
                forbidden = refusal
            except (BadInput, NotFound, Unavailable):
                continue  # It is there already, or the PUT will say what is wrong.
        return forbidden

    def _whole(
        self, method: str, url: Url, limits: Limits, **arguments: Any
    ) -> tuple[http.client.HTTPResponse, bytes]:
        return http_wire.whole(method, self._wire(url), limits=limits, **arguments, **self._who())

    def _who(self) -> dict[str, Any]:
        return {"authorize": self._authorize, "context": self._context}

    def _wire(self, url: Url) -> str:
        return url.with_scheme(_WIRE[url.scheme]).text

    def _of(self, wire: str) -> Credential:
        """Return what belongs to the server of a URL, by whichever of its schemes the file names it."""
        url = parse(wire)
        for scheme, wired in _WIRE.items():
            if wired == url.scheme and (found := self._credentials.of(url.with_scheme(scheme))).urls:
                return found
        return Credential()

    def _authorize(self, wire: str) -> Mapping[str, str]:
        who = self._of(wire)
        token = who.bearer()
        if token:
            return {"Authorization": f"Bearer {token}"}
        if who.username:
            pair = base64.b64encode(f"{who.username}:{who.password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    def _context(self, wire: str) -> ssl.SSLContext:
        who = self._of(wire)
        try:
            context = ssl.create_default_context(cafile=who.ca_file or None, capath=who.ca_directory or None)
            if who.x509_proxy:
                context.load_cert_chain(who.x509_proxy)
            elif who.client_certificate:
                context.load_cert_chain(who.client_certificate, who.client_key)
        except (OSError, ssl.SSLError) as failure:
            raise ConfigError(
                f"the certificates for {parse(wire).host} cannot be used: {failure}",
                remedy="mend the site's file of credentials",
            ) from failure
        return context


class _Counted:
    """A file being sent, its bytes told to the watch."""

    def __init__(self, file: IO[bytes], watch: Watch) -> None:
        self._file = file
        self._watch = watch

    def read(self, size_bytes: int = -1) -> bytes:
        data = self._file.read(size_bytes)
        self._watch.moved(len(data))
        return data

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)


def _stat(response: http.client.HTTPResponse) -> Stat:
    length = response.headers.get("Content-Length", "")
    version = response.headers.get("ETag", "")
    if not version or version.startswith("W/"):
        version = response.headers.get("Last-Modified", "")
    sums = from_header(
        ",".join(response.headers.get_all("Digest", []) + response.headers.get_all("Repr-Digest", []))
    )
    return Stat(int(length[:30]) if length.isdigit() else -1, version, sums)


def _place(response: http.client.HTTPResponse, part_of: Stat, offset: int) -> tuple[Stat, int]:
    """Return what is read and from where: a server may give the rest, or the whole again."""
    if response.status != 206:
        return _stat(response), 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != offset or match[3] != str(part_of.size_bytes):
        raise Unavailable("the server gave another part than was asked for")
    return part_of, offset


def _copied(response: http.client.HTTPResponse, watch: Watch, active: Url) -> bool:
    """Read the progress of a copy to its end (HTTP-TPC's markers); Unavailable unless it says success."""
    if response.status != 202 and not (response.status == 201 and response.headers.get("Transfer-Encoding")):
        return True  # WebDAV's own COPY is done when it is answered.
    last, total = b"", 0
    try:
        while data := response.read1(65_536):
            watch.moved(max(1024 * 1024, len(data)))  # A marker is a sign of life, whatever its size.
            total += len(data)
            last = (last + data)[-1024:]
            if total > MARKER_BYTES_MAX:
                raise BadInput(f"{active} answers a copy without end")
    except (OSError, http.client.HTTPException) as broken:
        raise Unavailable(f"the copy by {active} broke off: {broken}") from broken
    line = last.strip().splitlines()[-1].decode("utf-8", "replace") if last.strip() else ""
    if line.lower().startswith("success"):
        return True
    shown = "".join(char if char.isprintable() else "?" for char in line)[:300]
    raise Unavailable(f"the copy by {active} failed: {shown or 'no outcome was given'}")
