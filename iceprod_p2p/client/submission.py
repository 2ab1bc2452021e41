"""Turn a steering file and the files beside it into a submission.

Local sources of modules and classes (``src="modules/x.py"``) and local images of containers, looked for beside the
steering file, become blobs, addressed as ``iceprod://sha256/DIGEST/NAME``: a job never needs the submitter's disk.
The document that travels is the canonical JSON form.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.client.connection import Connection, request_id
from iceprod_p2p.model.steering import Configuration, Module, Task, Tray
from iceprod_p2p.modules.archive import inspect
from iceprod_p2p.security.checksums import hash_file
from iceprod_p2p.steering.limits import FILE_BYTES_MAX
from iceprod_p2p.steering.plan import ordered
from iceprod_p2p.steering.read import read
from iceprod_p2p.steering.write import canonical
from iceprod_p2p.wire.pb import control_pb2

SOURCE_BYTES_MAX = 16 << 20  # A module is text; data belong into `data` elements or software archives.
DESCRIPTION_MAX = 500  # What a dataset keeps of the description in its file; the document has all of it.
SUBMIT_TIMEOUT_S = (
    120.0  # Fetching external modules and spreading the document to other nodes are part of the call.
)

Part = TypeVar("Part", Task, Tray, Module)


@dataclass(frozen=True, slots=True)
class Packed:
    """A document ready to travel, and the contents of the blobs it names, by SHA-256; large ones as files."""

    document: bytes
    blobs: dict[str, bytes]
    files: dict[str, Path] = field(default_factory=dict)


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
    packer = _Packer(directory)
    tasks = tuple(map(packer.task, configuration.tasks))
    return Packed(canonical(replace(configuration, tasks=tasks)), packer.blobs, packer.files)


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

    Without a description the dataset has that of the file.

    A repeat after a lost answer is harmless.  Raises `base.errors`: what is wrong with the file, or the node's no.
    """
    document = read_document(path)
    made = pack(document, path.resolve().parent)
    if not dry_run:
        for digest, content in made.blobs.items():
            connection.put_blob(content, sha256=digest)
        for digest, image in made.files.items():
            connection.put_file(image, sha256=digest, size_bytes=image.stat().st_size)
    request = control_pb2.SubmitRequest(
        document=made.document,
        jobs=jobs,
        alias=alias,
        description=description or " ".join(document.description.split())[:DESCRIPTION_MAX],
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


@dataclass(slots=True)
class _Packer:
    """Turns what is named by a path into blobs."""

    directory: Path
    blobs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    def task(self, task: Task) -> Task:
        trays = tuple(self.tray(tray) for tray in task.trays)
        return replace(self.part(task), trays=trays, container=self.image(task.container))

    def tray(self, tray: Tray) -> Tray:
        return replace(self.part(tray), modules=tuple(self.module(module) for module in tray.modules))

    def module(self, module: Module) -> Module:
        return replace(self.part(module), src=self.source(module.src))

    def part(self, part: Part) -> Part:
        environment = part.environment
        if environment is not None:
            environment = replace(environment, container=self.image(environment.container))
        classes = tuple(replace(reference, src=self.source(reference.src)) for reference in part.classes)
        return replace(part, classes=classes, environment=environment)

    def source(self, src: str) -> str:
        if not src or "$" in src or "://" in src:
            return src
        content = _source(self.directory, src)
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return f"iceprod://sha256/{digest}/{Path(src).name}"

    def image(self, container: str) -> str:
        """Return how a container is named in the document; one that is a file beside the steering file travels."""
        if not container or "$" in container or "://" in container or container.startswith("/"):
            return container
        path = _beside(self.directory, container, "container")
        inspect(path, root_filesystem=True)
        digest = hash_file(path).sha256
        self.files[digest] = path
        return f"iceprod://sha256/{digest}/{path.name}"


def _beside(directory: Path, name: str, what: str) -> Path:
    path = (directory / name).resolve()
    if not path.is_relative_to(directory):
        raise BadInput(
            f"the {what} {name!r} lies outside {directory}", remedy="put it beside the steering file"
        )
    return path


def _source(directory: Path, src: str) -> bytes:
    path = _beside(directory, src, "module source")
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
