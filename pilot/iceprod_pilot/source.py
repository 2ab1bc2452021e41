"""Where a task's content comes from and goes to: the cluster's nodes, or a directory when there is no cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from iceprod_p2p.wire.pb import common_pb2, pilot_pb2
from iceprod_pilot.config import Node


class Source(Protocol):
    """What staging needs of the outside.  Errors are those of `base.errors`; Unavailable is tried again."""

    def resolve(self, request: pilot_pb2.ResolveRequest) -> pilot_pb2.ResolveReply:
        """Return what was recorded of logical names."""
        ...

    def find_files(self, request: pilot_pb2.FindFilesRequest) -> pilot_pb2.FindFilesReply:
        """Return a page of files by a pattern of their names."""
        ...

    def call_site(self, request: pilot_pb2.SiteCall) -> pilot_pb2.SiteAnswer:
        """Carry a module's call to a site; the site's no is one of the errors."""
        ...

    def get_blob(self, sha256: str, *, offset: int) -> Iterator[bytes]:
        """Yield the bytes of a blob from `offset` on; NotFound when nobody has it."""
        ...

    def put_blob(
        self,
        sha256: str,
        size_bytes: int,
        pieces: Iterable[bytes],
        *,
        node: Node | None = None,
        offset: int = 0,
    ) -> common_pb2.BlobReply:
        """Store a blob, of which `offset` bytes are there already; return what was stored."""
        ...

    def upload_state(self, sha256: str) -> common_pb2.UploadState:
        """Return what is kept of an upload that was cut short."""
        ...

    def credentials(self) -> pilot_pb2.CredentialsReply:
        """Return what the site hands out for storages; NotAllowed where it does not."""
        ...

    def software(self, request: pilot_pb2.SoftwareRequest) -> pilot_pb2.SoftwareReply:
        """Return the builds of a version; NotFound when there is none."""
        ...
