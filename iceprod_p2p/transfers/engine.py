"""Copies between any two places, verified and repeated; the same for every kind of storage.

A download goes to a file beside its destination and is renamed only when size and checksums are right; a further
attempt goes on where the last one broke off, if the server still has the same file.  What was uploaded is compared
with what the server says it holds, or read back.  Between two servers the bytes take the direct way where they can.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError, NotFound, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.transfers import url as urls
from iceprod_p2p.transfers.credentials import Credentials
from iceprod_p2p.transfers.limits import Limits
from iceprod_p2p.transfers.local import path_of
from iceprod_p2p.transfers.registry import Registry
from iceprod_p2p.transfers.storage import Partial, Stat, Storage
from iceprod_p2p.transfers.sums import (
    CHUNK_BYTES,
    RECORDED,
    ExpectedChecksum,
    Measured,
    Meter,
    check_all,
    measure_file,
)
from iceprod_p2p.transfers.url import Url

_LOG: Final = get_logger("transfers")
Result = TypeVar("Result")


class Altered(Unavailable):
    """Bytes came or went altered, which another attempt may mend; after the last one it is an IntegrityError."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A finished copy: its bytes, its checksums by algorithm, and how it went.

    `direct` tells that the servers copied between themselves; the SHA-256 is then known only when somebody said it or
    the file was read.  `attempts` counts from 1, `resumed_bytes` those that did not have to come again.
    """

    size_bytes: int
    sums: dict[str, str]
    direct: bool = False
    attempts: int = 1
    resumed_bytes: int = 0

    @property
    def sha256(self) -> str:
        """Its SHA-256; empty when nobody knows it."""
        return self.sums.get("sha256", "")


class Transfers:
    """Copies and measures files by URL.  Thread-safe; calls block."""

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry or Registry()

    @property
    def credentials(self) -> Credentials:
        """What goes to which server."""
        return self._registry.credentials

    def copy(
        self,
        source: str,
        destination: str,
        *,
        expected: Sequence[ExpectedChecksum] = (),
        limits: Limits | None = None,
    ) -> Copied:
        """Copy a file from a path or URL to a path or URL, making what lies above it.

        BadInput for what no storage speaks; NotFound when the source does not exist; NotAllowed without permission;
        IntegrityError, naming expected and found, when it is not what was promised (a local destination is then as it
        was); Unavailable when all attempts failed or the limits' `wait` said to end.
        """
        bounds = limits or Limits()
        if bounds.attempts < 1:
            raise BadInput(f"{bounds.attempts} attempts are too few", remedy="allow at least one")
        first, last = urls.parse(source), urls.parse(destination)
        reader, writer = self._registry.storage(first), self._registry.storage(last)
        job = _Job(first, last, reader, writer, tuple(expected), bounds, self.credentials.of(last).read_back)
        if last.scheme == "file":
            return job.download()
        if first.scheme == "file":
            return job.upload(path_of(first))
        return job.between()

    def measure(
        self, url: str, *, algorithms: Iterable[str] = RECORDED, limits: Limits | None = None
    ) -> Measured:
        """Read a file from its first byte to its last and return its size and checksums; errors as `copy`."""
        bounds = limits or Limits()
        place = urls.parse(url)
        storage = self._registry.storage(place)
        measured, _ = _repeated(lambda: measure(storage, place, algorithms, bounds), bounds)
        return measured

    def stat(self, url: str, *, limits: Limits | None = None) -> Stat:
        """Ask for a file's size; errors as `copy`."""
        bounds = limits or Limits()
        place = urls.parse(url)
        found, _ = _repeated(lambda: self._registry.storage(place).stat(place, bounds), bounds)
        return found

    def remove(self, url: str, *, limits: Limits | None = None) -> None:
        """Remove a file; errors as `copy`."""
        bounds = limits or Limits()
        place = urls.parse(url)
        _repeated(lambda: self._registry.storage(place).remove(place, bounds), bounds)


def measure(storage: Storage, url: Url, algorithms: Iterable[str], limits: Limits) -> Measured:
    """Read a file once and return what it is; one attempt, memory bounded by a chunk."""
    meter = Meter(algorithms)
    with storage.open(url, limits, part_of=Stat()) as reading:
        while data := reading.read(CHUNK_BYTES):
            meter.update(data)
    if 0 <= reading.stat.size_bytes != meter.size_bytes:
        raise Unavailable(f"{url} ended after {meter.size_bytes} of {reading.stat.size_bytes} bytes")
    return meter.result()


@dataclass(frozen=True, slots=True)
class _Job:
    """One copy."""

    source: Url
    destination: Url
    reader: Storage
    writer: Storage
    expected: tuple[ExpectedChecksum, ...]
    limits: Limits
    read_back: bool

    @property
    def _algorithms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*RECORDED, *(checksum.algorithm for checksum in self.expected))))

    def download(self) -> Copied:
        """Bring the file; see `Transfers.copy`."""
        target = path_of(self.destination)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise BadInput(f"{target.parent} cannot be made: {failure.strerror}") from failure
        partial = Partial(target.with_name(f".{target.name[:200]}.{os.getpid()}.partial"))
        partial.drop()
        resumed_bytes = 0

        def attempt() -> Measured:
            nonlocal resumed_bytes
            before_bytes = partial.size_bytes
            self.reader.fetch(self.source, partial, self.limits)
            resumed_bytes = min(before_bytes, partial.size_bytes)
            try:
                return self._checked(partial, resumed=before_bytes > 0)
            except IceProdError:
                partial.drop()
                raise

        try:
            measured, attempts = _repeated(attempt, self.limits)
            partial.path.replace(target)
        except OSError as failure:
            raise BadInput(f"{target} cannot be written: {failure.strerror}") from failure
        finally:
            partial.drop()
        return Copied(
            measured.size_bytes, dict(measured.sums), attempts=attempts, resumed_bytes=resumed_bytes
        )

    def _checked(self, partial: Partial, *, resumed: bool) -> Measured:
        measured = measure_file(partial.path, self._algorithms)
        try:
            check_all(self.source.shown, self.expected, measured)
        except IntegrityError as wrong:
            if resumed:  # The parts may be of two files.
                raise Altered(f"{wrong.message} (after it was resumed)") from wrong
            raise
        if not self.expected:  # Then the server's own word is all there is to compare with.
            said = dict(
                partial.stat.sums
                or self.reader.sums(self.source, RECORDED, self.limits.for_reading(measured.size_bytes))
            )
            _compare(self.source, said, measured)
        return measured

    def upload(self, path: Path) -> Copied:
        """Take the file away; see `Transfers.copy`."""
        measured = measure_file(path, self._algorithms)
        check_all(self.source.shown, self.expected, measured)

        stored = confirmed = False

        def attempt() -> None:
            nonlocal stored, confirmed
            if not stored:
                confirmed = self.writer.store(path, self.destination, measured, self.limits)
                stored = True
            try:
                self._verify_stored(measured, confirmed=confirmed)
            except Altered:
                stored = False  # Anything else is no reason to send it again.
                raise

        try:
            _, attempts = _repeated(attempt, self.limits)
        except IceProdError:
            self.writer.give_up(self.destination)
            raise
        return Copied(measured.size_bytes, dict(measured.sums), attempts=attempts)

    def _verify_stored(self, measured: Measured, *, confirmed: bool) -> None:
        """Compare what the server holds now; Altered when it is not this, so that it is sent again."""
        try:
            stat = self.writer.stat(self.destination, self.limits)
            if 0 <= stat.size_bytes != measured.size_bytes:
                raise Altered(
                    f"{self.destination} has {stat.size_bytes} bytes after {measured.size_bytes} were stored"
                )
            if confirmed:
                return
            said = {name: digest for name, digest in stat.sums.items() if name in measured.sums}
            patient = self.limits.for_reading(measured.size_bytes)
            said = said or dict(self.writer.sums(self.destination, RECORDED, patient))
            if not said and self.read_back:
                found = measure(self.writer, self.destination, ("sha256",), self.limits)
                said = dict(found.sums)
        except NotFound as gone:
            raise Altered(f"{self.destination} was stored and is not there: {gone.message}") from gone
        _compare(self.destination, said, measured)

    def between(self) -> Copied:
        """Copy from server to server: directly where they can, else by way of a file of this machine."""
        direct, attempts = _repeated(self._direct, self.limits)
        if direct is not None:
            return replace(direct, attempts=attempts)
        with tempfile.TemporaryDirectory(prefix="transfer-", dir=os.environ.get("TMPDIR")) as scratch:
            path = Path(scratch) / "file"
            here = urls.of_path(path)
            local = Registry().storage(here)
            fetched = replace(self, destination=here, writer=local).download()
            stored = replace(self, source=here, reader=local, expected=()).upload(path)
        return replace(stored, attempts=max(fetched.attempts, stored.attempts))

    def _direct(self) -> Copied | None:
        storage = self.reader
        if type(self.reader) is not type(self.writer):
            return None
        before = self.reader.stat(self.source, self.limits)
        if not storage.copy(self.source, self.destination, self.limits):
            return None
        after = self.writer.stat(self.destination, self.limits)
        if before.size_bytes >= 0 and after.size_bytes >= 0 and before.size_bytes != after.size_bytes:
            raise Unavailable(
                f"{self.destination} has {after.size_bytes} of {before.size_bytes} bytes of {self.source}"
            )
        promised = {checksum.algorithm: checksum.digest for checksum in self.expected}
        wanted = tuple(promised) or RECORDED
        size_bytes = max(after.size_bytes, before.size_bytes)
        patient = self.limits.for_reading(size_bytes)
        first = promised or dict(before.sums or self.reader.sums(self.source, wanted, patient))
        second = dict(after.sums or self.writer.sums(self.destination, tuple(first) or wanted, patient))
        if not set(first) & set(second) and (self.read_back or promised):
            if not first:
                first = dict(measure(self.reader, self.source, ("sha256",), self.limits).sums)
            read = measure(self.writer, self.destination, tuple(first), self.limits)
            second, size_bytes = dict(read.sums), read.size_bytes
        for algorithm in set(first) & set(second):
            if first[algorithm] != second[algorithm]:
                text = f"{self.destination} has {algorithm} {second[algorithm]}, not the {first[algorithm]}"
                if promised:
                    raise IntegrityError(f"{text} that was expected")
                raise Altered(f"{text} of {self.source}")
        return Copied(size_bytes, second, direct=True)


def _compare(url: Url, said: dict[str, str], measured: Measured) -> None:
    """Raise Unavailable when the server's own checksums are not those of the bytes that passed."""
    for algorithm, digest in said.items():
        found = measured.sums.get(algorithm)
        if found is not None and found != digest:
            raise Altered(f"{url} has {algorithm} {digest} by its server, the bytes have {found}")


def _repeated(attempt: Callable[[], Result], limits: Limits) -> tuple[Result, int]:
    """Call until it succeeds, with growing pauses after what may pass; return the result and the number of calls."""
    pause_s = limits.pause_s
    for number in range(1, max(1, limits.attempts) + 1):
        try:
            return attempt(), number
        except Unavailable as passing:
            if limits.wait(0.0):
                raise
            if number >= limits.attempts:
                final = IntegrityError if isinstance(passing, Altered) else Unavailable
                raise final(f"{passing.message}; {number} attempts were made") from passing
            _LOG.info("transfer failed, tried again", why=passing.message, attempt=number, pause_s=pause_s)
        if limits.wait(pause_s):
            raise Unavailable("the transfer was ended, it is no longer wanted")
        pause_s = min(limits.pause_max_s, pause_s * 2)
    raise BadInput("no attempt was allowed")
