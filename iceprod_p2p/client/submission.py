"""Turn a steering file and the files beside it into a submission.

Local module sources (``src="modules/x.py"``, looked for beside the steering file) become blobs, addressed as
``iceprod://sha256/DIGEST/NAME``, so a job never needs the submitter's disk.  The document that travels is the
canonical JSON form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.client.connection import Connection, request_id
from iceprod_p2p.model.steering import Configuration, Module, Task, Tray
from iceprod_p2p.steering.limits import FILE_BYTES_MAX
from iceprod_p2p.steering.plan import ordered
from iceprod_p2p.steering.read import read
from iceprod_p2p.steering.write import canonical
from iceprod_p2p.wire.pb import control_pb2

SOURCE_BYTES_MAX = 16 << 20  # A module is text; data belong into `data` elements or software archives.
SUBMIT_TIMEOUT_S = 60.0  # Spreading the document to other nodes is part of the call.


@dataclass(frozen=True, slots=True)
class Packed:
    """A document ready to travel, and the contents of the blobs it names, by SHA-256."""

    document: bytes
    blobs: dict[str, bytes]


def read_document(path: Path) -> Configuration:
    """Read a steering file, with parents put before their children; BadInput (or SteeringError with all faults) says
    what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as failure:
        raise BadInput(
            f"cannot read {path}: {failure.strerror}", remedy="check the name and the permissions"
        ) from None
    document = read(text, name=str(path))
    if not document.tasks:
        raise BadInput(f"{path} has no tasks, so there is nothing to do", remedy="give it at least one task")
    return ordered(document)


def pack(configuration: Configuration, directory: Path) -> Packed:
    """Replace local sources by blobs; `directory` is where relative names begin.

    Raises BadInput for a source that is absent, too large, or lies outside `directory`.
    """
    blobs: dict[str, bytes] = {}

    def packed(module: Module) -> Module:
        if not module.src or "$" in module.src or "://" in module.src:
            return module
        content = _source(directory, module.src)
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return replace(module, src=f"iceprod://sha256/{digest}/{Path(module.src).name}")

    tasks = tuple(_task(task, packed) for task in configuration.tasks)
    return Packed(canonical(replace(configuration, tasks=tasks)), blobs)


def submit_file(
    connection: Connection,
    path: Path,
    *,
    jobs: int,
    seed: int | None = None,
    alias: str = "",
    description: str = "",
    priority: float | None = None,
    sites: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    attempts_max: int = 0,
    group: str = "",
    dry_run: bool = False,
) -> control_pb2.SubmitReply:
    """Submit a steering file as `jobs` jobs and return the node's reply, with warnings.

    A repeat after a lost answer is harmless.  Raises `base.errors`: what is wrong with the file, or the node's no.
    """
    made = pack(read_document(path), path.resolve().parent)
    if not dry_run:
        for digest, content in made.blobs.items():
            connection.put_blob(content, sha256=digest)
    request = control_pb2.SubmitRequest(
        document=made.document,
        jobs=jobs,
        alias=alias,
        description=description,
        priority=round(1000 * priority) if priority is not None else 0,
        priority_given=priority is not None,
        sites_allowed=sites,
        sites_excluded=exclude,
        request_id=request_id(),
        attempts_max=attempts_max,
        dry_run=dry_run,
        seed=seed or 0,
        seed_given=seed is not None,
        group=group,
    )
    reply: control_pb2.SubmitReply = connection.call("Submit", request, timeout_s=SUBMIT_TIMEOUT_S)
    return reply


def _task(task: Task, packed: Callable[[Module], Module]) -> Task:
    return replace(task, trays=tuple(_tray(tray, packed) for tray in task.trays))


def _tray(tray: Tray, packed: Callable[[Module], Module]) -> Tray:
    return replace(tray, modules=tuple(packed(module) for module in tray.modules))


def _source(directory: Path, src: str) -> bytes:
    path = (directory / src).resolve()
    if not path.is_relative_to(directory):
        raise BadInput(
            f"the module source {src!r} lies outside {directory}", remedy="put it beside the steering file"
        )
    try:
        with path.open("rb") as file:
            content = file.read(SOURCE_BYTES_MAX + 1)
    except OSError as failure:
        raise BadInput(
            f"cannot read the module source {src!r}: {failure.strerror} ({path})",
            remedy="sources are looked for beside the steering file",
        ) from None
    if len(content) > SOURCE_BYTES_MAX:
        raise BadInput(
            f"the module source {src!r} is larger than {SOURCE_BYTES_MAX >> 20} MiB",
            remedy="ship large things as data or software",
        )
    return content
