"""What a task reads from and writes to places outside the cluster: files by URL, with the site's credentials."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from iceprod_p2p.base.errors import (
    BadInput,
    ConfigError,
    IceProdError,
    IntegrityError,
    NotAllowed,
    NotFound,
    Unavailable,
)
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.wire.pb import common_pb2
from iceprod_pilot.attempt import Attempt, TaskFailure
from iceprod_pilot.plan import Move, Step
from iceprod_pilot.storage_credentials import StorageCredentials

if TYPE_CHECKING:
    from iceprod_p2p.transfers.engine import Transfers

MIB: Final = 1024 * 1024
TRANSFER_CLASSES: Final = ("Transfer", "iceprod_p2p.modules.transfer.Transfer")


def is_outside(remote: str) -> bool:
    """Return whether a file has an address of its own, beyond the cluster's blobs and logical names."""
    return "://" in remote and not remote.startswith("iceprod://")


class Outside:
    """The storages that a pilot reaches.  Thread-safe; one for all its tasks.

    `storage` knows the site's file of credentials, None for none; read when the first URL is
    used, and when it is another.
    """

    def __init__(self, storage: StorageCredentials | None = None) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._transfers: tuple[int, Transfers] | None = None

    def file(self) -> str:
        """Return the path of the file of credentials, empty for none; TaskFailure when the site does not give it."""
        if self._storage is None:
            return ""
        try:
            return self._storage.path()
        except (IceProdError, OSError) as failure:
            raise TaskFailure(
                FailReason.STORAGE, f"the site's credentials for storages: {failure}"
            ) from failure

    def bring(self, move: Move, target: Path, attempt: Attempt) -> None:
        """Fetch an input; TaskFailure names file, expected and found.  An optional one may be missing."""
        from iceprod_p2p.transfers.sums import parse_all

        try:
            expected = parse_all(move.checksum)
            self._ready().copy(move.remote, str(target), expected=expected, limits=_limits(attempt))
        except NotFound as missing:
            if not move.optional:
                raise TaskFailure(FailReason.INPUT_MISSING, f"input {missing.message}") from missing
        except IntegrityError as wrong:
            raise TaskFailure(FailReason.INPUT_CHECKSUM, f"input {wrong.message}") from wrong
        except (Unavailable, NotAllowed) as failure:
            attempt.cancel.check()
            raise TaskFailure(FailReason.INPUT_MISSING, f"input {failure}") from failure

    def take_away(
        self, move: Move, path: Path, entry: common_pb2.FileEntry, attempt: Attempt
    ) -> common_pb2.FileEntry:
        """Store an output at its address too, and return its entry with address and checksums."""
        from iceprod_p2p.transfers import url as urls

        try:
            address = urls.parse(move.remote).shown  # Without a query: what is recorded, everybody can read.
            stored = self._ready().copy(str(path), move.remote, limits=_limits(attempt))
        except BadInput:
            raise
        except IceProdError as failure:
            attempt.cancel.check()
            raise TaskFailure(FailReason.STORAGE, f"output {move.local!r}: {failure}") from failure
        entry.urls.append(address)
        entry.checksums.update({name: digest for name, digest in stored.sums.items() if name != "sha256"})
        return entry

    def _ready(self) -> Transfers:
        # Only tasks that use what is outside the cluster pay for these imports.
        from iceprod_p2p.transfers.credentials import load
        from iceprod_p2p.transfers.engine import Transfers
        from iceprod_p2p.transfers.registry import Registry

        file = self.file()
        with self._lock:
            generation = self._storage.generation if self._storage is not None else 0
            if self._transfers is None or self._transfers[0] != generation:
                try:
                    self._transfers = generation, Transfers(Registry(load(Path(file)) if file else None))
                except ConfigError as fault:
                    raise TaskFailure(FailReason.STORAGE, f"the site's configuration: {fault}") from fault
            return self._transfers[1]


def check_sums(path: Path, checksum: str, name: str) -> None:
    """Compare a delivered input with what the steering file promises; TaskFailure names expected and found."""
    from iceprod_p2p.transfers.sums import check_all, measure_file, parse_all

    expected = parse_all(checksum)
    try:
        check_all(name, expected, measure_file(path, [entry.algorithm for entry in expected]))
    except IntegrityError as wrong:
        raise TaskFailure(FailReason.INPUT_CHECKSUM, f"input {wrong.message}") from wrong


def blob_sources(step: Step) -> Sequence[str]:
    """Return the blobs of the cluster that a transfer module reads: it has no way to them of its own."""
    if step.class_name not in TRANSFER_CLASSES:
        return ()
    return [
        value
        for values in (step.parameters, step.args)
        if isinstance(values, Mapping)
        for name, value in values.items()
        if str(name).lower() == "source" and isinstance(value, str) and value.startswith("iceprod://")
    ]


def with_sources(step: Step, places: Mapping[str, str]) -> Step:
    """Return the step with files of the task in place of blobs."""

    def put(values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {
            name: places.get(value, value) if isinstance(value, str) else value
            for name, value in values.items()
        }

    return replace(step, parameters=put(step.parameters), args=put(step.args))


def _limits(attempt: Attempt) -> Any:
    from iceprod_p2p.transfers.limits import Limits

    disk_mib = attempt.order.requirements.disk_mib
    bounds = Limits(wait=attempt.cancel.wait)
    return replace(bounds, size_max_bytes=disk_mib * MIB) if disk_mib else bounds
