"""Brings content to a task and takes it away, by its SHA-256: every hop is verified, whatever it came through.

Content that was fetched or made here is kept in a cache for later tasks.  Payloads run as the same user and could
alter the cache, so a task gets a copy that is hashed while it is made, never a link.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Final

from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.security.checksums import FileSum, StreamSum, chunks_of, hash_file
from iceprod_p2p.wire.pb import common_pb2
from iceprod_pilot.config import Node
from iceprod_pilot.link import patiently
from iceprod_pilot.source import Source

_LOG = get_logger("pilot.staging")
MIB: Final = 1024 * 1024
FETCHES_MAX: Final = 3  # Complete fetches of one blob that turned out wrong before it is given up.
UPLOADS_MAX: Final = 3
RESUMED_BYTES_LEAST: Final = 1024 * 1024
PARTIAL: Final = ".partial"
PARTIAL_KEPT_S: Final = 86_400  # What a pilot that died left half fetched is dropped a day after.
DIGEST: Final = re.compile(r"[0-9a-f]{64}")

Wait = Callable[[float], bool]
"""Waits some seconds; returns whether the caller should give up."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is wanted: its digest, its size where that is known (else -1), and the name it has for people."""

    sha256: str
    size_bytes: int = -1
    name: str = ""

    def __post_init__(self) -> None:
        if DIGEST.fullmatch(self.sha256) is None:
            raise BadInput(f"{self.sha256[:80]!r} is not a SHA-256 in lower-case hexadecimal digits")

    @property
    def label(self) -> str:
        """How to call it in a sentence."""
        return repr(self.name) if self.name else f"blob {self.sha256[:12]}"


class Staging:
    """Fetches and sends content.  Thread-safe; tasks that want the same content at once fetch it once."""

    def __init__(self, link: Source, cache_dir: Path, *, cache_mib: int) -> None:
        self._link = link
        self._directory = cache_dir / "sha256"
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._bytes_max = cache_mib * MIB
        self._lock = threading.Lock()
        self._under_way: dict[str, tuple[threading.Lock, int]] = {}  # With how many want it.

    def read(self, content: Content, *, size_max: int, wait: Wait) -> bytes:
        """Return content as bytes; errors as `deliver`, BadInput when it is larger than `size_max`."""
        for _ in range(FETCHES_MAX):
            with self._present(content, wait) as file:
                data = file.read(size_max + 1)
            if len(data) > size_max:
                raise BadInput(f"{content.label} is larger than the {size_max} bytes allowed")
            if sha256(data).hexdigest() == content.sha256:
                return data
            self._spoilt(self._directory / content.sha256)
        raise IntegrityError(f"the cached copy of {content.label} changes as soon as it is written")

    def deliver(self, content: Content, destination: Path, *, wait: Wait) -> int:
        """Put content at `destination` (new, or replaced), verified; return its size in bytes.

        NotFound when no site has it; IntegrityError, naming what was expected and found, when what the sites give is
        something else; Unavailable when `wait` said to give up; OSError when the disk refuses.
        """
        destination.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for _ in range(FETCHES_MAX):
            with self._present(content, wait) as file:
                found = _copy(file, destination)
            if found.sha256 == content.sha256:
                return found.size_bytes
            self._spoilt(self._directory / content.sha256)
        raise IntegrityError(f"the cached copy of {content.label} changes as soon as it is written")

    def send(self, path: Path, *, wait: Wait, progress: Callable[[], bool]) -> Content:
        """Upload a file, by content; return what it is.  Errors as `deliver`.

        `progress` is called for every piece, on gRPC's thread; when it returns False the upload is broken off.
        """
        measured = hash_file(path)
        size_bytes, digest = measured.size_bytes, measured.sha256

        tries = 0

        def pieces(offset: int) -> Iterator[bytes]:
            with path.open("rb") as file:
                file.seek(offset)
                for piece in chunks_of(file):
                    if not progress():
                        return  # The node sees a transfer that is cut short.
                    yield piece

        def put() -> common_pb2.BlobReply:
            nonlocal tries
            tries += 1
            offset = self._kept_there(path, digest, size_bytes) if tries > 1 else 0
            return self._link.put_blob(digest, size_bytes, pieces(offset), offset=offset)

        for _ in range(UPLOADS_MAX):
            reply = patiently(put, stop=wait, what=f"upload of {path.name}")
            if reply.sha256 == digest and reply.size_bytes == size_bytes:
                self._adopt(path, digest)
                return Content(digest, size_bytes, path.name)
            _LOG.warning("upload arrived altered", file=path.name, expected=digest, found=reply.sha256)
        raise IntegrityError(f"{path.name} arrived altered at the node: {reply.sha256} instead of {digest}")

    def _kept_there(self, path: Path, digest: str, size_bytes: int) -> int:
        """Return how many bytes of a file a node has from a transfer that was cut short, if they are the file's own."""
        if size_bytes < RESUMED_BYTES_LEAST:
            return 0
        try:
            state = self._link.upload_state(digest)
        except IceProdError:
            return 0  # Whatever is wrong, the upload itself will tell.
        if not 0 < state.kept_bytes <= size_bytes:
            return 0
        total, left = sha256(), state.kept_bytes
        with path.open("rb") as file:
            while left > 0 and (piece := file.read(min(left, MIB))):
                total.update(piece)
                left -= len(piece)
        if total.hexdigest() != state.kept_sha256:
            return 0
        _LOG.info("upload goes on", file=path.name, at_bytes=state.kept_bytes)
        return int(state.kept_bytes)

    def carry(self, digests: Iterable[str], node: Node, *, wait: Wait) -> None:
        """Upload cached content to one node; what is not cached or not taken is left out."""
        for digest in digests:
            path = self._directory / digest
            try:
                measured = hash_file(path)
                if measured.sha256 == digest and not wait(0.0):
                    with path.open("rb") as file:
                        self._link.put_blob(digest, measured.size_bytes, chunks_of(file), node=node)
            except (OSError, IceProdError) as fault:
                _LOG.info("output not carried along", sha256=digest, why=str(fault))

    def _present(self, content: Content, wait: Wait) -> IO[bytes]:
        """Return the cached file, open, fetched now if need be; not verified again here.

        It is open, so that it can be read to its end though others drop it from the cache meanwhile.
        """
        path = self._directory / content.sha256
        found = ""
        with self._exclusive(content.sha256):
            with contextlib.suppress(OSError):
                file = path.open("rb")
                with contextlib.suppress(OSError):
                    os.utime(path)  # The cache drops what was not used for longest.
                return file
            for _ in range(FETCHES_MAX):
                try:
                    fetched, found = self._fetch(content, path, wait)
                except IntegrityError as damaged:  # The node saw it itself, and brings it anew.
                    fetched, found = None, f"another: {damaged.message}"
                if fetched is not None:
                    self._trim(keep=path)
                    return fetched
                _LOG.warning("content altered", what=content.label, expected=content.sha256, found=found)
        raise IntegrityError(
            f"{content.label} was expected with SHA-256 {content.sha256} and found with {found}"
        )

    def _fetch(self, content: Content, path: Path, wait: Wait) -> tuple[IO[bytes] | None, str]:
        """Fetch content once, resuming broken transfers; return it open, moved to `path`, if right; and its SHA-256."""
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        scratch = Path(name)
        total = sha256()
        offset = 0
        try:
            with os.fdopen(descriptor, "wb") as file:

                def go_on() -> None:
                    nonlocal offset
                    for piece in self._link.get_blob(content.sha256, offset=offset):
                        offset += len(piece)
                        if 0 <= content.size_bytes < offset:
                            raise IntegrityError(f"{content.label} is longer than {content.size_bytes} bytes")
                        total.update(piece)
                        file.write(piece)
                        if wait(0.0):
                            raise Unavailable(f"the transfer of {content.label} was ended")

                patiently(go_on, stop=wait, what=f"fetch of {content.label}")
                if 0 <= content.size_bytes != offset:
                    return None, f"{total.hexdigest()} ({offset} bytes instead of {content.size_bytes})"
            if total.hexdigest() != content.sha256:
                return None, total.hexdigest()
            scratch.chmod(0o400)
            fetched = scratch.open("rb")
            scratch.replace(path)
            return fetched, content.sha256
        finally:
            scratch.unlink(missing_ok=True)

    def _adopt(self, path: Path, digest: str) -> None:
        """Keep a file made here for tasks that come after; its task is over, so nobody writes to it any more."""
        kept = self._directory / digest
        try:
            if not kept.exists() and path.stat().st_size <= self._bytes_max // 4:
                os.link(path, kept, follow_symlinks=False)
                self._trim(keep=kept)
        except OSError as fault:
            _LOG.debug("output not cached", file=path.name, fault=fault.strerror)

    def _spoilt(self, path: Path) -> None:
        _LOG.warning("cached copy altered, fetched again", path=str(path))
        path.unlink(missing_ok=True)

    def _trim(self, *, keep: Path) -> None:
        """Drop what was not used for longest until the cache fits its bound."""
        with self._lock:
            entries = []
            for entry in os.scandir(self._directory):
                with contextlib.suppress(OSError):
                    state = entry.stat(follow_symlinks=False)
                    entries.append((state.st_mtime_ns, state.st_size, entry.path))
            newest_ns = max((at_ns for at_ns, _, _ in entries), default=0)
            total = sum(size for _, size, _ in entries)
            for at_ns, size, name in sorted(entries):
                if total <= self._bytes_max:
                    break
                # What is half fetched is another task's, or another pilot's, on its way in.
                arriving = name.endswith(PARTIAL) and newest_ns - at_ns < PARTIAL_KEPT_S * 10**9
                if name != str(keep) and not arriving:
                    with contextlib.suppress(OSError):
                        os.unlink(name)
                    total -= size

    @contextlib.contextmanager
    def _exclusive(self, digest: str) -> Iterator[None]:
        with self._lock:
            lock, users = self._under_way.get(digest, (threading.Lock(), 0))
            self._under_way[digest] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._under_way.pop(digest)
                if users > 1:
                    self._under_way[digest] = (lock, users - 1)


def _copy(source: IO[bytes], destination: Path) -> FileSum:
    total = StreamSum()
    destination.unlink(missing_ok=True)
    with destination.open("xb") as write:
        for piece in chunks_of(source):
            total.update(piece)
            write.write(piece)
    return total.result()
