"""Copies of files by URL: ``file``, ``http`` and ``https``, verified, and never visible half.

A download goes to a file beside its destination and is renamed only when its length and checksum are
right.  What may pass (time-outs, 429, 5xx) is tried again with growing pauses; what will not (404, a wrong
checksum) is not.
Deliberately absent: following a redirect from https to http, and any other scheme.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError, NotFound, Unavailable
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.checksum import CHUNK_BYTES, Digest, ExpectedChecksum, check_digest
from iceprod_p2p.modules.statistics import clip

ATTEMPTS = 4
PAUSE_S = 1.0  # before the second attempt; doubled for each further one
TIMEOUT_S = 60.0  # without a byte
SIZE_MAX_BYTES = 1024**4
PASSING_CODES = frozenset({408, 425, 429, 500, 502, 503, 504})
SCHEMES = ("file", "http", "https")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how much: attempts, the first pause, seconds without a byte, and the largest file."""

    attempts: int = ATTEMPTS
    pause_s: float = PAUSE_S
    timeout_s: float = TIMEOUT_S
    size_max_bytes: int = SIZE_MAX_BYTES


@dataclass(frozen=True, slots=True)
class Copied:
    """A finished copy: its bytes and SHA-256."""

    size_bytes: int
    sha256: str


def copy(
    source: str,
    destination: str,
    *,
    expected: ExpectedChecksum | None = None,
    limits: Limits | None = None,
) -> Copied:
    """Copy from a path or URL to a path, or from a path to a URL (PUT); directories on the way are made.

    BadInput for URLs it does not speak; NotFound when the source does not exist; IntegrityError when length
    or checksum are not as promised (the destination is then as it was, for paths); Unavailable when all
    attempts failed.
    """
    bounds = limits or Limits()
    source_url, destination_url = _parse(source), _parse(destination)
    if destination_url.scheme == "file":
        target = _path(destination_url)
        opener = (
            _file_opener(_path(source_url)) if source_url.scheme == "file" else _http_opener(source, bounds)
        )
        return _with_attempts(lambda: _store(opener, target, source, expected, bounds), bounds)
    if source_url.scheme != "file":
        raise BadInput("a copy from one server to another is not possible", remedy="copy to a file first")
    path = _path(source_url)
    return _with_attempts(lambda: _upload(path, destination, expected, bounds), bounds)


Opener = Callable[[], tuple[IO[bytes], int | None]]


def _parse(url: str) -> urllib.parse.SplitResult:
    if "://" not in url:
        return urllib.parse.SplitResult("file", "", os.path.abspath(os.path.expanduser(url)), "", "")
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as wrong:
        raise BadInput(f"{clip(url)} is not a URL: {wrong}") from wrong
    if parts.scheme not in SCHEMES:
        raise BadInput(
            f"{clip(url)} has a scheme that is not known", remedy=f"use one of {', '.join(SCHEMES)}"
        )
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise BadInput(f"{clip(url)} names a file of another machine", remedy="write file:///path")
    return parts


def _path(url: urllib.parse.SplitResult) -> Path:
    return Path(urllib.parse.unquote(url.path) if url.netloc or "%" in url.path else url.path)


def _with_attempts(attempt: Callable[[], Copied], limits: Limits) -> Copied:
    pause_s = limits.pause_s
    for left in range(limits.attempts - 1, -1, -1):
        try:
            return attempt()
        except Unavailable as passing:
            if not left:
                raise Unavailable(f"{passing.message}; {limits.attempts} attempts were made") from passing
        time.sleep(pause_s)
        pause_s *= 2
    raise BadInput(f"{limits.attempts} attempts are too few", remedy="allow at least one")


def _store(
    opener: Opener, target: Path, source: str, expected: ExpectedChecksum | None, limits: Limits
) -> Copied:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256 = Digest("sha256")
    promised = Digest(expected.algorithm) if expected else None
    size_bytes = 0
    try:
        stream, length = opener()
        with closing(stream), partial.open("wb") as file:
            while data := _read(stream, source):
                size_bytes += len(data)
                if size_bytes > limits.size_max_bytes:
                    raise BadInput(f"{source} is larger than the {limits.size_max_bytes} bytes allowed")
                sha256.update(data)
                if promised:
                    promised.update(data)
                file.write(data)
        if length is not None and size_bytes != length:
            raise Unavailable(f"{source} ended after {size_bytes} of {length} bytes")
        if expected and promised:
            check_digest(source, expected, promised.hexdigest())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return Copied(size_bytes, sha256.hexdigest())


def _read(stream: IO[bytes], source: str) -> bytes:
    try:
        return stream.read(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as broken:
        raise Unavailable(f"reading {source} failed: {broken or type(broken).__name__}") from broken


def _file_opener(path: Path) -> Opener:
    def open_file() -> tuple[IO[bytes], int | None]:
        try:
            return path.open("rb"), path.stat().st_size
        except (FileNotFoundError, IsADirectoryError) as missing:
            raise NotFound(f"the file {str(path)!r} does not exist") from missing

    return open_file


def _http_opener(url: str, limits: Limits) -> Opener:
    def open_url() -> tuple[IO[bytes], int | None]:
        # Any transparent compression would make the promised length another one.
        response = _request(url, limits, headers={"Accept-Encoding": "identity"})
        length = response.headers.get("Content-Length")
        return response, int(length) if length and length.isdigit() else None

    return open_url


def _upload(path: Path, url: str, expected: ExpectedChecksum | None, limits: Limits) -> Copied:
    stream, length = _file_opener(path)()
    with stream:
        sha256, promised = Digest("sha256"), Digest(expected.algorithm) if expected else None
        while data := stream.read(CHUNK_BYTES):
            sha256.update(data)
            if promised:
                promised.update(data)
        if expected and promised:
            check_digest(str(path), expected, promised.hexdigest())
        stream.seek(0)
        with closing(_request(url, limits, body=stream, headers={"Content-Length": str(length)})):
            return Copied(length or 0, sha256.hexdigest())


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Refuses to follow a redirect that leaves encryption behind, or HTTP altogether."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme != "https"):
            raise BadInput(f"{req.full_url} redirects to {clip(newurl)}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(
    url: str, limits: Limits, *, body: IO[bytes] | None = None, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, data=body, headers=dict(headers), method="PUT" if body else "GET")
    opener = urllib.request.build_opener(_NoDowngrade)
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=limits.timeout_s)
        return response
    except urllib.error.HTTPError as answer:
        answer.close()
        raise _http_error(url, answer) from answer
    except (OSError, http.client.HTTPException) as broken:
        reason = getattr(broken, "reason", broken)
        raise Unavailable(f"{url} cannot be reached: {reason}") from broken


def _http_error(url: str, answer: urllib.error.HTTPError) -> IceProdError:
    if answer.code in PASSING_CODES:
        return Unavailable(f"{url} answered {answer.code} {answer.reason}")
    if answer.code in (404, 410):
        return NotFound(f"{url} does not exist: {answer.code} {answer.reason}")
    return BadInput(f"{url} answered {answer.code} {answer.reason}")


class Transfer(IPModule):
    """Copy one file by path or URL (file, http, https), and verify its checksum."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("source", "path or URL to read", "", "string")
        self.AddParameter("destination", "path to write, or URL to PUT to", "", "string")
        self.AddParameter("checksum", "ALGORITHM:HEX that the file must have; empty: any", "", "string")
        self.AddParameter("attempts", "how often to try", ATTEMPTS, "int")
        self.AddParameter("timeout", "seconds without a byte before an attempt fails", TIMEOUT_S, "float")

    def Execute(self, stats: Statistics) -> int:
        """Copy it; see `copy` for the errors."""
        source, destination = self.GetParameter("source"), self.GetParameter("destination")
        if not source or not destination:
            raise BadInput("Transfer needs a source and a destination")
        text = self.GetParameter("checksum")
        limits = Limits(attempts=self.GetParameter("attempts"), timeout_s=self.GetParameter("timeout"))
        copied = copy(
            source, destination, expected=ExpectedChecksum.parse(text) if text else None, limits=limits
        )
        self.logger.info(
            "copied %s to %s: %d bytes, sha256 %s", source, destination, copied.size_bytes, copied.sha256
        )
        stats["bytes_transferred"] = copied.size_bytes
        return 0


__all__ = ["Copied", "IntegrityError", "Limits", "Transfer", "copy"]
