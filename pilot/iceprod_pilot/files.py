"""The files of one attempt: inputs found by logical name and brought, outputs uploaded and listed for the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError, NotFound, Unavailable
from iceprod_p2p.model.files import is_pattern
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2
from iceprod_pilot.attempt import Attempt, TaskFailure
from iceprod_pilot.gather import found_files
from iceprod_pilot.link import patiently
from iceprod_pilot.outside import Outside, blob_sources, check_sums, is_outside, with_sources
from iceprod_pilot.packing import pack, unpack
from iceprod_pilot.plan import Move, Step
from iceprod_pilot.source import Source
from iceprod_pilot.staging import DIGEST, Content, Staging
from iceprod_pilot.workspace import MIB, TaskDirectory, inside, is_plain_file

COPYING_AFTER_S: Final = 1.0  # A shorter upload is over before anybody could read that it is under way.
RESOLVE_NAMES_MAX: Final = 500  # In one call.
DISK_MIB_DEFAULT: Final = 64 * 1024  # For opening archives of a task that set no limit of disk.
_BLOB_URL: Final = re.compile(r"iceprod://sha256/([^/#?]*)(?:[/#?](.*))?")


class Files:
    """Brings and takes away; used by the attempt's own thread alone."""

    def __init__(
        self,
        attempt: Attempt,
        directory: TaskDirectory,
        staging: Staging,
        link: Source,
        clock: Clock,
        say: Callable[[pilot_pb2.Report], None],
        lend: Callable[[Content], Path] | None = None,
        outside: Outside | None = None,
    ) -> None:
        """`lend` returns where a shared input lies on this worker node; without it each task has its own copy."""
        self._lend = lend
        self._outside = outside or Outside()
        self._attempt = attempt
        self._directory = directory
        self._staging = staging
        self._link = link
        self._clock = clock
        self._say = say
        self._wait = attempt.cancel.wait
        self._upload_began_s: float | None = None
        self._said_copying = False

    def bring(self, moves: Sequence[Move]) -> None:
        """Put every input at its place, verified.  TaskFailure names the file that is missing or not as recorded."""
        gathered = [move for move in moves if is_pattern(move.remote) and "://" not in move.remote]
        for move in gathered:
            self._gather(move)
        moves = [move for move in moves if move not in gathered]
        contents = self._resolve([move for move in moves if "://" not in move.remote])
        for move in moves:
            self._attempt.cancel.check()
            target = inside(self._directory.work, move.local)
            if is_outside(move.remote):
                self._outside.bring(move, target, self._attempt)
                self._open_packed(move, target)
                continue
            content = blob_url(move.remote)[0] if "://" in move.remote else contents[move.remote]
            if content is None:
                if move.optional:
                    continue
                raise TaskFailure(FailReason.INPUT_MISSING, f"nobody has recorded the input {move.remote!r}")
            self._deliver(content, target, name=move.remote, shared=move.shared and not move.compression)
            if move.checksum:
                check_sums(target, move.checksum, move.remote)
            self._open_packed(move, target)

    def _gather(self, move: Move) -> None:
        """Bring every file that a pattern finds, below one directory, which is there even when none is found."""
        inside(self._directory.work, move.local).mkdir(parents=True, exist_ok=True)
        for where, entry in found_files(self._link, self._attempt, move.remote):
            self._attempt.cancel.check()
            target = inside(self._directory.work, f"{move.local}/{where}")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._deliver(Content(entry.sha256, entry.size_bytes, entry.name), target, name=entry.name)
            self._open_packed(move, target)

    def source(self, src: str, *, is_class: bool) -> str:
        """Return where a module's `src` lies: fetched below its base name when it is a blob, else as it was written."""
        if not src.startswith("iceprod://"):
            return src
        content, name = blob_url(src)
        target = inside(self._directory.work, PurePosixPath(name).name if name else f"m{content.sha256[:12]}")
        self._deliver(content, target, name=src)
        if not name and (is_class or not _has_magic(target)):
            # A file without a name says only by its first bytes whether it is a program; else it is Python.
            target = target.rename(target.with_suffix(".py"))
        return str(target.relative_to(self._directory.work))

    def with_blobs(self, step: Step) -> Step:
        """Return the step of a module with the cluster's blobs that it copies from fetched into the task."""
        places = {}
        for url in blob_sources(step):
            content, _ = blob_url(url)
            target = inside(self._directory.work, f".blob-{content.sha256}")
            self._deliver(content, target, name=url)
            places[url] = str(target)
        return with_sources(step, places) if places else step

    def take_away(self, moves: Sequence[Move]) -> list[common_pb2.FileEntry]:
        """Upload every output; return the entries for the report.  TaskFailure when one was not written."""
        entries = []
        for move in moves:
            path = inside(self._directory.work, move.local)
            if not is_plain_file(path, self._directory.work):
                if move.optional:
                    continue
                raise TaskFailure(
                    FailReason.OUTPUT_MISSING,
                    f"the output {move.local!r} was not written, or is no plain file",
                )
            if move.compression:
                path = pack(path, self._directory.root, compression=move.compression)
            entries.append(self._publish(move, path))
        return entries

    def upload(self, path: Path, name: str, *, kind: str) -> common_pb2.FileEntry:
        """Upload one file and return its entry."""
        self._attempt.cancel.check()
        try:
            sent = self._staging.send(path, wait=self._wait, progress=self._uploading)
        except (Unavailable, NotFound, BadInput, IntegrityError) as failure:
            self._attempt.cancel.check()
            raise TaskFailure(
                FailReason.STORAGE, f"the output {name!r} could not be uploaded: {failure}"
            ) from failure
        return common_pb2.FileEntry(name=name, size_bytes=sent.size_bytes, sha256=sent.sha256, kind=kind)

    def _resolve(self, moves: Sequence[Move]) -> dict[str, Content | None]:
        """Ask what was recorded of logical names; a name that nobody knows gives None."""
        names = sorted({move.remote for move in moves})
        found: dict[str, Content | None] = dict.fromkeys(names)
        ref = self._attempt.ref
        for start in range(0, len(names), RESOLVE_NAMES_MAX):
            request = pilot_pb2.ResolveRequest(
                dataset=ref.dataset, job=ref.job, names=names[start : start + RESOLVE_NAMES_MAX]
            )
            try:
                reply = patiently(
                    partial(self._link.resolve, request), stop=self._wait, what="look-up of inputs"
                )
            except IceProdError as failure:
                self._attempt.cancel.check()
                raise TaskFailure(
                    FailReason.STORAGE, f"inputs could not be looked up: {failure}"
                ) from failure
            for file in reply.files:
                if file.found and file.name in found:
                    found[file.name] = Content(file.file.sha256, file.file.size_bytes, file.name)
        return found

    def _deliver(self, content: Content, target: Path, *, name: str, shared: bool = False) -> None:
        try:
            if shared and self._lend is not None:
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                target.unlink(missing_ok=True)
                target.symlink_to(self._lend(content))
            else:
                self._staging.deliver(content, target, wait=self._wait)
        except IntegrityError as wrong:
            raise TaskFailure(FailReason.INPUT_CHECKSUM, f"input {name!r}: {wrong.message}") from wrong
        except (NotFound, Unavailable) as missing:
            self._attempt.cancel.check()
            raise TaskFailure(
                FailReason.INPUT_MISSING, f"input {name!r} could not be fetched: {missing.message}"
            ) from missing

    def _publish(self, move: Move, path: Path) -> common_pb2.FileEntry:
        """Upload an output; one that has an address of its own is copied there too, and listed by its local name."""
        if not is_outside(move.remote):
            return self.upload(path, move.remote, kind=move.kind)
        entry = self.upload(path, move.local, kind=move.kind)
        return self._outside.take_away(move, path, entry, self._attempt)

    def _open_packed(self, move: Move, target: Path) -> None:
        if not move.compression or not target.exists():
            return
        disk_mib = self._attempt.order.requirements.disk_mib or DISK_MIB_DEFAULT
        try:
            unpack(target, self._directory.work, bytes_max=disk_mib * MIB)
        except IntegrityError as damaged:
            raise TaskFailure(
                FailReason.INPUT_CHECKSUM, f"input {move.remote!r}: {damaged.message}"
            ) from damaged

    def _uploading(self) -> bool:
        """Hear that an upload moves, on gRPC's thread; says so once when uploads have taken a while.

        Returns whether to go on.
        """
        if self._attempt.cancel.ending is not None:
            return False
        now_s = self._clock.monotonic_s()
        if self._upload_began_s is None:
            self._upload_began_s = now_s
        elif not self._said_copying and now_s - self._upload_began_s > COPYING_AFTER_S:
            self._said_copying = True
            report = self._attempt.report()
            report.copying.SetInParent()
            self._say(report)
        return True


def blob_url(url: str) -> tuple[Content, str]:
    """Read ``iceprod://sha256/DIGEST`` or ``iceprod://sha256/DIGEST/NAME``; BadInput for any other address."""
    match = _BLOB_URL.fullmatch(url)
    if match is None or DIGEST.fullmatch(match[1]) is None:
        raise BadInput(
            f"{url[:200]!r} is no address that a pilot can fetch",
            remedy="use a logical name, iceprod://sha256/DIGEST/NAME, or a URL of a storage",
        )
    return Content(match[1], name=url), match[2] or ""


def _has_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith((b"#!", b"\x7fELF"))
