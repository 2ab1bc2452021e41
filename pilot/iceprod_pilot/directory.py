"""A directory in the place of a cluster: blobs by content, and the files that tasks of one job have written.

ROOT/blobs/DIGEST       content, for its owner alone
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import BadInput, IntegrityError, NotFound
from iceprod_p2p.model.files import matches
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2
from iceprod_pilot.config import Node
from iceprod_pilot.staging import DIGEST

PIECE_BYTES: Final = 1024 * 1024


class DirectorySource:
    """Serves and keeps content below `root`.  For one process; its methods may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._blobs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files: dict[str, common_pb2.FileEntry] = {}
        self._software: dict[tuple[str, str], common_pb2.SoftwareBuild] = {}

    def record(self, entries: Iterable[common_pb2.FileEntry]) -> None:
        """Note what a task that ended well has written, as the ledger would."""
        for entry in entries:
            known = self._files.get(entry.name)
            if known is not None and known.sha256 != entry.sha256:
                raise BadInput(f"file {entry.name!r} was written by another task already")
            self._files[entry.name] = entry

    def blob_path(self, sha256: str) -> Path:
        """Return where a blob lies or would lie; BadInput for a malformed digest."""
        if DIGEST.fullmatch(sha256) is None:
            raise BadInput(f"{sha256[:80]!r} is not a SHA-256 in lower-case hexadecimal digits")
        return self._blobs / sha256

    def resolve(self, request: pilot_pb2.ResolveRequest) -> pilot_pb2.ResolveReply:
        """Return what was recorded of logical names."""
        reply = pilot_pb2.ResolveReply()
        for name in request.names:
            entry = self._files.get(name)
            found = reply.files.add(name=name, found=entry is not None)
            if entry is not None:
                found.file.CopyFrom(entry)
        return reply

    def find_files(self, request: pilot_pb2.FindFilesRequest) -> pilot_pb2.FindFilesReply:
        """Return every file whose name matches, by name; never in pages."""
        reply = pilot_pb2.FindFilesReply()
        for name in sorted(self._files):
            if matches(request.pattern, name):
                reply.files.add(dataset=request.dataset, job=request.job, file=self._files[name])
        return reply

    def software(self, request: pilot_pb2.SoftwareRequest) -> pilot_pb2.SoftwareReply:
        """Return the builds of a version: here those that were given for this run."""
        found = self._software.get((request.name, request.version))
        if found is None:
            raise NotFound(
                f"software {request.name} {request.version} comes from the cluster",
                remedy="give it here: --software NAME/VERSION=TARBALL",
            )
        return pilot_pb2.SoftwareReply(builds=[found])

    def offer(self, build: common_pb2.SoftwareBuild) -> None:
        """Let tasks find a build whose tarball is here."""
        self._software[build.name, build.version] = build

    def credentials(self) -> pilot_pb2.CredentialsReply:
        """Refuse: there is no site here."""
        raise BadInput("there is no site here that could hand out credentials")

    def call_site(self, request: pilot_pb2.SiteCall) -> pilot_pb2.SiteAnswer:
        """Refuse: there is no site here."""
        raise BadInput(f"there is no site here that could answer {request.method[:80]!r}")

    def get_blob(self, sha256: str, *, offset: int) -> Iterator[bytes]:
        """Yield the bytes of a blob from `offset` on; NotFound when it is not here."""
        try:
            file = self.blob_path(sha256).open("rb")
        except FileNotFoundError:
            raise NotFound(f"blob {sha256[:12]} is not here: it would come from the cluster") from None
        with file:
            file.seek(offset)
            while piece := file.read(PIECE_BYTES):
                yield piece

    def upload_state(self, sha256: str) -> common_pb2.UploadState:
        """Return that nothing is kept: a directory takes content whole."""
        return common_pb2.UploadState()

    def put_blob(
        self,
        sha256: str,
        size_bytes: int,
        pieces: Iterable[bytes],
        *,
        node: Node | None = None,
        offset: int = 0,
    ) -> common_pb2.BlobReply:
        """Store a blob; IntegrityError when it is not what was announced."""
        target = self.blob_path(sha256)
        scratch = target.with_name(f".{sha256}.{os.getpid()}.partial")
        total, size = new_sha256(), 0
        try:
            with scratch.open("wb") as file:
                for piece in pieces:
                    total.update(piece)
                    size += len(piece)
                    file.write(piece)
            if (total.hexdigest(), size) != (sha256, size_bytes):
                raise IntegrityError(f"blob {sha256[:12]} changed while it was stored")
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
        return common_pb2.BlobReply(sha256=sha256, size_bytes=size)
