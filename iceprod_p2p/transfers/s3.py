"""``s3://bucket/key``: Amazon's S3 and what speaks its language, by boto3 (the extra ``iceprod-p2p[s3]``).

Every part that is sent carries its MD5, so that the service itself refuses what arrived altered; a large upload that
broke off goes on with the parts that are missing.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed, NotFound, Unavailable
from iceprod_p2p.transfers.credentials import Credential, Credentials
from iceprod_p2p.transfers.limits import Limits, Watch
from iceprod_p2p.transfers.storage import Reading, Stat, Storage, check_size
from iceprod_p2p.transfers.sums import Measured
from iceprod_p2p.transfers.url import Url

PART_BYTES: Final = 32 * 1024 * 1024  # Held in memory while it is sent.
PARTS_MAX: Final = 10_000
_MISSING: Final = ("404", "NoSuchKey", "NoSuchBucket", "NotFound")
_FORBIDDEN: Final = (
    "401",
    "403",
    "AccessDenied",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
)
_PASSING: Final = (
    "SlowDown",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "BadDigest",
    "PreconditionFailed",
    "412",
    "IncompleteBody",
    "NoSuchUpload",
)
Answer = TypeVar("Answer")


class S3Reading(Reading):
    """An object being read, under a watch."""

    def __init__(self, body: Any, stat: Stat, offset: int, watch: Watch, url: Url) -> None:
        self._body = body
        self._watch = watch
        self._url = url
        self._open = True
        self.stat = stat
        self.offset = offset

    def read(self, size_bytes: int) -> bytes:
        """Read on; see `Reading`."""
        try:
            data: bytes = self._body.read(min(size_bytes, 64 * 1024))
        except Exception as broken:  # What boto3, urllib3 and sockets raise has no common ancestor.
            raise Unavailable(f"reading {self._url} failed: {type(broken).__name__}") from broken
        self._watch.moved(len(data))
        return data

    def close(self) -> None:
        """Close the connection; Unavailable when it was the watch that ended it."""
        if self._open:
            self._open = False
            self._body.close()
            self._watch.__exit__(None, None, None)


class S3Storage(Storage):
    """Buckets."""

    schemes = ("s3",)

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        self._clients: dict[tuple[Credential, float], Any] = {}
        self._uploads: dict[str, tuple[str, str]] = {}  # URL -> SHA-256 of the file, id of its upload

    def stat(self, url: Url, limits: Limits) -> Stat:
        """HEAD of the object."""
        answer = self._ask(url, limits, lambda client: client.head_object(**_where(url)))
        return _stat(answer, int(answer["ContentLength"]))

    def open(self, url: Url, limits: Limits, *, part_of: Stat, offset: int = 0) -> Reading:
        """GET, from the offset if the object is the same."""
        stat = self.stat(url, limits)
        check_size(url, stat.size_bytes, limits)
        offset = offset if stat == part_of and 0 < offset < stat.size_bytes else 0
        more: dict[str, str] = {"IfMatch": stat.version} if stat.version else {}
        if offset:
            more["Range"] = f"bytes={offset}-{stat.size_bytes - 1}"
        answer = self._ask(url, limits, lambda client: client.get_object(**_where(url), **more))
        body = answer["Body"]
        watch = Watch(limits, f"GET {url}", body.close)
        watch.__enter__()
        return S3Reading(body, stat, offset, watch, url)

    def store(self, path: Path, url: Url, measured: Measured, limits: Limits) -> bool:
        """PUT at once, or in parts that an earlier attempt need not send again."""
        if measured.size_bytes > PART_BYTES:
            self._store_parts(path, url, measured, limits)
            return True
        body = path.read_bytes()
        sums = {"ContentMD5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}
        self._ask(url, limits, lambda client: client.put_object(**_where(url), Body=body, **sums))
        return True

    def sums(self, url: Url, algorithms: Sequence[str], limits: Limits) -> Mapping[str, str]:
        """Return what the service says: the MD5 of an object that came in one piece."""
        found = self.stat(url, limits).sums
        return found if set(found) & set(algorithms) else {}

    def copy(self, source: Url, destination: Url, limits: Limits) -> bool:
        """Have the service copy; only where both are reached by the same keys."""
        if {source.scheme, destination.scheme} != {"s3"}:
            return False
        if self._credentials.of(source) != self._credentials.of(destination):
            return False
        self.stat(source, limits)
        self._ask(destination, limits, lambda client: client.copy(_where(source), **_where(destination)))
        return True

    def remove(self, url: Url, limits: Limits) -> None:
        """DELETE; NotFound when there is no such object, which S3 itself does not say."""
        self.stat(url, limits)
        self._ask(url, limits, lambda client: client.delete_object(**_where(url)))

    def give_up(self, url: Url) -> None:
        """Abort an upload in parts: what the service holds of it costs money."""
        with self._lock:
            _, upload = self._uploads.pop(url.text, ("", ""))
        if upload:
            limits = Limits(timeout_s=10.0)
            try:
                self._ask(url, limits, lambda c: c.abort_multipart_upload(**_where(url), UploadId=upload))
            except IceProdError:
                return  # It cannot be reached; buckets have rules that clear such away.

    def _store_parts(self, path: Path, url: Url, measured: Measured, limits: Limits) -> None:
        part_bytes = max(PART_BYTES, -(-measured.size_bytes // PARTS_MAX))
        upload, there = self._upload(url, measured, limits)
        parts: list[dict[str, Any]] = []
        with path.open("rb") as file:
            for number in range(1, -(-measured.size_bytes // part_bytes) + 1):
                if limits.wait(0.0):
                    raise Unavailable(f"{url}: the transfer was ended, it is no longer wanted")
                etag = self._part(file, number, part_bytes, there, url, upload, limits)
                parts.append({"PartNumber": number, "ETag": etag})
        answer = self._ask(
            url,
            limits,
            lambda client: client.complete_multipart_upload(
                **_where(url), UploadId=upload, MultipartUpload={"Parts": parts}
            ),
        )
        with self._lock:
            self._uploads.pop(url.text, None)
        whole = hashlib.md5(
            b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts if len(part["ETag"]) == 34),
            usedforsecurity=False,
        )
        said = str(answer.get("ETag", "")).strip('"')
        if said.endswith(f"-{len(parts)}") and said != f"{whole.hexdigest()}-{len(parts)}":
            raise Unavailable(f"{url} was put together as {said}, not from the parts that were sent")

    def _part(
        self,
        file: IO[bytes],
        number: int,
        part_bytes: int,
        there: Mapping[int, str],
        url: Url,
        upload: str,
        limits: Limits,
    ) -> str:
        file.seek((number - 1) * part_bytes)
        body = file.read(part_bytes)
        digest = hashlib.md5(body, usedforsecurity=False)
        etag = f'"{digest.hexdigest()}"'
        if there.get(number) == etag:
            return etag
        answer = self._ask(
            url,
            limits,
            lambda client: client.upload_part(
                **_where(url),
                UploadId=upload,
                PartNumber=number,
                Body=body,
                ContentMD5=base64.b64encode(digest.digest()).decode(),
            ),
        )
        return str(answer["ETag"])

    def _upload(self, url: Url, measured: Measured, limits: Limits) -> tuple[str, Mapping[int, str]]:
        """Return the upload that an earlier attempt began, with its parts; else begin one."""
        with self._lock:
            sha256, upload = self._uploads.get(url.text, ("", ""))
        if upload and sha256 == measured.sha256:
            try:
                pages = self._ask(
                    url,
                    limits,
                    lambda client: list(
                        client.get_paginator("list_parts").paginate(**_where(url), UploadId=upload)
                    ),
                )
                return upload, {p["PartNumber"]: p["ETag"] for page in pages for p in page.get("Parts", ())}
            except NotFound:
                upload = ""
        answer = self._ask(url, limits, lambda client: client.create_multipart_upload(**_where(url)))
        upload = str(answer["UploadId"])
        with self._lock:
            self._uploads[url.text] = (measured.sha256, upload)
        return upload, {}

    def _ask(self, url: Url, limits: Limits, call: Callable[[Any], Answer]) -> Answer:
        who = self._credentials.of(url)
        try:
            return call(self._client(who, limits))
        except IceProdError:
            raise
        except Exception as failure:  # Those of botocore are made at run time; `_judged` knows them by name.
            if not isinstance(failure, OSError | ValueError) and not _of_library(failure):
                raise
            raise _judged(url, failure) from failure

    def _client(self, who: Credential, limits: Limits) -> Any:
        """Return a client for these keys; boto3's are thread-safe."""
        try:
            import boto3
            from botocore import UNSIGNED
            from botocore.config import Config
        except ImportError as missing:
            raise BadInput("s3 needs the package boto3", remedy="pip install 'iceprod-p2p[s3]'") from missing
        key = (who, limits.timeout_s)
        with self._lock:
            client = self._clients.get(key)
            if client is None:
                client = self._clients[key] = boto3.session.Session().client(
                    "s3",
                    endpoint_url=who.endpoint or None,
                    region_name=who.region,
                    aws_access_key_id=who.access_key or None,
                    aws_secret_access_key=who.secret_key or None,
                    aws_session_token=who.session_token or None,
                    verify=who.ca_file or None,
                    config=Config(
                        signature_version=None if who.access_key else UNSIGNED,
                        retries={"total_max_attempts": 1},
                        connect_timeout=limits.timeout_s,
                        read_timeout=limits.timeout_s,
                        s3={"addressing_style": "path" if who.endpoint else "auto"},
                    ),
                )
        return client


def _where(url: Url) -> dict[str, str]:
    key = url.path.lstrip("/")
    if not url.host or not key:
        raise BadInput(f"{url} names no object", remedy="write s3://bucket/key")
    return {"Bucket": url.host, "Key": key}


def _stat(answer: Mapping[str, Any], size_bytes: int) -> Stat:
    etag = str(answer.get("ETag", "")).strip('"').lower()
    plain = len(etag) == 32 and set(etag) <= set("0123456789abcdef") and not answer.get("SSEKMSKeyId")
    return Stat(size_bytes, str(answer.get("ETag", "")), {"md5": etag} if plain else {})


def _of_library(failure: Exception) -> bool:
    return type(failure).__module__.partition(".")[0] in (
        "botocore",
        "boto3",
        "s3transfer",
        "urllib3",
        "http",
    )


def _judged(url: Url, failure: Exception) -> IceProdError:
    answer = getattr(failure, "response", None)
    if isinstance(failure, OSError) or not isinstance(answer, dict):
        # What has no answer failed on the way, or before it (a name that boto3 refuses, missing keys).
        name = type(failure).__name__
        if "Param" in name or "Credentials" in name or "Invalid" in name or isinstance(failure, ValueError):
            return BadInput(f"{url}: {str(failure)[:300]}")
        return Unavailable(f"{url} cannot be reached: {name}")
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{url} answered {code or status}"
    if code in _MISSING or (status == 404 and code != "NoSuchUpload"):
        return NotFound(f"{url} does not exist: {code}")
    if code in _FORBIDDEN or status in (401, 403):
        return NotAllowed(f"{said}: no permission")
    if code in _PASSING or status in (408, 412, 429) or status >= 500:
        return Unavailable(said)
    return BadInput(said)
